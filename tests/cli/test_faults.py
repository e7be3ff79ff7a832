"""``steadyhook diagnose`` on a real API server: each fault that a webhook's Secret can have, made by hand."""
import base64
import contextlib
import datetime
import json
import threading
from collections.abc import Iterator
from typing import Any

import pytest

from cli import test_commands as commands
from devcluster import facade
from peers import listeners, webhook
from steadyhook.cli.diagnosis import Kind
from steadyhook.cli.output import Exit
from steadyhook.core import policy
from steadyhook.pki import certificates, minting, secrets

pytestmark = pytest.mark.cluster
JsonObject = dict[str, Any]
SECRET = "hook-tls"
SERVICE = "hook"
ADDRESS = "10.244.250.1"
CONFIGURATIONS = "/apis/admissionregistration.k8s.io/v1/validatingwebhookconfigurations"
NOW = datetime.datetime.now(datetime.UTC)


class Hook:
    """A webhook's Secret, its Service with one endpoint, and its configuration."""

    def __init__(self, cluster: facade.DevCluster, namespace: str) -> None:
        self.cluster = cluster
        self.namespace = namespace
        self.name = f"{SERVICE}.{namespace}.svc"
        self.authority = minting.mint_authority(self._wanted(self.name), now=NOW - datetime.timedelta(days=1))
        self.path = f"/api/v1/namespaces/{namespace}/secrets"

    def data(self, *names: str, now: datetime.datetime = NOW, duration: str = "8760h") -> JsonObject:
        """Of a Secret with a new leaf."""
        wanted = self._wanted(*(names or [self.name]), duration=duration)
        # No leaf begins before its CA.
        signer = self.authority if now >= NOW else minting.mint_authority(self._wanted(self.name), now=now)
        pair = minting.mint_leaf(wanted, signer=signer, now=now)
        return secrets.leaf_data(pair, bundle=[signer.certificate])

    def create(self, data: JsonObject, **metadata: Any) -> None:
        self.cluster.request("POST", self.path, {
            "metadata": {"name": SECRET, **metadata}, "type": "kubernetes.io/tls", "data": data})

    def write(self, data: JsonObject) -> None:
        self.cluster.request("PATCH", f"{self.path}/{SECRET}", {"data": data},
                             content_type="application/merge-patch+json")

    def serve(self, *, ready: bool = True) -> None:
        """The Service, with an endpoint."""
        self.cluster.request("POST", f"/api/v1/namespaces/{self.namespace}/services", {
            "metadata": {"name": SERVICE}, "spec": {"ports": [{"port": 443, "targetPort": listeners.PORT}]}})
        part = listeners.endpoint_slice(f"{SERVICE}-1", SERVICE, [ADDRESS])
        part["endpoints"][0]["conditions"]["ready"] = ready
        self.cluster.request("POST", f"/apis/discovery.k8s.io/v1/namespaces/{self.namespace}/endpointslices", part)

    def configure(self, trusted: certificates.KeyPair | None = None) -> None:
        """The configuration, which calls it and trusts its CA, or another one."""
        bundle = secrets.write_ca_bundle([(trusted or self.authority).certificate])
        self.cluster.request("POST", CONFIGURATIONS, {
            "metadata": {"name": self.namespace}, "webhooks": [{
                "name": "nothing.steadyhook.io", "sideEffects": "None", "admissionReviewVersions": ["v1"],
                "rules": [{"apiGroups": ["none.steadyhook.io"], "apiVersions": ["v1"], "operations": ["CREATE"],
                           "resources": ["nothings"]}],
                "clientConfig": {"service": {"namespace": self.namespace, "name": SERVICE}, "caBundle": bundle}}]})

    def diagnose(self, seconds: float = 1.0) -> tuple[int, list[JsonObject]]:
        """The exit code and the findings."""
        code, output, errors = commands.run(self.cluster, "diagnose", SECRET, "-n", self.namespace, "-o", "json",
                                            "--seconds", str(seconds))
        assert not errors
        (found,) = json.loads(output)
        return code, found["findings"]

    @contextlib.contextmanager
    def flipping(self, every: float) -> Iterator[None]:
        """Two writers that put back what each has in its memory, in turns."""
        contents = [self.data(), self.data()]
        ended = threading.Event()

        def flip() -> None:
            turn = 0
            while not ended.wait(every):
                turn += 1
                self.write(contents[turn % 2])

        thread = threading.Thread(target=flip, daemon=True)
        thread.start()
        try:
            yield
        finally:
            ended.set()
            thread.join()

    def _wanted(self, *names: str, duration: str = "8760h") -> policy.Policy:
        return policy.parse({"secretName": SECRET, "dnsNames": list(names), "duration": duration, "renewBefore": "1h"},
                            namespace=self.namespace, name=SERVICE)


@pytest.fixture
def hook(devcluster: facade.DevCluster, namespace: str) -> Iterator[Hook]:
    yield Hook(devcluster, namespace)
    devcluster.kubectl("delete", "validatingwebhookconfiguration", namespace, "--ignore-not-found")


def kinds(findings: list[JsonObject]) -> list[str]:
    return [item["kind"] for item in findings]


def test_a_good_secret_has_no_fault(hook: Hook) -> None:
    hook.create(hook.data())
    hook.serve()
    hook.configure()
    assert hook.diagnose() == (Exit.FINE, [])


def test_two_certificates_that_take_turns_are_the_flip_of_a_renewal(hook: Hook) -> None:
    hook.create(hook.data())
    hook.serve()
    hook.configure()
    with hook.flipping(every=2.0):
        code, (finding,) = hook.diagnose(seconds=10.0)
    assert (code, finding["kind"]) == (Exit.WRONG, Kind.RENEWAL_FLIP)
    assert "2 different certificates" in finding["message"] or "3 different certificates" in finding["message"]


@pytest.mark.parametrize(("age", "kind"), [(400, Kind.EXPIRED), (360, Kind.EXPIRES_SOON)])
def test_expiry_is_named(hook: Hook, age: int, kind: Kind) -> None:
    hook.create(hook.data(now=NOW - datetime.timedelta(days=age)))
    hook.serve()
    hook.configure()
    code, findings = hook.diagnose()
    assert code == Exit.WRONG
    assert kind in kinds(findings)


def test_a_key_of_another_certificate_is_named(hook: Hook) -> None:
    hook.create({**hook.data(), "tls.key": hook.data()["tls.key"]})
    hook.serve()
    hook.configure()
    code, findings = hook.diagnose()
    assert code == Exit.WRONG
    assert Kind.KEY_MISMATCH in kinds(findings)


@pytest.mark.parametrize("names", [("hook",), ("hook.elsewhere.svc",)])
def test_a_leaf_for_other_names_of_the_service_is_named(hook: Hook, names: tuple[str, ...]) -> None:
    hook.create(hook.data(*names))
    hook.serve()
    hook.configure()
    code, (finding,) = hook.diagnose()
    assert (code, finding["kind"]) == (Exit.WRONG, Kind.NAMES_MISSING)
    assert f"it is called as {hook.name}" in finding["message"]


def test_a_leaf_for_other_names_is_named_if_the_services_pods_mount_it(hook: Hook) -> None:
    """Nothing in the names tells that the Secret is the Service's, but its pods do."""
    hook.create(hook.data("wrong.example.svc"))
    node = f"{hook.namespace}-1"
    hook.cluster.add_nodes([node])
    try:
        hook.cluster.request("POST", f"/api/v1/namespaces/{hook.namespace}/pods", {
            "metadata": {"name": "server", "labels": {"app": SERVICE}}, "spec": {
                "nodeName": node,
                "containers": [{"name": "server", "image": "steadyhook", "command": ["sleep", "600"]}],
                "volumes": [{"name": "tls", "secret": {"secretName": SECRET}}]}})
        hook.cluster.request("POST", f"/api/v1/namespaces/{hook.namespace}/services", {
            "metadata": {"name": SERVICE}, "spec": {"selector": {"app": SERVICE}, "ports": [{"port": 443}]}})
        slices = (f"/apis/discovery.k8s.io/v1/namespaces/{hook.namespace}/endpointslices"
                  f"?labelSelector=kubernetes.io/service-name%3D{SERVICE}")
        hook.cluster.wait_for(lambda: [part for part in hook.cluster.request("GET", slices)["items"]
                                       if part["endpoints"]], 60, "the endpoint")
        hook.configure()
        code, findings = hook.diagnose()
        assert code == Exit.WRONG
        assert Kind.NAMES_MISSING in kinds(findings)
    finally:
        hook.cluster.kubectl("delete", "pod", "server", "-n", hook.namespace, "--grace-period=0", "--force")
        hook.cluster.wait_for(lambda: not hook.cluster.pods(hook.namespace), 60, "the pod to be gone")
        hook.cluster.remove_node(node)


def test_a_replaced_bundle_is_named(hook: Hook) -> None:
    hook.create(hook.data())
    hook.serve()
    hook.configure(minting.mint_authority(hook._wanted(hook.name), now=NOW))
    code, (finding,) = hook.diagnose()
    assert (code, finding["kind"]) == (Exit.WRONG, Kind.BUNDLE_REPLACED)


def test_pods_that_are_not_ready_are_named(hook: Hook) -> None:
    hook.create(hook.data())
    hook.serve(ready=False)
    hook.configure()
    code, (finding,) = hook.diagnose()
    assert (code, finding["kind"]) == (Exit.WRONG, Kind.NOT_READY)


def test_a_secret_that_nobody_serves_is_named(hook: Hook) -> None:
    hook.create(hook.data())
    hook.configure()
    code, (finding,) = hook.diagnose()
    assert (code, finding["kind"]) == (Exit.WRONG, Kind.NOBODY_SERVES)


def test_a_secret_that_nobody_calls_is_a_remark(hook: Hook) -> None:
    hook.create(hook.data())
    code, (finding,) = hook.diagnose()
    assert (code, finding["kind"]) == (Exit.FINE, Kind.NOBODY_CALLS)


@pytest.mark.parametrize("data", [b"", b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n", b"\xff\x00"])
def test_garbage_is_named(hook: Hook, data: bytes) -> None:
    encoded = base64.b64encode(data).decode()
    hook.create({"tls.crt": encoded, "tls.key": encoded})
    code, findings = hook.diagnose()
    assert code == Exit.WRONG
    assert Kind.UNREADABLE in kinds(findings)


def test_the_storm_of_listeners_that_start_one_at_a_time_is_none(
    devcluster: facade.DevCluster, namespace: str
) -> None:
    """As longhorn-manager does since it takes a Lease: each writes once, and nobody conflicts with it for long."""
    hook = webhook.Webhook(devcluster, namespace)
    try:
        with hook.start(10, lease="starting") as running:
            running.wait_ready()
            found = hook.writes(by_listeners=True)
            webhook.report("10 listeners under a Lease", done=found.done, conflicts=found.conflicts,
                           last_ready=round(max(running.seconds_until_ready.values()), 1))
            code, output, _ = commands.run(devcluster, "diagnose", webhook.SECRET, "-n", namespace, "-o", "json",
                                           "--seconds", "2")
            assert Kind.STORM not in commands.found(output), code
            leaf = hook.leaf_fingerprint()
            devcluster.wait_for(lambda: hook.served_by_all(running) == {leaf}, 60, "all to serve one leaf")
    finally:
        hook.remove()
