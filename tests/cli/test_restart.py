"""``steadyhook repair restart`` on a DaemonSet of twenty pods."""
import signal
from collections.abc import Iterator

import pytest
import yaml

from cli import test_commands as commands
from devcluster import facade
from steadyhook.cli.output import Exit

pytestmark = [pytest.mark.cluster, pytest.mark.slow]
PODS = 20
NAME = "webhook"


@pytest.fixture
def workload(devcluster: facade.DevCluster, namespace: str) -> Iterator[str]:
    """The namespace of a DaemonSet with a ready pod on each of its nodes."""
    nodes = [f"{namespace}-{number}" for number in range(PODS)]
    devcluster.add_nodes(nodes, labels={"steadyhook.io/pool": namespace})
    labels = {"app": NAME}
    devcluster.kubectl("apply", "-n", namespace, "-f", "-", input=yaml.safe_dump({
        "apiVersion": "apps/v1", "kind": "DaemonSet", "metadata": {"name": NAME}, "spec": {
            "selector": {"matchLabels": labels}, "updateStrategy": {"rollingUpdate": {"maxUnavailable": 5}},
            "template": {"metadata": {"labels": labels}, "spec": {
                "nodeSelector": {"steadyhook.io/pool": namespace}, "terminationGracePeriodSeconds": 1,
                "containers": [{"name": NAME, "image": "steadyhook", "command": ["sleep", "3600"]}]}}}}))
    devcluster.wait_for(lambda: sum(pod.ready for pod in devcluster.pods(namespace)) == PODS, 60, "the pods")
    yield namespace
    devcluster.kubectl("delete", "daemonset", NAME, "-n", namespace, "--wait=false")
    devcluster.kubectl("delete", "pod", "--all", "-n", namespace, "--grace-period=0", "--force")
    devcluster.wait_for(lambda: not devcluster.pods(namespace), 60, "the pods to be gone")
    for node in nodes:
        devcluster.remove_node(node)


def uids(cluster: facade.DevCluster, namespace: str) -> set[str]:
    items = cluster.request("GET", f"/api/v1/namespaces/{namespace}/pods")["items"]
    return {item["metadata"]["uid"] for item in items}


def test_every_pod_is_restarted_and_an_interrupted_wait_goes_on(
    devcluster: facade.DevCluster, workload: str
) -> None:
    before = uids(devcluster, workload)
    command = ("repair", "restart", NAME, "-n", workload)
    code, output, _ = commands.run(devcluster, *command, "--dry-run")
    assert (code, "would restart" in output) == (Exit.FINE, True)
    code, _, errors = commands.run(devcluster, *command)
    assert (code, "say --yes" in errors) == (Exit.NOT_DONE, True)
    assert uids(devcluster, workload) == before

    devcluster.hold_pod_starts()  # so that the rollout cannot end before the wait is interrupted
    processes = []
    try:
        processes.append(interrupted := commands.start(devcluster, *command, "--yes"))
        devcluster.wait_for(lambda: uids(devcluster, workload) != before, 60, "the first pod to go")
        interrupted.send_signal(signal.SIGINT)
        interrupted.communicate(timeout=commands.SECONDS)
        assert interrupted.returncode == Exit.INTERRUPTED
        processes.append(resumed := commands.start(devcluster, *command))  # nothing to ask: it only goes on
        assert resumed.stderr is not None
        assert "before" in resumed.stderr.readline()
        assert "a rollout is under way" in resumed.stderr.readline()
        devcluster.release_pod_starts()
        resumed.communicate(timeout=commands.SECONDS)
        assert resumed.returncode == Exit.FINE
    finally:
        devcluster.release_pod_starts()
        for process in processes:
            process.kill()
            process.wait()
    after = uids(devcluster, workload)
    assert not after & before
    assert len(after) == PODS
