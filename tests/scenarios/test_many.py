"""One installation of issuers for the webhooks of other programs, in namespaces of their own."""
import signal
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import yaml

from devcluster import api, audit, facade
from scenarios import conftest, crowd, installation

pytestmark = [pytest.mark.cluster, pytest.mark.slow]
LEAF, AUTHORITY, CERTIFICATE = "longhorn-webhook-tls", "longhorn-webhook-ca", "longhorn-webhook"
ISSUER = "steadyhook-issuer"
JsonObject = dict[str, Any]


class Application:
    """A namespace with what the component for Longhorn brings into it."""

    def __init__(self, installed: installation.Installation, name: str) -> None:
        self.cluster = installed.cluster
        self.namespace = f"{installed.namespace}-{name}"
        self.installed = installed
        self.cluster.kubectl("create", "namespace", self.namespace)

    def apply(self, *kinds: str) -> None:
        """Objects of the component; of all kinds unless some are named."""
        text = self.cluster.kubectl("kustomize", str(installation.MANIFESTS / "overlays" / "longhorn"))
        text = text.replace("longhorn-system", self.namespace)
        objects = [item for item in yaml.safe_load_all(text.replace(
                       installation.ISSUERS_NAMESPACE, self.installed.namespace))
                   if item["metadata"].get("namespace") == self.namespace and (not kinds or item["kind"] in kinds)]
        assert objects
        self.cluster.kubectl("apply", "-f", "-", input=yaml.safe_dump_all(objects))

    def conditions(self, name: str = CERTIFICATE) -> dict[str, JsonObject]:
        path = f"/apis/steadyhook.io/v1alpha1/namespaces/{self.namespace}/webhookcertificates/{name}"
        return {item["type"]: item for item in (self.cluster.request("GET", path).get("status") or {}).get(
            "conditions", [])}

    def wait_ready(self) -> None:
        self.cluster.wait_for(lambda: self.conditions().get("Ready", {}).get("status") == "True", 60,
                              f"the certificate of {self.namespace} to be ready")

    def secret_uid(self) -> str | None:
        try:
            path = f"/api/v1/namespaces/{self.namespace}/secrets/{LEAF}"
            return str(self.cluster.request("GET", path)["metadata"]["uid"])
        except api.ApiError as error:
            if error.status != 404:
                raise
            return None

    def delete_secret(self) -> str:
        """Delete the leaf Secret; the uid that it had."""
        uid = self.secret_uid()
        assert uid is not None
        self.cluster.kubectl("delete", "secret", LEAF, "-n", self.namespace)
        return uid

    def wait_issued_anew(self, uid: str) -> None:
        self.cluster.wait_for(lambda: self.secret_uid() not in (None, uid), 60, "another Secret")

    def writes(self) -> list[int]:
        """The codes of all writes of issuers to Secrets."""
        return [audit.code_of(event) for event in self.cluster.audit.select(
            resource="secrets", namespace=self.namespace, verb=installation.WRITE_VERBS, user=ISSUER)]


@pytest.fixture
def issuers(install: conftest.Install) -> installation.Installation:
    installed = install(layout="issuer", nodes=2)
    installed.cluster.wait_for(lambda: len(installed.peers()) == 2 and installed.active(), 60, "an active issuer")
    return installed


@pytest.fixture
def application(issuers: installation.Installation) -> Iterator[Callable[[str], Application]]:
    made: list[Application] = []

    def make(name: str) -> Application:
        made.append(Application(issuers, name))
        return made[-1]

    yield make
    for item in made:
        item.cluster.kubectl("delete", "namespace", item.namespace, "--wait=false")


def test_each_namespace_gets_its_certificate_and_one_without_rights_disturbs_nobody(
    issuers: installation.Installation, application: Callable[[str], Application]
) -> None:
    without_rights = application("no-rights")
    without_rights.apply("WebhookCertificate")
    first, second = application("first"), application("second")
    first.apply()
    second.apply()
    for one in (first, second):
        one.wait_ready()
        assert one.writes() == [201, 201]
    degraded = issuers.cluster.wait_for(
        lambda: without_rights.conditions().get("Degraded"), 60, "the condition of the one without rights") or {}
    assert (degraded["status"], degraded["reason"]) == ("True", "Forbidden")
    assert without_rights.namespace in degraded["message"]
    without_rights.apply()
    without_rights.wait_ready()

    # What is deleted is looked after no more, and stays as it is.
    second.cluster.kubectl("delete", "whcert", CERTIFICATE, "-n", second.namespace)
    gone = second.delete_secret()
    later = application("later")
    later.apply()
    later.wait_ready()
    assert second.secret_uid() is None, f"{gone} was issued anew"


def test_when_the_active_issuer_dies_another_one_has_all_certificates(
    issuers: installation.Installation, application: Callable[[str], Application]
) -> None:
    applications = [application(name) for name in ("one", "two")]
    for one in applications:
        one.apply()
        one.wait_ready()
    dead = issuers.active()
    issuers.cluster.kill(dead, signal.SIGKILL)
    for one in applications:
        uid = one.delete_secret()
        one.wait_issued_anew(uid)
        assert set(one.writes()) == {201}
        assert len(one.writes()) == 3


def test_of_two_certificates_for_one_secret_the_older_one_has_it(
    issuers: installation.Installation, application: Callable[[str], Application], devcluster: facade.DevCluster
) -> None:
    one = application("twice")
    one.apply()
    one.wait_ready()
    path = f"/apis/steadyhook.io/v1alpha1/namespaces/{one.namespace}/webhookcertificates"
    spec = devcluster.request("GET", f"{path}/{CERTIFICATE}")["spec"]
    devcluster.request("POST", path, {
        "apiVersion": "steadyhook.io/v1alpha1", "kind": "WebhookCertificate", "metadata": {"name": "another"},
        "spec": {**spec, "dnsNames": ["another.example.svc"]}})
    ready = devcluster.wait_for(lambda: one.conditions("another").get("Ready"), 60, "the younger one's condition") or {}
    assert (ready["status"], ready["reason"]) == ("False", "InvalidSpec")
    assert CERTIFICATE in ready["message"]
    assert one.writes() == [201, 201]


PERMITTED = FORBIDDEN = 50
RESIDENT_MIB = 256  # half the memory limit of the manifest
REST_SECONDS = 30.0
REQUESTS_AT_REST = 300  # of which most are for those that are forbidden, ever less often


def test_a_hundred_certificates_of_which_half_are_forbidden_cost_little(issuers: installation.Installation) -> None:
    cluster = issuers.cluster
    with crowd.Crowd(issuers, permitted=PERMITTED, forbidden=FORBIDDEN) as many:
        many.wait_issued(240)
        many.wait_quiet(90)
        assert crowd.resident_mib(many.active()) < RESIDENT_MIB

        since = cluster.audit.position()
        time.sleep(REST_SECONDS)  # an interval in which nothing happens is what is looked at
        rest = many.requests(since)
        assert sum(rest.values()) < REQUESTS_AT_REST, rest
        assert not set(many.looked_at(since)) & set(many.permitted)

        one = many.permitted[7]
        before = many.leaf(*one)
        since = cluster.audit.position()
        many.annotate(*one, "steadyhook.io/rotate-leaf", "once")
        cluster.wait_for(lambda: many.leaf(*one) != before, 20, "a new leaf")
        many.wait_quiet(60)
        assert set(many.looked_at(since)) & set(many.permitted) == {one}

        # What is changed is looked at at once, however long it was left alone.
        late = many.forbidden[3]
        since = cluster.audit.position()
        many.annotate(*late, "steadyhook.io/look", "permitted now?")
        cluster.wait_for(lambda: late in many.looked_at(since), 5, "a look at the one that was changed")
