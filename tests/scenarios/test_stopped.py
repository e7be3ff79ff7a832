"""Two of twenty nodes are stopped, or cut off, while the CA is rotated."""
import signal

import pytest

from devcluster import facade
from scenarios import installation, test_rotation
from scenarios.conftest import Install

pytestmark = [pytest.mark.cluster, pytest.mark.slow]
NODES = 20
IN_A_ROW = 65  # 0.9 ** 65 is about 0.001
PATIENCE = 20


def wait_for_both(installed: installation.Installation) -> None:
    def waits() -> bool:
        condition = installed.conditions()["Rotating"]
        return condition["reason"] == "Acknowledging" and f"{NODES - 2}/{NODES} acknowledged" in condition["message"]

    installed.cluster.wait_for(waits, 120, "the rotation to wait for two")


def ready_pods(installed: installation.Installation) -> set[str]:
    """The uids of the pods that the API server may send requests to."""
    slices = installed.get("discovery.k8s.io/v1 endpointslices?labelSelector="
                           "kubernetes.io/service-name%3Dsteadyhook-webhook")["items"]
    return {item["targetRef"]["uid"] for part in slices for item in part["endpoints"] or []
            if item["conditions"].get("ready")}


def wait_until_spared(installed: installation.Installation, stopped: list[facade.PodProcess]) -> None:
    """
    Until no request is sent to these pods any more.

    Requests to a stopped process time out by nature: until the kubelet has noticed (two failed probes), and for as long
    as the API server has not heard of it. The latter cannot be asked, so it is tried: were two of twenty still in its
    choice, so many requests in a row would succeed in one of a thousand runs.
    """
    uids = {pod.uid for pod in stopped}
    installed.cluster.wait_for(lambda: not uids & ready_pods(installed), 120, "the endpoints to be without them")
    with installed.load() as load:
        while (failed := load.failures.total()) < PATIENCE:
            load.wait_for(IN_A_ROW)
            if load.failures.total() == failed:
                return
    raise AssertionError(f"requests still go to the stopped pods: {dict(load.failures)}")


def test_two_of_twenty_keep_the_old_ca_until_they_are_back_and_no_request_fails(install: Install) -> None:
    installed = install(nodes=NODES)
    installed.wait_serving(timeout=180)
    installed.wait_ready(timeout=180)
    peers = set(installed.peers())
    chosen: list[facade.PodProcess] = [pod for pod in installed.pods() if pod.name not in peers][:2]

    before = test_rotation.authorities(installed)
    for pod in chosen:
        installed.cluster.kill(pod, signal.SIGSTOP)
    wait_until_spared(installed, chosen)
    with installed.load() as load:
        test_rotation.rotate(installed, "two are stopped")
        wait_for_both(installed)
        load.wait_for(40)
        assert before < test_rotation.authorities(installed)
        for pod in chosen:
            installed.cluster.kill(pod, signal.SIGCONT)
        test_rotation.wait_rotated(installed, before, timeout=240)
        installed.wait_serving(timeout=120)
        installed.wait_ready(timeout=120)

        before = test_rotation.authorities(installed)
        for pod in chosen:
            installed.cluster.partition(pod)
        test_rotation.rotate(installed, "two are cut off")
        wait_for_both(installed)
        load.wait_for(40)
        assert before < test_rotation.authorities(installed)
        for pod in chosen:
            installed.cluster.heal(pod)
        test_rotation.wait_rotated(installed, before, timeout=240)
        installed.wait_serving(timeout=120)
    print(f"{load.sent} admission requests, failed: {dict(load.failures)}")
    assert load.failures == {}
