"""``steadyhook reproduce``: the storm of our own writers, and where it is refused."""
import json
import signal
from collections.abc import Iterator

import pytest

from cli import test_commands as commands
from devcluster import facade
from steadyhook.cli import contending, reproduce
from steadyhook.cli.diagnosis import Kind
from steadyhook.cli.output import Exit

pytestmark = pytest.mark.cluster
WRITERS = 20


def storms(cluster: facade.DevCluster) -> list[str]:
    """The namespaces that were made and are not being deleted."""
    return [item["metadata"]["name"] for item in cluster.request("GET", reproduce.NAMESPACES)["items"]
            if item["metadata"]["name"].startswith(reproduce.PREFIX) and "deletionTimestamp" not in item["metadata"]]


def test_writers_contend_and_do_not_if_it_was_issued_before(devcluster: facade.DevCluster) -> None:
    code, output, errors = commands.run(devcluster, "reproduce", "--writers", str(WRITERS), "-o", "json")
    assert code == Exit.FINE, errors
    found = json.loads(output)
    assert (found["contending"]["ready"], found["contending"]["writes"]) == (WRITERS, WRITERS)
    assert found["contending"]["conflicts"] > 0
    assert found["contending"]["errors"] == 0
    assert found["issuedBefore"]["ready"] == WRITERS
    assert (found["issuedBefore"]["writes"], found["issuedBefore"]["conflicts"]) == (0, 0)
    assert storms(devcluster) == []


def test_it_can_be_diagnosed_and_an_interrupted_one_leaves_nothing(devcluster: facade.DevCluster) -> None:
    process = commands.start(devcluster, "reproduce", "--writers", "300")
    try:
        (namespace,) = devcluster.wait_for(lambda: storms(devcluster), commands.SECONDS, "its namespace")
        path = f"/api/v1/namespaces/{namespace}/secrets/{contending.SECRET}"
        devcluster.wait_for(lambda: devcluster.request("GET", path), commands.SECONDS, "its Secret")
        code, output, _ = commands.run(devcluster, "diagnose", contending.SECRET, "-n", namespace, "-o", "json",
                                       "--seconds", "3")
        assert code == Exit.WRONG
        assert Kind.STORM in commands.found(output)
        process.send_signal(signal.SIGINT)
        process.communicate(timeout=commands.SECONDS)
        assert process.returncode == Exit.INTERRUPTED
    finally:
        process.kill()
        process.wait()
    assert storms(devcluster) == []


@pytest.fixture
def important(devcluster: facade.DevCluster) -> Iterator[facade.DevCluster]:
    """A cluster that is not marked for development."""
    devcluster.kubectl("label", "namespace", "kube-system", f"{reproduce.MARK}-")
    yield devcluster
    devcluster.kubectl("label", "namespace", "kube-system", f"{reproduce.MARK}=true")


def test_another_cluster_is_refused_unless_it_is_meant(important: facade.DevCluster) -> None:
    code, _, errors = commands.run(important, "reproduce", "--writers", "2")
    assert code == Exit.FAILED
    assert "is not a development cluster" in errors
    assert "--any-cluster" in errors
    code, _, errors = commands.run(important, "reproduce", "--writers", "2", "--any-cluster", "-o", "json")
    assert code == Exit.FINE, errors
