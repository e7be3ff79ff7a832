"""
An operator as it was before steadyhook, loaded into pods by a test: it serves its handlers by kopf's own server.

FORMERLY_SECRET: with the certificate of this Secret, as a mount or an init container puts it into files.
FORMERLY_MANAGED: self-signed, with a configuration of this name that kopf writes by itself, for the Service
FORMERLY_SERVICE. kopf signs by a library that does not load with OpenSSL 3.0.10 and later, so what stands in for that
one function is the project's own minting; all else is kopf's.
"""
import base64
import datetime
import os
import pathlib
import tempfile
from collections.abc import AsyncIterator, Iterable
from typing import Any

import kopf
import kubernetes

from steadyhook.core import policy
from steadyhook.pki import minting

PORT = 9443
LABEL = "steadyhook.io/example"
NAMESPACE = os.environ["POD_NAMESPACE"]


class _SelfSigned(kopf.WebhookServer):
    """Reached through a Service, as kopf's documentation tells how to."""

    async def __call__(self, fn: kopf.WebhookFn) -> AsyncIterator[kopf.WebhookClientConfig]:
        async for config in super().__call__(fn):
            yield kopf.WebhookClientConfig(
                caBundle=config["caBundle"],
                service=kopf.WebhookClientConfigService(name=os.environ["FORMERLY_SERVICE"], namespace=NAMESPACE))

    @staticmethod
    def build_certificate(hostnames: Iterable[str], password: str | None = None) -> tuple[bytes, bytes]:
        wanted = policy.parse({"secretName": "x", "dnsNames": sorted(set(hostnames) - {"localhost"})},
                              namespace=NAMESPACE, name="formerly")
        now = datetime.datetime.now(datetime.UTC)
        pair = minting.mint_leaf(wanted, signer=minting.mint_authority(wanted, now=now), now=now)
        return pair.certificate_pem, pair.key_pem


@kopf.on.startup()
async def configure(settings: kopf.OperatorSettings, **_: Any) -> None:
    listen: dict[str, Any] = {"addr": os.environ["STEADYHOOK_LISTEN_ADDRESS"], "port": PORT}
    if secret := os.environ.get("FORMERLY_SECRET"):
        folder = pathlib.Path(tempfile.mkdtemp())
        kubernetes.config.load_kube_config()
        data = kubernetes.client.CoreV1Api().read_namespaced_secret(secret, NAMESPACE).data
        for name in ("tls.crt", "tls.key"):
            (folder / name).write_bytes(base64.b64decode(data[name]))
        settings.admission.server = kopf.WebhookServer(
            certfile=folder / "tls.crt", pkeyfile=folder / "tls.key", **listen)
    else:
        settings.admission.server = _SelfSigned(host=f"{os.environ['FORMERLY_SERVICE']}.{NAMESPACE}.svc", **listen)
        settings.admission.managed = os.environ["FORMERLY_MANAGED"]


@kopf.on.validate("", "v1", "configmaps", id="validate-configmap", labels={LABEL: NAMESPACE})
async def validate_configmap(body: kopf.Body, **_: Any) -> None:
    """Of the new operator's rules the one that the test asks for."""
    if (body.get("data") or {}).get("replicas") == "0":
        raise kopf.AdmissionError("refused by the former operator")
