"""Bad configuration: a message that names what is wrong, what was found and what to do; nothing is issued by guess."""
import contextlib
import pathlib
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from devcluster import api, facade
from scenarios import damages, installation
from scenarios.conftest import Install

pytestmark = pytest.mark.cluster

JsonObject = dict[str, Any]

SECONDS = 60.0
SOURCES = pathlib.Path(__file__).parents[2] / "operator"
# So that an instance without a seat looks again soon.
IMPATIENT = {"STEADYHOOK_PEERING_LIFETIME": "10"}


def is_named(kind: str, name: str) -> Callable[[JsonObject], bool]:
    return lambda item: item["kind"] == kind and item["metadata"]["name"] == name


def install_without(install: Install, kind: str, name: str) -> tuple[installation.Installation, list[JsonObject]]:
    """Two nodes, and what was left out, to be applied later."""
    left_out: list[JsonObject] = []

    def without(item: JsonObject) -> bool:
        if is_named(kind, name)(item):
            left_out.append(item)
            return True
        return False

    installed = install(nodes=2, env=IMPATIENT, without=without)
    assert len(left_out) == 1
    return installed, left_out


def messages(installed: installation.Installation) -> list[str]:
    """What every instance says of itself; all of them have to say something."""
    found = [item["message"] for item in installed.instances()]
    assert len(found) == len(installed.node_names), found
    return found


def wait_told(installed: installation.Installation, *texts: str) -> None:
    """Until every ManagerNode and every log holds these texts."""
    def told() -> bool:
        for said in (*messages(installed), *(pod.log() for pod in installed.pods())):
            assert all(text in said for text in texts), said[-2000:]
        return True

    installed.cluster.wait_for(told, SECONDS, f"every instance to say {texts}")


def wait_logged(installed: installation.Installation, *texts: str, since: int = 0) -> None:
    """Until there is a line in the log of some instance that holds all these texts."""
    def logged() -> bool:
        return any(all(text in line for text in texts) for line in installed.logs()[since:].splitlines())

    installed.cluster.wait_for(logged, SECONDS, f"a line in the logs with {texts}")


def assert_nothing_is_issued(installed: installation.Installation) -> None:
    assert installed.writes("secrets") == []
    assert installed.secret() is None
    assert [pod.restarts for pod in installed.pods()] == [0] * len(installed.node_names)


# ---- objects that are missing ----

def test_without_the_peering_nothing_is_issued_and_every_instance_says_what_to_apply(install: Install) -> None:
    installed, peering = install_without(install, "KopfPeering", "steadyhook")
    wait_told(installed, f"KopfPeering {installed.namespace}/steadyhook does not exist", "apply manifests/crds and a")
    assert_nothing_is_issued(installed)
    installed.apply(peering)
    installed.wait_serving()
    assert installed.secret_writes() == [("create", 201)]


def test_without_the_rights_of_the_issuing_half_every_instance_says_which_one_is_missing(install: Install) -> None:
    installed, binding = install_without(install, "RoleBinding", "steadyhook-manager-issuing")
    wait_told(installed, "a permission is missing", "kopfpeerings", "apply the manifests")
    assert_nothing_is_issued(installed)
    installed.apply(binding)
    installed.wait_serving()
    assert installed.secret_writes() == [("create", 201)]


def test_without_the_rights_of_the_serving_half_the_log_names_the_secret_and_the_remedy(install: Install) -> None:
    installed, binding = install_without(install, "RoleBinding", "steadyhook-manager-serving")
    # Both halves of the manager are one account, and the issuing half may read the Secret: what is missing is the
    # right to report.
    wait_logged(installed, f"ManagerNode {installed.node_names[0]} could not be written", "managernodes", "forbidden")
    assert [pod.restarts for pod in installed.pods()] == [0, 0]
    installed.apply(binding)
    installed.wait_serving()


def test_without_a_webhook_certificate_the_active_instance_waits_for_it_and_says_so(install: Install) -> None:
    installed, certificate = install_without(install, "WebhookCertificate", installation.CERTIFICATE)
    wait_logged(installed, f"WebhookCertificate {installed.namespace}/{installation.CERTIFICATE} does not exist",
                "nothing is issued until it is applied")
    assert_nothing_is_issued(installed)
    installed.apply(certificate)
    installed.wait_serving()
    assert installed.secret_writes() == [("create", 201)]


def test_a_right_that_is_taken_away_is_named_and_nothing_that_is_served_is_lost(
    serving: installation.Installation
) -> None:
    path = f"/apis/rbac.authorization.k8s.io/v1/namespaces/{serving.namespace}/roles/steadyhook-issuing"
    role = serving.cluster.request("GET", path)
    fingerprint = serving.fingerprint()
    with serving.load() as load:
        load.wait_for(5)
        rules = [rule for rule in role["rules"] if "secrets" not in rule["resources"]]
        serving.cluster.request("PUT", path, {**role, "rules": rules})
        damages.wake(serving, "a right is missing")
        wait_logged(serving, "a permission is missing", f'secrets "{installation.AUTHORITY}" is forbidden',
                    "apply the manifests of this version")
        serving.cluster.wait_for(
            lambda: serving.conditions()["Degraded"]["reason"] == "Forbidden", SECONDS, "the condition")
        damages.Culprit(serving).delete()
        serving.cluster.wait_for(
            lambda: {item["phase"] for item in serving.instances()} == {"Degraded"}, SECONDS, "the loss to be seen")
        load.wait_for(10)
        assert {item["fingerprint"] for item in serving.instances()} == {fingerprint}
        del role["metadata"]["resourceVersion"]
        serving.cluster.request("PUT", path, role)
        serving.wait_serving(but_not=fingerprint)
    assert not load.failures


# ---- settings that do not fit together ----

def test_a_secret_name_that_differs_from_the_certificates_is_told_and_nothing_is_issued(install: Install) -> None:
    installed = install(nodes=2, env={"STEADYHOOK_SECRET": "another-tls"})
    installed.cluster.wait_for(
        lambda: installed.conditions()["Ready"]["reason"] == "InvalidSpec", SECONDS, "the condition")
    message = installed.conditions()["Ready"]["message"]
    assert f"spec.secretName is '{installation.SECRET}'" in message
    assert "expected 'another-tls', the Secret that this instance watches" in message
    assert "STEADYHOOK_SECRET" in message
    wait_told(installed, f"may not read Secret {installed.namespace}/another-tls", "STEADYHOOK_SECRET")
    assert [item["message"] for item in installed.events("InvalidSpec")] == [message]
    assert_nothing_is_issued(installed)


def test_a_certificate_for_another_service_is_not_served_and_both_names_are_told(install: Install) -> None:
    installed = install(nodes=2, env={"STEADYHOOK_SERVICE": "another"})
    wait_told(installed, f"not for another.{installed.namespace}.svc, by which the API server calls",
              f"steadyhook-webhook.{installed.namespace}.svc")
    assert {(item["phase"], item["reason"]) for item in installed.instances()} == {("Waiting", "WrongDNSNames")}
    assert installed.secret_writes() == [("create", 201)]
    assert not any(pod.ready for pod in installed.pods())


# ---- a spec that nothing can be issued from ----

@pytest.mark.parametrize(("change", "texts"), [
    ({"dnsNames": ["Not_A_Name"]}, ["spec.dnsNames", "'Not_A_Name', expected a DNS name (RFC 1123)", "use lower-case"]),
    ({"renewBefore": "3h", "duration": "2h"},
     ["spec.renewBefore is 3h, expected shorter than spec.duration (2h)", "shorten spec.renewBefore"]),
    ({"privateKey": {"algorithm": "DSA-1024"}},
     ["spec.privateKey.algorithm", '"DSA-1024"', "supported values", '"ECDSA-P256"']),
    ({"duration": "90 days"}, ["spec.duration is '90 days', expected a duration such as '2160h'", "write whole hours"]),
])
def test_a_spec_that_makes_no_sense_is_refused_when_it_is_applied(
    devcluster: facade.DevCluster, definitions: None, namespace: str, change: JsonObject, texts: list[str]
) -> None:
    with pytest.raises(api.ApiError) as refused:
        devcluster.request("POST", f"/apis/steadyhook.io/v1alpha1/namespaces/{namespace}/webhookcertificates", {
            "apiVersion": "steadyhook.io/v1alpha1", "kind": "WebhookCertificate",
            "metadata": {"name": installation.CERTIFICATE},
            "spec": {"secretName": installation.SECRET, "service": {"name": "hook"}, **change}})
    assert refused.value.status == 422
    said = " ".join(str(refused.value).split())
    assert all(text in said for text in texts), said


# ---- a process that cannot start ----

def run(devcluster: facade.DevCluster, module: str, *arguments: str, **environment: str) -> tuple[int, str]:
    """Exit code and output of ``kopf run`` on the cluster, which is expected to end by itself."""
    process = subprocess.run(
        [sys.executable, "-m", "kopf", "run", "-m", module, *arguments],
        env={**devcluster.env(), "PYTHONPATH": str(SOURCES), "STEADYHOOK_LISTEN_ADDRESS": "127.0.0.1", **environment},
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=SECONDS, check=False)
    return process.returncode, process.stdout


@contextlib.contextmanager
def occupied_port() -> Iterator[int]:
    with socket.socket() as holder:
        holder.bind(("127.0.0.1", 0))
        holder.listen()
        yield int(holder.getsockname()[1])


def free_port() -> str:
    with occupied_port() as port:
        return str(port)


@pytest.mark.parametrize(("module", "setting"), [
    ("steadyhook.server", "STEADYHOOK_WEBHOOK_PORT"), ("steadyhook.server", "STEADYHOOK_HEALTH_PORT"),
    ("steadyhook.manager", "STEADYHOOK_WEBHOOK_PORT"), ("steadyhook.issuer", "STEADYHOOK_HEALTH_PORT"),
])
def test_a_port_in_use_ends_the_process_with_the_address_the_port_and_the_setting(
    devcluster: facade.DevCluster, definitions: None, namespace: str, module: str, setting: str
) -> None:
    ports = {"STEADYHOOK_WEBHOOK_PORT": free_port(), "STEADYHOOK_HEALTH_PORT": free_port()}
    with occupied_port() as port:
        code, output = run(devcluster, module, "--standalone", "-n", namespace, **{**ports, setting: str(port)})
    assert code != 0
    assert f"cannot listen on 127.0.0.1, port {port}: Address already in use" in output
    assert f"set {setting} to a free port, or stop the process that holds this one" in output


@pytest.mark.parametrize("module", ["steadyhook.manager", "steadyhook.issuer", "steadyhook.server"])
@pytest.mark.parametrize(("arguments", "environment", "text"), [
    ([], {}, "the namespace of this instance is not known; give kopf --namespace=NAMESPACE"),
    (["-n", "one", "-n", "two"], {}, "--namespace is given 2 times (one, two), expected one"),
    (["-A"], {}, "the namespace of this instance is not known; give kopf --namespace=NAMESPACE"),
    (["-n", "one"], {"STEADYHOOK_CERTIFICATE": "Not_A_Name"},
     "STEADYHOOK_CERTIFICATE is 'Not_A_Name', expected the name of a Kubernetes object"),
    (["-n", "one"], {"STEADYHOOK_WEBHOOK_PORT": "70000"},
     "STEADYHOOK_WEBHOOK_PORT is '70000', expected a whole number from 1 to 65535"),
    (["-n", "one"], {"STEADYHOOK_SEATS": "many"}, "STEADYHOOK_SEATS is 'many', expected a whole number from 1 to 20"),
], ids=["no namespace", "two namespaces", "all namespaces", "no name", "no port", "no number"])
def test_a_setting_that_cannot_be_used_ends_the_process_with_its_name_its_value_and_the_remedy(
    devcluster: facade.DevCluster, module: str, arguments: list[str], environment: dict[str, str], text: str
) -> None:
    code, output = run(devcluster, module, "--standalone", *arguments, **environment)
    assert code != 0
    assert text in output
