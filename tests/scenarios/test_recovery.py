"""Parts that end by themselves: they are back within seconds, nobody's request fails, and it is told."""
import json
import time

import pytest

from devcluster import facade
from scenarios import installation, instances
from scenarios.conftest import Install

pytestmark = pytest.mark.cluster

RECOVERY_SECONDS = 45
"""A seat is looked after each 7.5 s, a part starts again after 10 s at most, and kopf takes 5 s to end."""

UNREADABLE = {
    "text for a time": {"lastseen": "never"},
    "no record at all": "y",
    "a lifetime without end": {"lastseen": "2030-01-01T00:00:00+00:00", "lifetime": 10**13, "priority": 1},
}


def put_record(installed: installation.Installation, record: object) -> None:
    """As a person, or one manager's token, can do it."""
    installed.cluster.kubectl("patch", "kopfpeering", "steadyhook", "-n", installed.namespace, "--type=merge",
                              "--patch", json.dumps({"status": {"somebody": record}}))


def reissue(installed: installation.Installation) -> None:
    """Delete the leaf, and wait until all serve another one: so somebody issues, and everybody watches."""
    former = installed.fingerprint()
    installed.cluster.kubectl("delete", "secret", installation.SECRET, "-n", installed.namespace)
    installed.cluster.wait_for(installed.fingerprint, RECOVERY_SECONDS, "a new leaf")
    installed.wait_serving(but_not=former)


def restarts(pod: facade.PodProcess) -> dict[str, float]:
    """How often each part of an instance was started again."""
    return {labels["part"]: value for name, labels, value in instances.samples(pod)
            if name == "steadyhook_restarts_total"}


@pytest.mark.parametrize("record", UNREADABLE.values(), ids=UNREADABLE.keys())
@pytest.mark.parametrize("layout", ["manager", "split"])
def test_a_record_that_nobody_can_read_is_dropped_and_issuing_goes_on(
    install: Install, layout: str, record: object
) -> None:
    if layout == "split" and record != UNREADABLE["text for a time"]:
        pytest.skip("the same parts in the other layout: one of the records will do")
    installed = install(layout=layout)
    installed.wait_serving()
    installed.wait_ready()
    instances.wait_settled(installed)
    before = sum(pod.restarts for pod in installed.pods())
    with installed.load() as load:
        began = time.monotonic()
        put_record(installed, record)
        installed.cluster.wait_for(
            lambda: "somebody" not in installed.get("kopf.dev/v1 kopfpeerings/steadyhook")["status"],
            RECOVERY_SECONDS, "the record to be dropped")
        instances.wait_settled(installed, seats=1, timeout=RECOVERY_SECONDS)
        print(f"{layout}: one is active {time.monotonic() - began:.1f} s after the record was put there")
        reissue(installed)
        load.wait_for(20)
    assert not load.failures
    assert sum(pod.restarts for pod in installed.pods()) == before, "no process had to be started again"
    assert "The record of 'somebody'" in installed.logs()
    # kopf takes some seconds to end an operator.
    installed.cluster.wait_for(lambda: any(sum(restarts(pod).values()) for pod in installed.pods()), RECOVERY_SECONDS,
                               "it to be counted")


@pytest.mark.parametrize("layout", ["manager", "split"])
def test_embedded_operators_that_end_in_any_way_are_back_within_seconds(install: Install, layout: str) -> None:
    installed = install(layout=layout, modules=("ending",), env={
        "ENDING": "login,raises,returns,cancelled", "ENDING_SECONDS": "1", "ENDING_THREADS": "1"})
    installed.wait_serving()
    installed.wait_ready()
    with installed.load() as load:
        instances.wait_settled(installed, seats=1)
        installed.cluster.wait_for(
            lambda: all(pod.log().count("is going to end: cancelled") for pod in installed.pods()),
            RECOVERY_SECONDS * 2, "every operator to have ended in every way")
        began = time.monotonic()
        reissue(installed)
        print(f"{layout}: all serve a new leaf {time.monotonic() - began:.1f} s after the former was deleted")
        load.wait_for(20)
    assert not load.failures
    assert sum(pod.restarts for pod in installed.pods()) == 0, "no process had to be started again"
    for pod in installed.pods():
        # A candidate that gives up its seat in between ends its operator itself, which is not counted.
        assert sum(restarts(pod).values()) >= 4, restarts(pod)
        assert "can't start new thread" in pod.log()


@pytest.mark.parametrize("seconds", [3600, -86400 * 400], ids=["an hour ahead", "a year behind"])
def test_an_instance_with_a_wrong_clock_serves_but_neither_joins_nor_issues_and_says_why(
    install: Install, seconds: int
) -> None:
    installed = install(modules=("skewed",), env={"SKEWED": f"-1={seconds}", "STEADYHOOK_PEERING_LOOK_SECONDS": "5"})
    installed.wait_serving()
    installed.wait_ready()
    instances.wait_settled(installed, seats=2)
    wrong = next(pod for pod in installed.pods() if pod.node == installed.node_names[0])
    assert wrong.name not in {*installed.peers(), installed.active().name}
    assert "This instance cannot issue: the clock of this machine is" in wrong.log()
    skew = next(value for name, _, value in instances.samples(wrong) if name == "steadyhook_clock_skew_seconds")
    assert abs(skew - seconds) < 5
    entry = next(item for item in installed.instances() if item["podUID"] == wrong.uid)
    assert entry["phase"] == "Serving"
    assert "synchronise the clocks of the nodes" in entry["message"]
    assert installed.secret_writes() == [("create", 201)]
    installed.admit()


def test_that_nobody_issues_is_told_by_the_servers_until_somebody_does(install: Install) -> None:
    installed = install(layout="split", modules=("impatient",))
    installed.wait_serving()
    installed.wait_ready()
    fingerprint = installed.fingerprint()

    def scale(replicas: int) -> None:
        installed.cluster.kubectl("scale", "deployment/steadyhook-issuer", "-n", installed.namespace,
                                  f"--replicas={replicas}")

    def complaints() -> list[bool]:
        return ["NobodyIssues: KopfPeering" in item["message"] for item in installed.instances()]

    scale(0)
    installed.cluster.wait_for(lambda: not installed.peers(), 60, "the end of the issuers")
    installed.cluster.kubectl("delete", "secret", installation.SECRET, "-n", installed.namespace)
    installed.cluster.wait_for(lambda: all(complaints()), RECOVERY_SECONDS, "every server to tell that nobody issues")
    for pod in installed.pods("server"):
        assert instances.served(pod, installed) == fingerprint, "they serve on"
        found = {name: value for name, _, value in instances.samples(pod)}
        assert found["steadyhook_peering_records"] == 0
    scale(2)
    installed.wait_serving(but_not=fingerprint)
    installed.cluster.wait_for(lambda: not any(complaints()), RECOVERY_SECONDS, "the complaint to be taken back")
