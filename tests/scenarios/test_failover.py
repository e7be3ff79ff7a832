"""Who issues when the one that did is gone: by a crash, by an orderly stop, by mistake twice, or by a person's wish."""
import collections.abc
import contextlib
import pathlib
import signal
import socket
import subprocess
import sys
import time

import pytest

from devcluster import audit, facade
from scenarios import installation, instances
from scenarios.conftest import Install

pytestmark = pytest.mark.cluster

OPERATOR = pathlib.Path(__file__).parents[2] / "operator"
TAKEOVER_SECONDS = instances.LIFETIME_SECONDS + 5
HANDOVER_SECONDS = 3.0


@pytest.fixture
def installed(install: Install) -> installation.Installation:
    """Four nodes of the manager layout, so that one instance has no seat; settled and reachable."""
    return settle(install(nodes=4))


def settle(installed: installation.Installation) -> installation.Installation:
    installed.wait_serving()
    installed.wait_ready()
    instances.wait_settled(installed)
    return installed


def kill_container(installed: installation.Installation, active: facade.PodProcess) -> None:
    """The container starts again in the same pod, which so gets its own seat back, behind all others."""
    installed.cluster.kill(active, signal.SIGKILL)


def lose_pod(installed: installation.Installation, active: facade.PodProcess) -> None:
    """Nobody speaks for the record of a pod that is gone: it has to expire."""
    installed.cluster.kubectl("delete", "pod", active.name, "-n", installed.namespace, "--grace-period=0", "--force")


def freeze_process(installed: installation.Installation, active: facade.PodProcess) -> None:
    installed.cluster.kill(active, signal.SIGSTOP)


@pytest.mark.parametrize("fault", [kill_container, lose_pod, freeze_process])
def test_another_takes_over_within_the_peering_lifetime_when_the_active_instance_dies(
    installed: installation.Installation, fault: collections.abc.Callable[..., None],
) -> None:
    former = installed.active()
    since, began = installed.position(), time.monotonic()
    fault(installed, former)
    successor, seconds = instances.wait_successor(installed, former, began)
    print(f"{fault.__name__}: {successor.name} is active {seconds:.1f} s after the end of {former.name}")
    assert seconds <= TAKEOVER_SECONDS
    if fault is freeze_process:
        installed.cluster.kill(former, signal.SIGCONT)
    installed.wait_serving()
    assert installed.writes("secrets", since=since) == []


def test_an_orderly_stop_hands_over_at_once_and_then_drains(install: Install) -> None:
    installed = settle(install(nodes=4, env={"STEADYHOOK_DRAIN_SECONDS": "8"}))
    former = installed.active()
    fingerprint = installed.fingerprint()
    since, began = installed.position(), time.monotonic()
    installed.cluster.kill(former, signal.SIGTERM)
    successor, seconds = instances.wait_successor(installed, former, began)
    assert instances.served(former, installed) == fingerprint, "it drains, and serves as long as it does"
    print(f"{successor.name} is active {seconds:.1f} s after SIGTERM to {former.name}")
    assert seconds <= HANDOVER_SECONDS

    def ended() -> dict[str, object]:
        status = installed.get(f"v1 pods/{former.name}")["status"]["containerStatuses"][0]
        return dict(status["lastState"]["terminated"])

    terminated = installed.cluster.wait_for(ended, 60, f"the end of the container of {former.name}")
    assert terminated["exitCode"] == 0
    installed.wait_serving()
    assert installed.writes("secrets", since=since) == []
    instances.assert_no_noise(former.log())


def test_a_deleted_pod_hands_over_and_takes_its_entry_along(installed: installation.Installation) -> None:
    former = installed.active()
    since, began = installed.position(), time.monotonic()
    installed.cluster.kubectl("delete", "pod", former.name, "-n", installed.namespace, "--wait=false")
    successor, seconds = instances.wait_successor(installed, former, began)
    print(f"{successor.name} is active {seconds:.1f} s after the deletion of {former.name}")
    assert seconds <= HANDOVER_SECONDS
    assert former.name not in installed.peers()
    installed.cluster.wait_for(
        lambda: former.uid not in {pod.uid for pod in installed.pods()}, 60, "the end of the pod")
    assert former.uid not in {item["podUID"] for item in installed.instances()}
    installed.wait_serving()
    assert installed.writes("secrets", since=since) == []
    instances.assert_no_noise(former.log())


@pytest.mark.slow
def test_no_request_fails_while_every_instance_is_replaced(installed: installation.Installation) -> None:
    before = {pod.uid for pod in installed.pods()}
    since, began = installed.position(), time.monotonic()
    with installed.load() as load:
        load.wait_for(20)
        installed.cluster.kubectl("rollout", "restart", "daemonset/steadyhook-manager", "-n", installed.namespace)
        installed.cluster.kubectl("rollout", "status", "daemonset/steadyhook-manager", "-n", installed.namespace,
                                  "--timeout=280s", timeout=300)
        installed.cluster.wait_for(lambda: not before & {pod.uid for pod in installed.pods()}, 60,
                                   "the end of the old pods")
        load.wait_for(20)
    print(f"4 instances replaced in {time.monotonic() - began:.0f} s, {load.sent} requests")
    assert not load.failures
    installed.wait_serving()
    instances.wait_settled(installed, seats=1)
    assert installed.writes("secrets", since=since) == []


def test_a_crash_of_all_instances_at_once_rewrites_nothing(installed: installation.Installation) -> None:
    fingerprint = installed.fingerprint()
    since, began = installed.position(), time.monotonic()
    for pod in installed.pods():
        installed.cluster.kill(pod, signal.SIGKILL)
    installed.cluster.wait_for(
        lambda: all(pod.restarts == 1 and pod.pid and pod.ready for pod in installed.pods()), 90, "all to be back")
    print(f"all four are ready {time.monotonic() - began:.1f} s after kill -9 of all")
    assert installed.wait_serving() == fingerprint
    instances.wait_settled(installed)
    assert installed.writes("secrets", since=since) == []


def test_a_frozen_instance_that_comes_back_does_not_undo_its_successors_work(
    installed: installation.Installation
) -> None:
    former, fingerprint = installed.active(), installed.fingerprint()
    since = installed.position()
    installed.cluster.kill(former, signal.SIGSTOP)
    installed.cluster.request("DELETE", f"/api/v1/namespaces/{installed.namespace}/secrets/{installation.SECRET}")
    successor, _ = instances.wait_successor(installed, former, time.monotonic())
    installed.cluster.wait_for(lambda: installed.fingerprint(), 60, "a new leaf")
    thawed = installed.position()
    installed.cluster.kill(former, signal.SIGCONT)
    assert installed.wait_serving(but_not=fingerprint)  # the former one, too, serves the leaf of its successor
    installed.cluster.wait_for(lambda: instances.keep_alives(installed, thawed)[former.name] >= 2, 60,
                               f"{former.name} to be a peer again")
    instances.wait_settled(installed, seats=1)
    print(f"{successor.name} wrote; {[pod.name for pod in instances.active(installed)]} is active afterwards")
    assert installed.secret_writes(since=since) == [("create", 201)]
    assert installed.writes("secrets", installation.AUTHORITY, since=since) == []


def test_a_person_can_freeze_the_issuing_while_serving_goes_on(installed: installation.Installation) -> None:
    fingerprint = installed.fingerprint()
    kopf_command(installed, "freeze", "--priority=100", "--lifetime=600", "--id=person")
    installed.cluster.wait_for(lambda: not instances.active(installed), 60, "no active instance")
    since = installed.position()
    with installed.load() as load:
        installed.cluster.request("DELETE", f"/api/v1/namespaces/{installed.namespace}/secrets/{installation.SECRET}")
        installed.cluster.wait_for(
            lambda: {item["phase"] for item in installed.instances()} == {"Degraded"}, 60, "all to miss the Secret")
        installed.cluster.wait_for(  # each of the seat holders that are left had time enough to issue
            lambda: sorted(instances.keep_alives(installed, since).values())[-2:] >= [2, 2], 60, "keep-alives")
        assert installed.writes("secrets", since=since) == []
        kopf_command(installed, "resume", "--id=person")
        installed.wait_serving(but_not=fingerprint)
        load.wait_for(10)
    assert not load.failures
    assert installed.secret_writes(since=since) == [("create", 201)]


def kopf_command(installed: installation.Installation, *arguments: str) -> None:
    """``kopf freeze`` and ``kopf resume``, as a person calls them."""
    done = subprocess.run(
        [sys.executable, "-m", "kopf", *arguments, "--peering=steadyhook", f"--namespace={installed.namespace}"],
        env=installed.cluster.env(), capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr


# ---- by mistake: two that know nothing of each other ----


def test_two_that_run_standalone_by_mistake_keep_one_valid_chain(
    install: Install, tmp_path: pathlib.Path
) -> None:
    installed = install(nodes=2, without=lambda item: item["kind"] == "DaemonSet")
    with standalone(installed, tmp_path, 0), standalone(installed, tmp_path, 1):
        fingerprint = installed.wait_serving(2)
        assert_written_once(installed, 0)
        since = installed.position()
        installed.cluster.request("DELETE", f"/api/v1/namespaces/{installed.namespace}/secrets/{installation.SECRET}")
        again = installed.wait_serving(2, but_not=fingerprint)
        for number in range(3):
            wake_both(installed, number)
        assert_written_once(installed, since)
        assert installed.wait_serving(2) == again
    for number in range(2):
        instances.assert_no_noise((tmp_path / f"{number}.log").read_text())


def assert_written_once(installed: installation.Installation, since: int) -> None:
    """One write of the leaf Secret succeeded, and each of the two was refused once at most."""
    events = installed.cluster.audit.select(
        verb=installation.WRITE_VERBS, resource="secrets", namespace=installed.namespace,
        name=installation.SECRET, since=since)
    codes = [audit.code_of(event) for event in events if event["userAgent"] == "steadyhook"]
    print(f"HTTP status of the writes to the Secret: {codes}")
    assert codes.count(201) == 1
    assert set(codes) <= {201, 409} and len(codes) <= 3


def wake_both(installed: installation.Installation, number: int) -> None:
    """Touch what both watch, and wait until both have looked at everything because of it."""
    since = installed.position()
    installed.cluster.kubectl("annotate", "webhookcertificate", installation.CERTIFICATE, "-n", installed.namespace,
                              f"example.com/touched={number}", "--overwrite")
    installed.cluster.wait_for(lambda: installed.cluster.audit.count(
        verb="get", resource="secrets", namespace=installed.namespace, name=installation.AUTHORITY,
        since=since) >= 2, 60, "two looks at the CA Secret")


@contextlib.contextmanager
def standalone(
    installed: installation.Installation, folder: pathlib.Path, number: int
) -> collections.abc.Iterator[None]:
    """``kopf run -m steadyhook.manager --standalone`` on this machine, as one of the installation's nodes."""
    environment = {
        **installed.cluster.env(), "PYTHONPATH": str(OPERATOR), "PYTHONUNBUFFERED": "1",
        "POD_NAME": f"mistake-{number}", "NODE_NAME": installed.node_names[number],
        "STEADYHOOK_LISTEN_ADDRESS": "127.0.0.1", "STEADYHOOK_WEBHOOK_PORT": str(free_port()),
        "STEADYHOOK_HEALTH_PORT": str(free_port()), "STEADYHOOK_DRAIN_SECONDS": "0",
    }
    command = [sys.executable, "-m", "kopf", "run", "-m", "steadyhook.manager", "--standalone",
               f"--namespace={installed.namespace}"]
    with (folder / f"{number}.log").open("wb") as log:
        process = subprocess.Popen(command, env=environment, stdout=log, stderr=log)
    try:
        yield
        process.terminate()
        assert process.wait(30) == 0
    finally:
        process.kill()
        process.wait()
        print((folder / f"{number}.log").read_text()[-4000:])


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])
