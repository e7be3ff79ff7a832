"""The API server, its database, or the way to it is gone for a while: nobody exits, everybody serves, all converge."""
import contextlib
import signal
import time
from collections.abc import Iterator

import pytest

from devcluster import facade
from scenarios import installation, instances
from scenarios.conftest import Install

pytestmark = [pytest.mark.cluster, pytest.mark.slow]

OUTAGE_SECONDS = 120.0
PARTITION_SECONDS = 30.0
GRACE_SECONDS = 30.0  # terminationGracePeriodSeconds in the manifests


@pytest.fixture
def both(
    install: Install, devcluster: facade.DevCluster, namespace: str
) -> Iterator[tuple[installation.Installation, installation.Installation]]:
    """Both layouts, with two nodes each, settled: every entry module goes through the same outage."""
    other = f"{namespace}-split"
    devcluster.kubectl("create", "namespace", other)
    split = installation.Installation(devcluster, other, layout="split", nodes=2)
    try:
        manager = install(nodes=2)
        split.install()
        for installed in (manager, split):
            installed.wait_serving()
            installed.wait_ready()
            instances.wait_settled(installed)
        yield manager, split
        for pod in split.pods():
            print(f"--- {pod.name} on {pod.node}, {pod.restarts} restarts\n{pod.log()[-6000:]}")
    finally:
        split.uninstall()
        devcluster.kubectl("delete", "namespace", other, "--wait=false")


@pytest.mark.parametrize("component", ["apiserver", "etcd"])
def test_nobody_exits_and_everybody_serves_through_an_outage_of_two_minutes(
    devcluster: facade.DevCluster, both: tuple[installation.Installation, installation.Installation], component: str,
) -> None:
    stop = {"apiserver": devcluster.stop_apiserver, "etcd": devcluster.stop_etcd}[component]
    start = {"apiserver": devcluster.start_apiserver, "etcd": devcluster.start_etcd}[component]
    since = devcluster.audit.position()
    processes = {pod.uid: pod.pid for installed in both for pod in installed.pods()}
    fingerprints = [installed.fingerprint() for installed in both]
    with contextlib.ExitStack() as stack:
        shaken = [stack.enter_context(instances.shaking(installed, servers(installed))) for installed in both]
        began = time.monotonic()
        stop()
        devcluster.wait_for(lambda: time.monotonic() - began >= OUTAGE_SECONDS, OUTAGE_SECONDS + 30, "the outage's end")
        start()
        back, resumed = time.monotonic(), devcluster.audit.position()
        for installed in both:
            wait_peers_renewed(installed, resumed)
            instances.wait_settled(installed)
            print(f"{component}, {installed.namespace}: one active, all peers alive {time.monotonic() - back:.1f} s"
                  " after it was back")
        for installed, fingerprint in zip(both, fingerprints, strict=True):
            installed.wait_ready()
            installed.admit()
            assert installed.wait_serving() == fingerprint
            assert installed.writes("secrets", since=since) == []
        assert both[1].writes("managernodes", since=since) == []  # those of the manager layout tell roles as well
        assert {pod.uid: pod.pid for installed in both for pod in installed.pods()} == processes
        for installed, fingerprint in zip(both, fingerprints, strict=True):
            renewed = time.monotonic()
            want_another_name(installed)
            installed.wait_serving(but_not=fingerprint)
            print(f"{component}, {installed.namespace}: a new leaf served by all in {time.monotonic() - renewed:.1f} s")
            assert [verb for verb, _ in installed.secret_writes(since=since)] == ["patch"]
    for installed, result in zip(both, shaken, strict=True):
        print(f"{component}, {installed.namespace}: {sum(result.done.values())} handshakes")
        assert not result.failures
        assert len(result.done) == len(servers(installed)) and min(result.done.values()) > OUTAGE_SECONDS
    assert [pod.restarts for installed in both for pod in installed.pods()] == [0] * len(processes)


@pytest.mark.parametrize("stall", [False, True], ids=["reset", "stalled"])
def test_the_active_instance_that_is_cut_off_serves_on_and_takes_up_what_it_missed(
    install: Install, stall: bool
) -> None:
    installed = install()
    installed.wait_serving()
    installed.wait_ready()
    former = instances.wait_settled(installed)
    cluster, fingerprint, since = installed.cluster, installed.fingerprint(), installed.position()
    assert fingerprint is not None
    with instances.shaking(installed, installed.pods()) as shaken, installed.load() as load:
        began = time.monotonic()
        cluster.partition(former, stall=stall)
        successor, seconds = instances.wait_successor(installed, former, began)
        print(f"{successor.name} is active {seconds:.1f} s after {former.name} was cut off")
        want_another_name(installed)
        cluster.wait_for(lambda: sum(item.get("fingerprint") == installed.fingerprint() != fingerprint
                                     for item in installed.instances()) == 2, 60, "the two others to serve a new leaf")
        cluster.wait_for(lambda: time.monotonic() - began >= PARTITION_SECONDS, PARTITION_SECONDS + 30, "the time")
        assert instances.served(former, installed) == fingerprint
        healed = time.monotonic()
        cluster.heal(former)
        installed.wait_serving(but_not=fingerprint)
        assert instances.served(former, installed) == installed.fingerprint()
        print(f"{former.name} serves the new leaf {time.monotonic() - healed:.1f} s after it was healed")
        instances.wait_settled(installed)
    assert not load.failures
    assert not shaken.failures
    assert [verb for verb, _ in installed.secret_writes(since=since)] == ["patch"]
    assert [pod.restarts for pod in installed.pods()] == [0, 0, 0]


@pytest.mark.parametrize("stall", [False, True], ids=["reset", "stalled"])
def test_an_instance_that_is_cut_off_can_be_stopped_in_time(install: Install, stall: bool) -> None:
    installed = install()
    installed.wait_serving()
    former = instances.wait_settled(installed)
    installed.cluster.partition(former, stall=stall)
    began = time.monotonic()
    installed.cluster.kill(former, signal.SIGTERM)
    status = installed.cluster.wait_for(lambda: last_end(installed, former), 60, f"the end of {former.name}")
    print(f"it ended {time.monotonic() - began:.1f} s after SIGTERM")
    assert status["exitCode"] == 0
    assert time.monotonic() - began < GRACE_SECONDS
    instances.assert_no_noise(former.log())
    installed.cluster.heal(former)
    installed.wait_serving()
    instances.wait_settled(installed)


def last_end(installed: installation.Installation, pod: facade.PodProcess) -> dict[str, object]:
    status = installed.get(f"v1 pods/{pod.name}")["status"]["containerStatuses"][0]
    return dict(status["lastState"]["terminated"])


def servers(installed: installation.Installation) -> list[facade.PodProcess]:
    return installed.pods("manager") or installed.pods("server")


def want_another_name(installed: installation.Installation) -> None:
    """A change of the spec that takes a new leaf."""
    installed.cluster.kubectl("patch", "webhookcertificate", installation.CERTIFICATE, "-n", installed.namespace,
                              "--type=merge", "--patch", '{"spec": {"dnsNames": ["another.example.com"]}}')


def wait_peers_renewed(installed: installation.Installation, since: int) -> None:
    """Wait until each seat holder has been heard of twice."""
    candidates = [pod.name for pod in installed.pods("manager") or installed.pods("issuer")]

    def renewed() -> bool:
        heard = instances.keep_alives(installed, since)
        return all(heard[name] >= 2 for name in candidates)

    installed.cluster.wait_for(renewed, 120, f"keep-alives of {candidates}")
