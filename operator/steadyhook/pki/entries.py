"""
Where each kind of configuration keeps its caBundles.

The guard of each is what must still be as it was read for the bundle to be written there.
"""
import collections.abc
from typing import Any

from steadyhook.core import facts
from steadyhook.pki import secrets

Manifest = collections.abc.Mapping[str, Any]


def read(kind: str, manifest: Manifest) -> collections.abc.Iterator[facts.Entry]:
    """The entries of one object; none where it calls nobody by TLS."""
    return _READERS[kind](manifest)


def _webhooks(manifest: Manifest) -> collections.abc.Iterator[facts.Entry]:
    for index, webhook in enumerate(manifest.get("webhooks") or []):
        base = f"/webhooks/{index}"
        guard = (f"{base}/name", webhook["name"])
        yield _entry(webhook["name"], webhook["clientConfig"], f"{base}/clientConfig", guard)


def _conversion(manifest: Manifest) -> collections.abc.Iterator[facts.Entry]:
    conversion = manifest["spec"].get("conversion") or {}
    config = (conversion.get("webhook") or {}).get("clientConfig")
    if conversion.get("strategy") == "Webhook" and config is not None:
        yield _entry("conversion", config, "/spec/conversion/webhook/clientConfig",
                     ("/spec/conversion/strategy", "Webhook"))


def _service(manifest: Manifest) -> collections.abc.Iterator[facts.Entry]:
    spec = manifest["spec"]
    # One without a service is served by the API server itself; one that skips the verification takes no bundle.
    if spec.get("service") and not spec.get("insecureSkipTLSVerify"):
        name = spec["service"]["name"]
        yield _entry(name, spec, "/spec", ("/spec/service/name", name))


_READERS: dict[str, collections.abc.Callable[[Manifest], collections.abc.Iterator[facts.Entry]]] = {
    "ValidatingWebhookConfiguration": _webhooks,
    "MutatingWebhookConfiguration": _webhooks,
    "CustomResourceDefinition": _conversion,
    "APIService": _service,
}


def _entry(name: str, config: Manifest, base: str, guard: tuple[str, str]) -> facts.Entry:
    trusted, readable = secrets.read_ca_bundle(config.get("caBundle"))
    service = config.get("service") or {}
    return facts.Entry(
        name=name, trusted=trusted, readable=readable, pointer=f"{base}/caBundle", guard=guard,
        service=(service["namespace"], service["name"]) if {"namespace", "name"} <= service.keys() else None,
        service_port=service.get("port", 443))
