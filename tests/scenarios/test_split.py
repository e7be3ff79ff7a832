"""The split layout: issuers that alone can read the CA key, and servers that can read one Secret."""
import json
import signal
import time

import pytest

from devcluster import facade
from scenarios import installation, instances
from scenarios.conftest import Install

pytestmark = pytest.mark.cluster

TAKEOVER_SECONDS = instances.LIFETIME_SECONDS + 5
HANDOVER_SECONDS = 3.0


@pytest.fixture
def split(install: Install) -> installation.Installation:
    """Two issuers, and servers on three nodes; settled and reachable."""
    installed = install(layout="split")
    installed.wait_serving()
    installed.wait_ready()
    instances.wait_settled(installed)
    return installed


def test_one_issues_and_all_servers_serve(split: installation.Installation) -> None:
    assert split.secret_writes() == [("create", 201)]
    assert len(split.pods("issuer")) == 2 and len(split.pods("server")) == 3
    assert len({pod.node for pod in split.pods("issuer")}) == 2, "one node is not to take both issuers along"
    assert [pod.labels["app.kubernetes.io/component"] for pod in instances.active(split)] == ["issuer"]
    assert {item["podName"] for item in split.instances()} == {pod.name for pod in split.pods("server")}
    assert all("role" not in item for item in split.instances())
    split.admit()


def allowed(
    installed: installation.Installation, pod: facade.PodProcess, *arguments: str, input: str | None = None
) -> bool:
    """Whether the API server carries out a kubectl command with the token of a pod."""
    try:
        installed.cluster.kubectl("--kubeconfig", str(pod.kubeconfig), "-n", installed.namespace, *arguments,
                                  input=input)
    except facade.KubectlError as error:
        if "(Forbidden)" not in error.stderr and "is forbidden" not in error.stderr:
            raise
        return False
    return True


def may_report(installed: installation.Installation, pod: facade.PodProcess, node: str) -> bool:
    """Whether a pod may write the status of a node's ManagerNode."""
    manifest = installed.get(f"steadyhook.io/v1alpha1 managernodes/{node}")
    path = f"/apis/steadyhook.io/v1alpha1/namespaces/{installed.namespace}/managernodes/{node}/status?dryRun=All"
    return allowed(installed, pod, "replace", "--raw", path, "-f", "-", input=json.dumps(manifest))


LEAF, AUTHORITY = f"secret/{installation.SECRET}", f"secret/{installation.AUTHORITY}"
DRY = "--dry-run=server"
TOUCH = ("--type=merge", "--patch", '{"metadata": {"labels": {"touched": "true"}}}', DRY)


def test_a_server_reads_one_secret_and_writes_one_managernode(split: installation.Installation) -> None:
    split.cluster.kubectl("create", "secret", "generic", "other", "-n", split.namespace, "--from-literal=key=value")
    server, neighbour = split.pods("server")[:2]
    assert allowed(split, server, "get", LEAF)
    assert allowed(split, server, "get", "secrets", f"--field-selector=metadata.name={installation.SECRET}")
    assert may_report(split, server, server.node)
    assert not may_report(split, server, neighbour.node)
    refused = (
        ("get", AUTHORITY), ("get", "secret/other"), ("get", "secrets"), ("get", "secrets", "--all-namespaces"),
        ("get", "secrets", f"--field-selector=metadata.name={installation.AUTHORITY}"),
        ("get", "secrets", "--watch", "--output=name"),
        ("patch", LEAF, *TOUCH), ("delete", LEAF, DRY), ("patch", AUTHORITY, *TOUCH), ("delete", AUTHORITY, DRY),
        ("create", "secret", "generic", "more", DRY),
        ("patch", f"managernode/{neighbour.node}", *TOUCH), ("delete", f"managernode/{server.node}", DRY),
        ("patch", "kopfpeering/steadyhook", *TOUCH), ("patch", f"whcert/{installation.CERTIFICATE}", *TOUCH),
        ("patch", f"validatingwebhookconfiguration/steadyhook-example-{split.namespace}", *TOUCH),
    )
    assert [arguments for arguments in refused if allowed(split, server, *arguments)] == []


def test_an_issuer_writes_its_two_secrets_and_no_other(split: installation.Installation) -> None:
    split.cluster.kubectl("create", "secret", "generic", "other", "-n", split.namespace, "--from-literal=key=value")
    issuer, server = split.pods("issuer")[0], split.pods("server")[0]
    wanted = (
        ("get", LEAF), ("get", AUTHORITY), ("patch", LEAF, *TOUCH), ("patch", AUTHORITY, *TOUCH),
        ("patch", f"validatingwebhookconfiguration/steadyhook-example-{split.namespace}", *TOUCH),
    )
    refused = (
        ("get", "secret/other"), ("get", "secrets"), ("patch", "secret/other", *TOUCH),
        ("patch", f"managernode/{server.node}", *TOUCH), ("patch", f"whcert/{installation.CERTIFICATE}", *TOUCH),
        ("delete", "kopfpeering/steadyhook", DRY),
    )
    assert [arguments for arguments in wanted if not allowed(split, issuer, *arguments)] == []
    assert [arguments for arguments in refused if allowed(split, issuer, *arguments)] == []
    assert not may_report(split, issuer, server.node)


@pytest.mark.parametrize(("number", "limit_seconds"), [
    (signal.SIGKILL, TAKEOVER_SECONDS), (signal.SIGTERM, HANDOVER_SECONDS)], ids=["killed", "stopped"])
def test_the_other_issuer_takes_over(
    split: installation.Installation, number: signal.Signals, limit_seconds: float
) -> None:
    former, since = split.active(), split.position()
    began = time.monotonic()
    split.cluster.kill(former, number)
    successor, seconds = instances.wait_successor(split, former, began)
    print(f"{successor.name} is active {seconds:.1f} s after {number.name} to {former.name}")
    assert successor.name in {pod.name for pod in split.pods("issuer")}
    assert seconds <= limit_seconds
    instances.wait_settled(split)
    split.wait_serving()
    assert split.writes("secrets", since=since) == []
    instances.assert_no_noise(former.log())


def test_an_issuer_whose_pod_is_lost_is_succeeded_by_the_other(split: installation.Installation) -> None:
    former, since = split.active(), split.position()
    began = time.monotonic()
    split.cluster.kubectl("delete", "pod", former.name, "-n", split.namespace, "--grace-period=0", "--force")
    successor, seconds = instances.wait_successor(split, former, began)
    print(f"{successor.name} is active {seconds:.1f} s after the pod {former.name} was lost")
    assert seconds <= TAKEOVER_SECONDS
    instances.wait_settled(split)
    assert split.writes("secrets", since=since) == []
