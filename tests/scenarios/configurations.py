"""Further webhook configurations beside those of the example, and people who quarrel with the issuer about them."""
import contextlib
import threading
from collections.abc import Iterator
from typing import Any

from devcluster import audit
from scenarios import installation
from steadyhook.pki import secrets

JsonObject = dict[str, Any]

GROUP = "/apis/admissionregistration.k8s.io/v1"
VALIDATING = "validatingwebhookconfigurations"
PAUSE_SECONDS = 0.02


def allow(installed: installation.Installation, *names: str) -> None:
    """Let the issuer patch further configurations, as a person does who has webhooks of their own."""
    path = f"/apis/rbac.authorization.k8s.io/v1/clusterroles/steadyhook-issuing-{installed.namespace}"
    role = installed.cluster.request("GET", path)
    for rule in role["rules"]:
        if "patch" in rule["verbs"]:
            rule["resourceNames"] += [_name(installed, name) for name in names]
    installed.cluster.request("PUT", path, role)


@contextlib.contextmanager
def added(installed: installation.Installation, name: str, *, bundle: str | None = None) -> Iterator[None]:
    """A validating configuration that asks for the bundle, and whose webhook no request ever comes to."""
    client: JsonObject = {
        "service": {"name": "steadyhook-webhook", "namespace": installed.namespace, "path": "/none"},
        "caBundle": bundle}
    installed.cluster.request("POST", f"{GROUP}/{VALIDATING}", {
        "metadata": {"name": _name(installed, name), "annotations": {
            "steadyhook.io/inject-ca-from": f"{installed.namespace}/{installation.CERTIFICATE}"}},
        "webhooks": [{
            "name": "none.example.steadyhook.io", "admissionReviewVersions": ["v1"], "sideEffects": "None",
            "clientConfig": client,
            "rules": [{"apiGroups": ["none.example.steadyhook.io"], "apiVersions": ["v1"], "operations": ["CREATE"],
                       "resources": ["nothings"]}]}]})
    try:
        yield
    finally:
        installed.cluster.request("DELETE", _path(installed, VALIDATING, name))


def overwrite(installed: installation.Installation, kind: str, name: str, bundle: str) -> None:
    """Put another caBundle into the first webhook."""
    operation = {"op": "add", "path": "/webhooks/0/clientConfig/caBundle", "value": bundle}
    full = f"steadyhook-example-{installed.namespace}" if name == "example" else _name(installed, name)
    installed.cluster.request("PATCH", f"{GROUP}/{kind}/{full}", [operation],
                              content_type="application/json-patch+json")


@contextlib.contextmanager
def overwriting(installed: installation.Installation, name: str, bundle: str) -> Iterator[None]:
    """Somebody who puts their caBundle back again and again."""
    ended = threading.Event()

    def fight() -> None:
        while not ended.wait(PAUSE_SECONDS):
            if _entry(installed, name)["clientConfig"].get("caBundle") != bundle:
                overwrite(installed, VALIDATING, name, bundle)

    thread = threading.Thread(target=fight, name="rival", daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join(30)


def is_injected(installed: installation.Installation, name: str) -> bool:
    """Whether the issuer says so: from then on it knows a stranger's bundle from one that it takes over."""
    status = installed.certificate().get("status") or {}
    return any(item["name"] == _name(installed, name) and item["state"] == "Injected"
               for item in status.get("configurations", []))


def trusted(installed: installation.Installation, name: str) -> set[str]:
    """The fingerprints in the caBundle."""
    found, _ = secrets.read_ca_bundle(_entry(installed, name)["clientConfig"].get("caBundle"))
    return {item.fingerprint for item in found}


def writes(installed: installation.Installation, name: str, *, since: int) -> list[tuple[str, int]]:
    """(verb, HTTP status) of what the issuer has written, or tried to write, to configurations of this name."""
    full = f"steadyhook-example-{installed.namespace}" if name == "example" else _name(installed, name)
    return [(event["verb"], audit.code_of(event))
            for kind in (VALIDATING, "mutatingwebhookconfigurations")
            for event in installed.writes(kind, full, since=since)]


def _entry(installed: installation.Installation, name: str) -> JsonObject:
    entry: JsonObject = installed.cluster.request("GET", _path(installed, VALIDATING, name))["webhooks"][0]
    return entry


def _path(installed: installation.Installation, kind: str, name: str) -> str:
    return f"{GROUP}/{kind}/{_name(installed, name)}"


def _name(installed: installation.Installation, name: str) -> str:
    return f"{name}-{installed.namespace}"
