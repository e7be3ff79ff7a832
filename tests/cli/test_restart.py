"""``steadyhook repair restart``, ``delete-secret`` and ``adopt`` on a DaemonSet of twenty pods."""
import signal
import time
from collections.abc import Iterator

import pytest

from cli import test_commands as commands
from cli import workload
from devcluster import facade
from peers import conftest, webhook
from steadyhook.cli import contending
from steadyhook.cli.output import Exit

pytestmark = [pytest.mark.cluster, pytest.mark.slow]

definitions = conftest.definitions


@pytest.fixture
def pods(devcluster: facade.DevCluster, namespace: str) -> Iterator[workload.Workload]:
    made = workload.Workload(devcluster, namespace)
    made.apply()
    made.wait_ready()
    yield made
    made.remove()


def test_every_pod_is_restarted_and_an_interrupted_wait_goes_on(pods: workload.Workload) -> None:
    before = pods.uids()
    command = ("repair", "restart", workload.NAME, "-n", pods.namespace)
    code, output, _ = commands.run(pods.cluster, *command, "--dry-run")
    assert (code, "would restart" in output) == (Exit.FINE, True)
    code, _, errors = commands.run(pods.cluster, *command)
    assert (code, "say --yes" in errors) == (Exit.NOT_DONE, True)
    assert pods.uids() == before

    pods.cluster.hold_pod_starts()  # so that the rollout cannot end before the wait is interrupted
    processes = []
    try:
        processes.append(interrupted := commands.start(pods.cluster, *command, "--yes"))
        pods.wait(lambda: pods.uids() != before, "the first pod to go")
        interrupted.send_signal(signal.SIGINT)
        interrupted.communicate(timeout=commands.SECONDS)
        assert interrupted.returncode == Exit.INTERRUPTED
        processes.append(resumed := commands.start(pods.cluster, *command))  # nothing to ask: it only goes on
        assert resumed.stderr is not None
        assert "before" in resumed.stderr.readline()
        assert "a rollout is under way" in resumed.stderr.readline()
        pods.cluster.release_pod_starts()
        resumed.communicate(timeout=commands.SECONDS)
        assert resumed.returncode == Exit.FINE
    finally:
        pods.cluster.release_pod_starts()
        for process in processes:
            process.kill()
            process.wait()
    after = pods.uids()
    assert not set(after.values()) & set(before.values())
    assert len(after) == workload.PODS


def test_a_deleted_secret_is_made_anew_by_a_restart(pods: workload.Workload) -> None:
    path = f"/api/v1/namespaces/{pods.namespace}/secrets/{contending.SECRET}"
    before = pods.cluster.request("GET", path)["metadata"]["uid"]
    began, position = time.monotonic(), pods.cluster.audit.position()
    code, _, errors = commands.run(
        pods.cluster, "repair", "delete-secret", contending.SECRET, "-n", pods.namespace, "--yes")
    assert code == Exit.FINE, errors
    assert "makes it anew at its next start" in errors
    code, _, errors = commands.run(pods.cluster, "repair", "restart", workload.NAME, "-n", pods.namespace, "--yes")
    assert code == Exit.FINE, errors
    webhook.report("deleted and restarted", seconds=round(time.monotonic() - began, 1),
                   writes=pods.writes(since=position))
    assert pods.cluster.request("GET", path)["metadata"]["uid"] != before
    assert pods.writes(since=position)[0] == workload.PODS


def test_after_an_adoption_nobody_contends_any_more(definitions: None, pods: workload.Workload) -> None:
    name = contending.SECRET.removesuffix("-tls")
    with conftest.issuing(pods.cluster, pods.namespace, certificate=name, secret=contending.SECRET):
        code, _, errors = commands.run(
            pods.cluster, "repair", "adopt", contending.SECRET, "-n", pods.namespace, "--yes")
        assert code == Exit.FINE, errors
        began, position, before = time.monotonic(), pods.cluster.audit.position(), set(pods.uids().values())
        pods.delete_pods()
        pods.wait(lambda: len(set(pods.uids().values()) - before) == workload.PODS, "the new pods")
        pods.wait_ready()
        webhook.report("all at once, adopted", seconds=round(time.monotonic() - began, 1),
                       writes=pods.writes(since=position))
        assert pods.writes(since=position) == (0, 0)
