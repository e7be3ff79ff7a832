"""One installation of issuers for the webhooks of other programs, in namespaces of their own."""
import signal
from collections.abc import Callable, Iterator

import pytest

from devcluster import facade
from scenarios import applications, conftest, installation

pytestmark = [pytest.mark.cluster, pytest.mark.slow]


@pytest.fixture
def issuers(install: conftest.Install) -> installation.Installation:
    installed = install(layout="issuer", nodes=2)
    installed.cluster.wait_for(lambda: len(installed.peers()) == 2 and installed.active(), 60, "an active issuer")
    return installed


@pytest.fixture
def application(issuers: installation.Installation) -> Iterator[Callable[[str], applications.Application]]:
    made: list[applications.Application] = []

    def make(name: str) -> applications.Application:
        made.append(applications.Application(issuers, name))
        return made[-1]

    yield make
    for item in made:
        item.cluster.kubectl("delete", "namespace", item.namespace, "--wait=false")


def test_each_namespace_gets_its_certificate_and_one_without_rights_disturbs_nobody(
    issuers: installation.Installation, application: Callable[[str], applications.Application]
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
    second.cluster.kubectl("delete", "whcert", applications.CERTIFICATE, "-n", second.namespace)
    gone = second.delete_secret()
    later = application("later")
    later.apply()
    later.wait_ready()
    assert second.secret_uid() is None, f"{gone} was issued anew"


def test_when_the_active_issuer_dies_another_one_has_all_certificates(
    issuers: installation.Installation, application: Callable[[str], applications.Application]
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
    issuers: installation.Installation, application: Callable[[str], applications.Application],
    devcluster: facade.DevCluster,
) -> None:
    one = application("twice")
    one.apply()
    one.wait_ready()
    path = f"/apis/steadyhook.io/v1alpha1/namespaces/{one.namespace}/webhookcertificates"
    spec = devcluster.request("GET", f"{path}/{applications.CERTIFICATE}")["spec"]
    devcluster.request("POST", path, {
        "apiVersion": "steadyhook.io/v1alpha1", "kind": "WebhookCertificate", "metadata": {"name": "another"},
        "spec": {**spec, "dnsNames": ["another.example.svc"]}})
    ready = devcluster.wait_for(lambda: one.conditions("another").get("Ready"), 60, "the younger one's condition") or {}
    assert (ready["status"], ready["reason"]) == ("False", "InvalidSpec")
    assert applications.CERTIFICATE in ready["message"]
    assert one.writes() == [201, 201]
