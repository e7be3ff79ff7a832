"""A webhook as Longhorn's: two Services, two Secrets, and a configuration that the program itself writes."""
import base64
import collections
import contextlib
import dataclasses
import datetime
import hashlib
import json
import math
import threading
import time
from collections.abc import Iterator
from typing import Any

import yaml
from cryptography import x509
from cryptography.hazmat.primitives import serialization

from devcluster import api, audit, facade
from peers import listeners
from steadyhook.pki import certificates, secrets

CERTIFICATE = "hook-webhook"
SECRET = "hook-webhook-tls"
CA_SECRET = "hook-webhook-ca"
SERVICES = ("hook-admission-webhook", "hook-conversion-webhook")
STATIC = "listener.cattle.io/static"
CALM_SECONDS = 5.0  # in a storm there are more than ten writes a second
WRITES = ("create", "update", "patch", "delete")

JsonObject = dict[str, Any]


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Writes:
    """What was tried on the Secrets of a namespace: done, and refused as a conflict."""

    done: int
    conflicts: int


class Webhook:
    """The objects of one namespace, with Services of its name, and what was seen of them."""

    def __init__(self, cluster: facade.DevCluster, namespace: str) -> None:
        self.cluster = cluster
        self.namespace = namespace
        self.names = [f"{service}.{namespace}.svc" for service in SERVICES]
        self.configuration = f"hook-{namespace}"

    def start(self, count: int, *, lease: str | None = None) -> listeners.Listeners:
        """So many that are not started yet."""
        return listeners.Listeners(
            self.cluster, kubeconfig=self.cluster.kubeconfig, namespace=self.namespace, secret=SECRET,
            ca_secret=CA_SECRET, names=self.names, count=count, lease=lease)

    def ask(self, **spec: Any) -> None:
        """Apply the WebhookCertificate."""
        manifest = {
            "apiVersion": "steadyhook.io/v1alpha1", "kind": "WebhookCertificate",
            "metadata": {"name": CERTIFICATE, "namespace": self.namespace},
            "spec": {"secretName": SECRET, "caSecretName": CA_SECRET, "compatibility": "Dynamiclistener",
                     "dnsNames": self.names, "privateKey": {"algorithm": "RSA-2048"}, "duration": "8760h",
                     "renewBefore": "2400h", "settleSeconds": 2, **spec}}
        self.cluster.kubectl("apply", "-f", "-", input=yaml.safe_dump(manifest))

    def annotate(self, key: str, value: str) -> None:
        self.cluster.kubectl("annotate", "whcert", CERTIFICATE, "-n", self.namespace, f"{key}={value}", "--overwrite")

    def serve(self, running: listeners.Listeners) -> None:
        """Let the Services have the listeners as their endpoints."""
        objects: list[JsonObject] = []
        for service in SERVICES:
            objects.append({"apiVersion": "v1", "kind": "Service", "metadata": {"name": service},
                            "spec": {"ports": [{"port": 443, "targetPort": listeners.PORT}]}})
            objects.append(listeners.endpoint_slice(f"{service}-1", service, running.pod_addresses))
        self.cluster.kubectl("apply", "-n", self.namespace, "-f", "-", input=yaml.safe_dump_all(objects))

    def wait_ready(self, seconds: float = 60.0) -> JsonObject:
        """Until the certificate is ready and has nothing to do; its status."""
        def settled() -> JsonObject | None:
            status = self.status()
            states = {item["type"]: item["status"] for item in status.get("conditions", [])}
            good = states.get("Ready") == "True" and states.get("Issuing") == "False" and (
                states.get("Rotating") == "False")
            return status if good else None

        return self.cluster.wait_for(settled, seconds, "the WebhookCertificate to be ready") or {}

    def status(self) -> JsonObject:
        path = f"/apis/steadyhook.io/v1alpha1/namespaces/{self.namespace}/webhookcertificates/{CERTIFICATE}"
        return dict(self.cluster.request("GET", path).get("status") or {})

    def secret(self, name: str) -> JsonObject:
        return dict(self.cluster.request("GET", f"/api/v1/namespaces/{self.namespace}/secrets/{name}"))

    def trusted_pem(self) -> str:
        """What a program copies into its configurations: all of tls.crt in the CA Secret."""
        return base64.b64decode(self.secret(CA_SECRET)["data"]["tls.crt"]).decode()

    def leaf_fingerprint(self) -> str:
        """SHA-256 of the first certificate in the leaf Secret."""
        pem = base64.b64decode(self.secret(SECRET)["data"]["tls.crt"])
        leaf = x509.load_pem_x509_certificates(pem)[0]
        return hashlib.sha256(leaf.public_bytes(serialization.Encoding.DER)).hexdigest()

    def served_by_all(self, running: listeners.Listeners) -> set[str]:
        """The leaves that the listeners serve, each verified under the CA Secret as it is now, for the first name."""
        trusted = self.trusted_pem()
        return {listeners.handshake(item, name=self.names[0], trusted_pem=trusted) for item in running.pod_addresses}

    def writes(self, *, by_listeners: bool, since: int = 0) -> Writes:
        """Of the listeners to both Secrets, or of everybody else."""
        codes = [audit.code_of(event) for event in self.cluster.audit.select(
                     resource="secrets", namespace=self.namespace, verb=WRITES, since=since)
                 if event.get("userAgent", "").startswith("listener-") is by_listeners]
        return Writes(done=sum(code < 300 for code in codes), conflicts=codes.count(409))

    def seconds_since_a_listener_wrote(self) -> float:
        """Infinite if none has."""
        now = datetime.datetime.now(datetime.UTC)
        return min((
            (now - datetime.datetime.fromisoformat(event["stageTimestamp"])).total_seconds()
            for event in self.cluster.audit.select(resource="secrets", namespace=self.namespace, verb=WRITES)
            if event.get("userAgent", "").startswith("listener-") and audit.code_of(event) < 300), default=math.inf)

    def wait_calm(self, running: listeners.Listeners) -> int:
        """
        Until both Secrets are static and the listeners have ceased to write; the position in the audit log then.

        One that is just starting writes blindly what its watch has seen last, for as long as it has not read the CA
        yet: it can take the mark away once more.
        """
        running.wait_ready()
        self.cluster.wait_for(lambda: self.is_static() and self.seconds_since_a_listener_wrote() > CALM_SECONDS, 120,
                              "both Secrets to stay static")
        return self.cluster.audit.position()

    def is_static(self) -> bool:
        """Whether both Secrets are marked as not to be written by listeners."""
        return all((self.secret(name)["metadata"].get("annotations") or {}).get(STATIC) == "true"
                   for name in (SECRET, CA_SECRET))

    def writes_once_frozen(self) -> int:
        """How many writes of listeners came through that began after our first write to the same Secret."""
        frozen: dict[str, str] = {}
        late = 0
        for event in self.cluster.audit.select(resource="secrets", namespace=self.namespace, verb=WRITES):
            name = audit.name_of(event)
            if audit.code_of(event) >= 300:
                continue
            if not event.get("userAgent", "").startswith("listener-"):
                frozen.setdefault(name, event["stageTimestamp"])
            elif name in frozen and event["requestReceivedTimestamp"] > frozen[name]:
                late += 1
        assert SECRET in frozen, "never frozen"
        return late

    def seconds_until_frozen(self) -> float:
        """From the creation of the WebhookCertificate until its leaf Secret was frozen for the first time."""
        created = self._when("webhookcertificates", CERTIFICATE, ("create", "patch"))
        frozen = self._when("secrets", SECRET, WRITES)
        return (frozen[0] - created[0]).total_seconds()

    def seconds_from_switch_to_leaf(self) -> float:
        """How long in the last rotation the CA Secret and the leaf Secret did not go together."""
        leaf = self._when("secrets", SECRET, WRITES)[-1]
        return (leaf - max(item for item in self._when("secrets", CA_SECRET, WRITES) if item < leaf)).total_seconds()

    def _when(self, resource: str, name: str, verbs: tuple[str, ...]) -> list[datetime.datetime]:
        """When writes of others than listeners were done."""
        return sorted(
            datetime.datetime.fromisoformat(event["stageTimestamp"]) for event in self.cluster.audit.select(
                resource=resource, namespace=self.namespace, verb=verbs, name=name, subresource="")
            if audit.code_of(event) < 300 and not event.get("userAgent", "").startswith("listener-"))

    # ---- damages ----

    def delete_secrets(self, *names: str) -> None:
        self.cluster.kubectl("delete", "secret", *names, "-n", self.namespace)

    def spoil(self, name: str, key: str) -> None:
        """Put garbage into a Secret, and leave its annotations as they are."""
        garbage = base64.b64encode(b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n").decode()
        self._patch(name, {"data": {key: garbage}})

    def thaw(self) -> None:
        """Take the annotation away by which listeners leave the Secrets alone."""
        for name in (SECRET, CA_SECRET):
            self._patch(name, {"metadata": {"annotations": {STATIC: None}}})

    def versions(self) -> list[str | None]:
        """The resourceVersions of both Secrets; None for one that is not there."""
        found = []
        for name in (SECRET, CA_SECRET):
            with contextlib.suppress(api.ApiError):
                found.append(self.secret(name)["metadata"]["resourceVersion"])
                continue
            found.append(None)
        return found

    def is_whole(self, running: listeners.Listeners) -> bool:
        """Both Secrets are static and good, the certificate is ready, all listeners serve its leaf. Raises if not."""
        for name in (SECRET, CA_SECRET):
            held = self.secret(name)
            assert (held["metadata"].get("annotations") or {}).get(STATIC) == "true", f"{name} is not static"
            try:
                pair = secrets.key_pair(held)
            except ValueError as error:
                raise AssertionError(f"{name} cannot be read: {error}") from error
            assert certificates.matches(pair), f"{name} has the key of another certificate"
        status = self.status()
        states = {item["type"]: (item["status"], item["message"]) for item in status["conditions"]}
        assert states["Ready"][0] == "True", states
        assert states["Issuing"][0] == "False", states
        leaf = self.leaf_fingerprint()
        assert status["fingerprint"] == leaf
        assert self.served_by_all(running) == {leaf}
        return True

    def _patch(self, name: str, patch: JsonObject) -> None:
        self.cluster.request("PATCH", f"/api/v1/namespaces/{self.namespace}/secrets/{name}", patch,
                             content_type="application/merge-patch+json")

    @contextlib.contextmanager
    def copying(self) -> Iterator[None]:
        """A configuration whose caBundle is all of tls.crt in the CA Secret, kept so by the program, as Longhorn's."""
        kind = "/apis/admissionregistration.k8s.io/v1/validatingwebhookconfigurations"
        self.cluster.request("POST", kind, {
            "apiVersion": "admissionregistration.k8s.io/v1", "kind": "ValidatingWebhookConfiguration",
            "metadata": {"name": self.configuration}, "webhooks": [{
                "name": "nothing.steadyhook.io", "sideEffects": "None", "admissionReviewVersions": ["v1"],
                "namespaceSelector": {"matchLabels": {"steadyhook.io/nowhere": self.namespace}},
                "rules": [{"apiGroups": [""], "apiVersions": ["v1"], "operations": ["CREATE"],
                           "resources": ["configmaps"]}],
                "clientConfig": {"service": {"namespace": self.namespace, "name": SERVICES[0]},
                                 "caBundle": self.secret(CA_SECRET)["data"]["tls.crt"]}}]})
        stop = threading.Event()
        copier = threading.Thread(
            target=self._copy, args=(stop, self.secret(CA_SECRET)["data"]["tls.crt"]), daemon=True)
        copier.start()
        try:
            yield
        finally:
            stop.set()
            copier.join()

    def _copy(self, stop: threading.Event, copied: str) -> None:
        path = f"/apis/admissionregistration.k8s.io/v1/validatingwebhookconfigurations/{self.configuration}"
        while not stop.wait(0.5):
            with contextlib.suppress(api.ApiError):
                encoded = self.secret(CA_SECRET)["data"]["tls.crt"]
                if encoded != copied:
                    self.cluster.request("PATCH", path, [
                        {"op": "replace", "path": "/webhooks/0/clientConfig/caBundle", "value": encoded}],
                        content_type="application/json-patch+json")
                    copied = encoded

    def remove(self) -> None:
        self.cluster.kubectl("delete", "validatingwebhookconfiguration", self.configuration, "--ignore-not-found")


class Callers:
    """
    Clients that trust the CA Secret as it was at the moment of the call, and call one listener after the other.

    ``failed`` counts by what was wrong, ``calls`` all.
    """

    def __init__(self, hook: Webhook, running: listeners.Listeners) -> None:
        self.calls = 0
        self.failed: collections.Counter[str] = collections.Counter()
        self._hook = hook
        self._running = running
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> "Callers":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._stop.is_set():
            for address in self._running.pod_addresses:
                if self._stop.is_set():
                    return
                trusted = self._hook.trusted_pem()
                self.calls += 1
                try:
                    listeners.handshake(address, name=self._hook.names[0], trusted_pem=trusted)
                except OSError as error:
                    self.failed[str(error)] += 1
                time.sleep(0.002)


def report(what: str, **figures: object) -> None:
    """Print what was measured, for whoever runs the tests with -rP."""
    print(f"{what}: {json.dumps(figures, default=str)}")
