"""A layout and issuers for an application in one cluster, from the manifests as they are, applied in either order."""
import contextlib
from collections.abc import Iterator
from typing import Any

import pytest

from devcluster import api, facade
from scenarios import installation

pytestmark = [pytest.mark.cluster, pytest.mark.slow]

JsonObject = dict[str, Any]

OVERLAYS = installation.MANIFESTS / "overlays"
HOOK = ("steadyhook-system", "steadyhook-webhook", "steadyhook-webhook-tls")
LONGHORN = ("longhorn-system", "longhorn-webhook", "longhorn-webhook-tls")
SECONDS = 120


class Cluster:
    """Overlays as a person applies and deletes them, and what they lead to."""

    def __init__(self, cluster: facade.DevCluster) -> None:
        self.cluster = cluster

    def apply(self, overlay: str) -> None:
        self.cluster.kubectl("apply", "-k", str(OVERLAYS / overlay))

    def delete(self, overlay: str) -> None:
        self.cluster.kubectl("delete", "-k", str(OVERLAYS / overlay), "--ignore-not-found", timeout=SECONDS)

    def wait_ready(self, certificate: tuple[str, str, str]) -> None:
        namespace, name, _ = certificate
        path = f"/apis/steadyhook.io/v1alpha1/namespaces/{namespace}/webhookcertificates/{name}"

        def ready() -> bool:
            status = self.cluster.request("GET", path).get("status") or {}
            states = {item["type"]: item["status"] for item in status.get("conditions", [])}
            assert (states["Ready"], states["Degraded"]) == ("True", "False"), status
            return True

        self.cluster.wait_for(ready, SECONDS, f"WebhookCertificate {namespace}/{name} to be ready")

    def secret_uid(self, certificate: tuple[str, str, str]) -> str:
        namespace, _, name = certificate
        return str(self.cluster.request("GET", f"/api/v1/namespaces/{namespace}/secrets/{name}")["metadata"]["uid"])

    def wait_looked_after(self, certificate: tuple[str, str, str]) -> None:
        """That it says Ready may be old: what is lost has to be issued anew."""
        namespace, _, name = certificate
        former = self.secret_uid(certificate)
        self.cluster.kubectl("delete", "secret", name, "-n", namespace)
        self.cluster.wait_for(lambda: self.secret_uid(certificate) != former, SECONDS, f"another Secret {name}")

    def policies(self) -> set[str]:
        found = self.cluster.request("GET", "/apis/admissionregistration.k8s.io/v1/validatingadmissionpolicies")
        return {item["metadata"]["name"] for item in found["items"]}


@pytest.fixture
def bare(devcluster: facade.DevCluster, definitions: None) -> Iterator[Cluster]:
    """A node, and a namespace longhorn-system without Longhorn."""
    devcluster.add_nodes(["side-by-side"])
    devcluster.kubectl("create", "namespace", "longhorn-system")
    cluster = Cluster(devcluster)
    yield cluster
    for overlay in ("longhorn", "manager", "split"):
        cluster.delete(overlay)
    devcluster.kubectl("delete", "namespace", "longhorn-system", "--ignore-not-found", timeout=SECONDS)
    devcluster.wait_for(lambda: not devcluster.pods("steadyhook-system") and not devcluster.pods(
        "steadyhook-issuers"), SECONDS, "the pods to be gone")
    devcluster.remove_node("side-by-side")


@pytest.mark.parametrize("layout", ["manager", "split"])
@pytest.mark.parametrize("layout_first", [True, False])
def test_either_may_come_and_go_without_the_other_noticing(bare: Cluster, layout: str, layout_first: bool) -> None:
    overlays = {layout: HOOK, "longhorn": LONGHORN}
    first, second = overlays if layout_first else reversed(overlays)
    bare.apply(first)
    bare.wait_ready(overlays[first])
    before = bare.policies()
    former = bare.secret_uid(overlays[first])
    bare.apply(second)
    for certificate in overlays.values():
        bare.wait_ready(certificate)
    for certificate in overlays.values():
        bare.wait_looked_after(certificate)
        bare.wait_ready(certificate)
    assert bare.policies() > before

    former = bare.secret_uid(overlays[first])
    bare.delete(second)
    assert bare.policies() == before
    assert bare.secret_uid(overlays[first]) == former
    bare.wait_looked_after(overlays[first])
    bare.wait_ready(overlays[first])


def test_the_overlay_for_longhorn_is_completed_by_a_second_apply_once_the_namespace_is_there(bare: Cluster) -> None:
    bare.cluster.kubectl("delete", "namespace", "longhorn-system", timeout=SECONDS)
    with pytest.raises(facade.KubectlError) as caught:
        bare.apply("longhorn")
    assert caught.value.stderr.count('namespaces "longhorn-system" not found') == 3
    bare.cluster.wait_for(lambda: sum(pod.ready for pod in bare.cluster.pods("steadyhook-issuers")) == 2, SECONDS,
                          "the issuers to be ready all the same")
    bare.cluster.kubectl("create", "namespace", "longhorn-system")
    bare.apply("longhorn")
    bare.wait_ready(LONGHORN)
    # What went by halves goes as a whole, and the namespace, which is not ours, stays.
    bare.delete("longhorn")
    assert bare.cluster.request("GET", "/api/v1/namespaces/longhorn-system")["status"]["phase"] == "Active"
    with contextlib.suppress(api.ApiError):
        bare.cluster.request("GET", "/api/v1/namespaces/steadyhook-issuers")
        pytest.fail("the namespace of the issuers is still there")
