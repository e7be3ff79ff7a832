"""
Webhooks that work already, of cert-manager and of kopf's own self-signing, come to steadyhook and go back.

These are the steps of docs/taking-over.md, under a load of admission requests of which none may fail.
"""
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import yaml

from devcluster import api, facade
from peers import cert_manager
from scenarios import installation
from scenarios.conftest import Install
from steadyhook.pki import secrets

pytestmark = [pytest.mark.cluster, pytest.mark.slow]
JsonObject = dict[str, Any]

FORMERLY = "formerly"
SERVICE = "steadyhook-webhook"
ISSUED = "issued-by-cert-manager"
CONFIGURATIONS = ("ValidatingWebhookConfiguration", "MutatingWebhookConfiguration")
MORE = 40  # requests, at 20 a second
SECONDS = 90


class Takeover:
    """An installation whose parts are applied one after the other, and the operator that was there before."""

    def __init__(self, install: Install, *, later: Callable[[JsonObject], bool]) -> None:
        self.later: list[JsonObject] = []

        def hold_back(item: JsonObject) -> bool:
            if later(item):
                self.later.append(item)
                return True
            return False

        self.installed: installation.Installation = install(without=hold_back)
        self.installed.objects += self.later  # for the end of the test
        self.cluster: facade.DevCluster = self.installed.cluster
        self.namespace = self.installed.namespace
        self.installed.labels = {"steadyhook.io/example": self.namespace}  # what the former operator asks for

    def start_ours(self) -> None:
        """Issue the certificate; our pods are ready, and no Service needs to know it yet."""
        self.installed.apply([item for item in self.later if item["kind"] in ("WebhookCertificate", "DaemonSet")])
        self.installed.wait_serving()
        self.wait(lambda: all(pod.ready for pod in self.installed.pods("manager")), "our pods")

    # ---- the operator that was there before ----

    def start_formerly(self, *, replicas: int, **environment: str) -> None:
        """Its pods, ready."""
        subject = {"kind": "ServiceAccount", "name": "default", "namespace": self.namespace}
        role = {"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRoleBinding",
                "metadata": {"name": f"{FORMERLY}-{self.namespace}"}, "subjects": [subject],
                "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "cluster-admin"}}
        python = f"{installation.MANIFESTS.parent / 'operator'}:{installation.MANIFESTS.parent / 'tests'}"
        container = {
            "name": FORMERLY, "image": "steadyhook",
            "command": ["kopf", "run", "--standalone", f"--namespace={self.namespace}", "-m", "scenarios.formerly"],
            "env": [{"name": "POD_NAMESPACE", "value": self.namespace}, {"name": "PYTHONPATH", "value": python},
                    *({"name": key, "value": value} for key, value in environment.items())],
            "ports": [{"name": "webhook", "containerPort": 9443}],
            "readinessProbe": {"tcpSocket": {"port": 9443}, "periodSeconds": 1}}
        labels = {"app": FORMERLY}
        deployment = {
            "apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": FORMERLY, "namespace": self.namespace},
            "spec": {"replicas": replicas, "selector": {"matchLabels": labels}, "template": {
                "metadata": {"labels": labels},
                "spec": {"nodeSelector": {"steadyhook.io/pool": self.namespace}, "containers": [container]}}}}
        self.installed.apply([role, deployment])
        if role not in self.installed.objects:
            self.installed.objects.append(role)
        self.wait(lambda: sum(pod.ready for pod in self.formerly()) == replicas, "the former operator's pods")

    def stop_formerly(self) -> None:
        self.cluster.kubectl("delete", "deployment", FORMERLY, "-n", self.namespace)
        self.wait(lambda: not self.formerly(), "the former operator's pods to be gone")

    def stop_ours(self) -> None:
        self.cluster.kubectl("delete", "daemonset", "steadyhook-manager", "-n", self.namespace)
        self.wait(lambda: not self.installed.pods("manager"), "our pods to be gone")

    def formerly(self) -> list[facade.PodProcess]:
        return [pod for pod in self.cluster.pods(self.namespace) if pod.labels.get("app") == FORMERLY]

    # ---- configurations ----

    def configuration(self, name: str) -> JsonObject:
        return self.cluster.request(
            "GET", f"/apis/admissionregistration.k8s.io/v1/validatingwebhookconfigurations/{name}")

    def trusted(self) -> set[str]:
        """The fingerprints in the caBundle of ours."""
        bundle = self.configuration(self.name)["webhooks"][0]["clientConfig"].get("caBundle")
        return {item.fingerprint for item in secrets.read_ca_bundle(bundle)[0]}

    @property
    def name(self) -> str:
        return f"steadyhook-example-{self.namespace}"

    def annotate(self, *arguments: str) -> None:
        self.cluster.kubectl("annotate", "validatingwebhookconfiguration", self.name, *arguments)

    def patch(self, operations: list[JsonObject]) -> None:
        self.cluster.request("PATCH", "/apis/admissionregistration.k8s.io/v1/validatingwebhookconfigurations/"
                             f"{self.name}", operations, content_type="application/json-patch+json")

    # ---- waiting ----

    def wait(self, condition: Callable[[], object], what: str) -> Any:
        return self.cluster.wait_for(condition, SECONDS, what)

    def wait_answered_by(self, said: str) -> None:
        """Until a request that is refused is refused by whom it should be."""
        def refused() -> bool:
            with pytest.raises(api.ApiError) as caught:
                self.installed.admit("0")
            return said in str(caught.value)

        self.wait(refused, f"an answer with {said!r}")

    def wait_endpoints(self, pods: Callable[[], list[facade.PodProcess]]) -> None:
        """Until the Service's endpoints are these pods and no others."""
        def right() -> bool:
            slices = self.installed.get("discovery.k8s.io/v1 endpointslices?labelSelector="
                                        f"kubernetes.io/service-name%3D{SERVICE}")["items"]
            found = {item["targetRef"]["name"] for part in slices for item in part["endpoints"] or []
                     if item["conditions"].get("ready")}
            return found == {pod.name for pod in pods()}

        self.wait(right, f"the endpoints of {SERVICE}")


@pytest.fixture
def certificates(devcluster: facade.DevCluster) -> Iterator[None]:
    """cert-manager."""
    with cert_manager.running(devcluster):
        yield


def test_from_cert_manager_and_back(certificates: None, install: Install) -> None:
    takeover = Takeover(install, later=lambda item: item["kind"] in (
        "Service", "DaemonSet", "WebhookCertificate", *CONFIGURATIONS))
    ours = takeover.installed
    service = next(item for item in takeover.later if item["kind"] == "Service")
    formerly = {**service, "spec": {**service["spec"], "selector": {"app": FORMERLY}}}
    configuration = next(item for item in takeover.later if item["kind"] == "ValidatingWebhookConfiguration")
    asking = configuration["metadata"].pop("annotations")
    theirs = f"{cert_manager.ANNOTATION}={takeover.namespace}/{ISSUED}"
    key, _, value = theirs.partition("=")

    ours.apply([formerly, *cert_manager.certificate(
        takeover.namespace, secret=ISSUED, name=f"{SERVICE}.{takeover.namespace}.svc")])
    takeover.wait(lambda: (ours.secret(ISSUED) or {})["data"]["tls.crt"], "cert-manager's certificate")
    takeover.start_formerly(replicas=2, FORMERLY_SECRET=ISSUED)
    ours.apply([{**configuration, "metadata": {**configuration["metadata"], "annotations": {key: value}}}])
    (root,) = takeover.wait(takeover.trusted, "cert-manager's injection")
    takeover.wait_answered_by("refused by the former operator")

    with ours.load() as load:
        load.wait_for(MORE)
        takeover.start_ours()
        takeover.annotate(f"{cert_manager.ANNOTATION}-", *(f"{name}={text}" for name, text in asking.items()))
        takeover.wait(lambda: len(takeover.trusted()) == 2 and root in takeover.trusted(), "both CAs")
        ours.apply([service])
        takeover.wait_endpoints(lambda: ours.pods("manager"))
        ours.cluster.kubectl("annotate", "whcert", installation.CERTIFICATE, "-n", takeover.namespace,
                             "steadyhook.io/rotate-ca=taken-over")
        takeover.wait(lambda: root not in takeover.trusted(), "the former CA to leave")
        takeover.stop_formerly()
        load.wait_for(MORE)
        takeover.wait_answered_by("expected a positive whole number")
        assert load.failures == {}

        takeover.start_formerly(replicas=2, FORMERLY_SECRET=ISSUED)
        takeover.annotate(*(f"{name}-" for name in asking))
        bundle = takeover.configuration(takeover.name)["webhooks"][0]["clientConfig"]["caBundle"]
        held = ours.secret(ISSUED)
        assert held is not None
        both = [*secrets.read_ca_bundle(bundle)[0], *secrets.read_ca_bundle(held["data"]["ca.crt"])[0]]
        takeover.patch([{"op": "replace", "path": "/webhooks/0/clientConfig/caBundle",
                         "value": secrets.write_ca_bundle(both)}])
        ours.apply([formerly])
        takeover.wait_endpoints(takeover.formerly)
        takeover.annotate(theirs)
        takeover.wait(lambda: takeover.trusted() == {root}, "cert-manager's injection")
        takeover.stop_ours()
        load.wait_for(MORE)
        takeover.wait_answered_by("refused by the former operator")
    assert load.failures == {}


def test_from_self_signing_and_back(install: Install) -> None:
    takeover = Takeover(install, later=lambda item: item["kind"] in ("DaemonSet", "WebhookCertificate",
                                                                     *CONFIGURATIONS))
    ours = takeover.installed
    managed = f"{FORMERLY}.{takeover.namespace}"
    environment = {"FORMERLY_SERVICE": FORMERLY, "FORMERLY_MANAGED": managed}
    configuration = next(item for item in takeover.later if item["kind"] == "ValidatingWebhookConfiguration")
    # kopf writes its configuration before the pod can be ready, and every request fails until then.
    ours.apply([{"apiVersion": "v1", "kind": "Service", "metadata": {"name": FORMERLY, "namespace": takeover.namespace},
                 "spec": {"selector": {"app": FORMERLY}, "publishNotReadyAddresses": True,
                          "ports": [{"port": 443, "targetPort": "webhook"}]}}])
    try:
        takeover.start_formerly(replicas=1, **environment)
        takeover.wait(lambda: takeover.configuration(managed).get("webhooks"), "kopf's configuration")
        takeover.wait_answered_by("refused by the former operator")
        with ours.load() as load:
            load.wait_for(MORE)
            takeover.start_ours()
            ours.wait_ready()
            ours.apply([yaml.safe_load(yaml.safe_dump(configuration).replace("failurePolicy: Fail",
                                                                             "failurePolicy: Ignore"))])
            takeover.wait(takeover.trusted, "our bundle")
            takeover.patch([{"op": "replace", "path": "/webhooks/0/failurePolicy", "value": "Fail"}])
            load.wait_for(MORE)
            ours.cluster.kubectl("delete", "validatingwebhookconfiguration", managed)
            load.wait_for(MORE)
            takeover.stop_formerly()
            takeover.wait_answered_by("expected a positive whole number")
            assert load.failures == {}

            takeover.start_formerly(replicas=1, **environment)
            takeover.wait(lambda: takeover.configuration(managed).get("webhooks"), "kopf's configuration")
            load.wait_for(MORE)
            ours.cluster.kubectl("delete", "validatingwebhookconfiguration", takeover.name)
            load.wait_for(MORE)
            takeover.stop_ours()
            takeover.wait_answered_by("refused by the former operator")
        assert load.failures == {}
    finally:
        ours.cluster.kubectl("delete", "validatingwebhookconfiguration", managed, "--ignore-not-found")
