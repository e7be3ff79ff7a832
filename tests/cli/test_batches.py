"""``steadyhook repair batches`` on a DaemonSet of twenty pods that contend for a Secret."""
import contextlib
import json
import signal
import threading
import time
from collections.abc import Iterator

import pytest

from cli import test_commands as commands
from cli import workload
from devcluster import facade
from peers import webhook
from steadyhook.cli import holding
from steadyhook.cli.output import Exit

pytestmark = [pytest.mark.cluster, pytest.mark.slow]
SIZE = 5
LOOK_SECONDS = 0.1


@pytest.fixture
def pods(devcluster: facade.DevCluster, namespace: str) -> Iterator[workload.Workload]:
    made = workload.Workload(devcluster, namespace)
    made.apply()
    yield made
    devcluster.release_pod_starts()
    made.remove()


class Watched:
    """How many processes of pods that are not ready were there at once, at most."""

    def __init__(self, pods: workload.Workload) -> None:
        self._pods = pods
        self.most = 0

    @contextlib.contextmanager
    def watching(self) -> Iterator[None]:
        ended = threading.Event()

        def look() -> None:
            while not ended.wait(LOOK_SECONDS):
                starting = [pod for pod in self._pods.cluster.pods(self._pods.namespace)
                            if pod.pid is not None and not pod.ready]
                self.most = max(self.most, len(starting))

        thread = threading.Thread(target=look, daemon=True)
        thread.start()
        try:
            yield
        finally:
            ended.set()
            thread.join()


def test_pods_start_in_batches_and_an_interrupted_repair_goes_on(pods: workload.Workload) -> None:
    cluster = pods.cluster
    began, position = time.monotonic(), cluster.audit.position()
    pods.wait_ready()
    webhook.report("all at once", seconds=round(time.monotonic() - began, 1), writes=pods.writes(since=position))
    command = ("repair", "batches", workload.NAME, "--size", str(SIZE), "-n", pods.namespace)
    code, output, _ = commands.run(cluster, *command)
    assert (code, "all 20 pods are ready" in output) == (Exit.FINE, True)
    assert "nothing to do: all 20 pods are ready" in commands.run(cluster, *command, "--dry-run")[1]

    # Now none can become ready, but for two on nodes that are left alone.
    before = pods.daemonset()
    cluster.hold_pod_starts()
    kept = {node: uid for node, uid in pods.uids().items() if node in pods.nodes[:2]}
    pods.delete_secret()
    for node, uid in pods.uids().items():
        if node not in kept:
            _delete_pod(pods, uid)
    pods.wait(lambda: sum(pod.held for pod in cluster.pods(pods.namespace)) == workload.PODS - 2, "the new pods")
    code, output, _ = commands.run(cluster, *command, "--dry-run")
    assert code == Exit.FINE
    assert "leave 2 pods that are ready, stop the other 18, and start them 5 at a time" in output
    code, _, errors = commands.run(cluster, *command)
    assert (code, "say --yes" in errors) == (Exit.NOT_DONE, True)
    assert not pods.node_labels()

    watched = Watched(pods)
    began, position = time.monotonic(), cluster.audit.position()
    with watched.watching():
        process = commands.start(cluster, *command, "--yes")
        try:
            pods.wait(lambda: pods.node_labels() and len(pods.uids()) == 2 + SIZE, "the first batch alone")
            process.send_signal(signal.SIGINT)
            _, said = process.communicate(timeout=commands.SECONDS)
            assert process.returncode == Exit.INTERRUPTED
            again = f"steadyhook repair batches {workload.NAME} -n {pods.namespace} --size {SIZE}"
            assert "interrupted; 13 pods are still held back, on nodes with the label batches.steadyhook.io/" in said
            assert f"To go on: {again}. To start all at once: {again} --release" in said
        finally:
            process.kill()
            process.wait()
        cluster.release_pod_starts()
        process = commands.start(cluster, *command, "-o", "json")  # nothing to ask: it goes on
        try:
            pods.wait(lambda: pods.ready() == workload.PODS, "all pods")
            webhook.report("in batches", seconds=round(time.monotonic() - began, 1), writes=pods.writes(since=position))
            output, errors = process.communicate(timeout=commands.SECONDS)
        finally:
            process.kill()
            process.wait()
    assert process.returncode == Exit.FINE, errors
    assert "goes on: start 13 pods that are held back" in errors
    assert json.loads(output)["done"] == workload.NAME
    assert watched.most <= SIZE
    assert {node: pods.uids()[node] for node in kept} == kept
    assert pods.ready() == workload.PODS
    assert not pods.node_labels()
    after = pods.daemonset()
    assert after["spec"] == before["spec"]
    assert holding.FORMER not in (after["metadata"]["annotations"] or {})  # type: ignore[index]


def test_what_is_held_back_can_be_released(pods: workload.Workload) -> None:
    cluster = pods.cluster
    pods.wait_ready()
    command = ("repair", "batches", workload.NAME, "--size", "1", "-n", pods.namespace)
    code, output, _ = commands.run(cluster, *command, "--release")
    assert (code, "no pod is held back" in output) == (Exit.FINE, True)
    cluster.hold_pod_starts()
    pods.delete_pods()
    pods.wait(lambda: sum(pod.held for pod in cluster.pods(pods.namespace)) == workload.PODS, "the new pods")
    code, _, errors = commands.run(cluster, *command, "--yes", "--timeout", "3")
    assert code == Exit.NOT_DONE
    assert "--release starts all that are held back" in errors
    cluster.release_pod_starts()
    code, output, errors = commands.run(cluster, *command, "--release")
    assert code == Exit.FINE, errors
    assert "Started all that were held back, at once" in output
    pods.wait_ready()
    assert not pods.node_labels()


def test_a_deployment_has_no_batches(devcluster: facade.DevCluster, namespace: str) -> None:
    devcluster.kubectl("create", "deployment", "web", "--image=steadyhook", "--replicas=0", "-n", namespace)
    code, _, errors = commands.run(devcluster, "repair", "batches", "web", "--size", "2", "-n", namespace)
    assert code == Exit.FAILED
    assert "expected a DaemonSet" in errors


def _delete_pod(pods: workload.Workload, uid: str) -> None:
    items = pods.cluster.request("GET", f"/api/v1/namespaces/{pods.namespace}/pods")["items"]
    name = next(item["metadata"]["name"] for item in items if item["metadata"]["uid"] == uid)
    pods.cluster.kubectl("delete", "pod", name, "-n", pods.namespace, "--grace-period=0", "--force", "--wait=false")
