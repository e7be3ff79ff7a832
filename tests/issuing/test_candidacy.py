"""A seat and what hangs on it: who stops first, and that nothing is cut short by a second cancellation."""
import asyncio
import dataclasses
import datetime
import pathlib
import re
from collections.abc import Callable
from typing import Any

import kopf
import prometheus_client
import pytest

from issuing import fakes
from steadyhook.cluster import client, clock, paths
from steadyhook.core import election
from steadyhook.issuing import candidacy, handlers, operator, reconciling

SETTINGS = dataclasses.replace(fakes.SETTINGS, peering_lifetime=1)
PEERING = paths.peering(fakes.NAMESPACE, SETTINGS.peering_name)
OWN = SETTINGS.instance.pod_name


class Cluster(fakes.Cluster):
    """With a clock, which is right."""

    def __init__(self) -> None:
        super().__init__()
        self.clock = clock.Clock()

    async def __aenter__(self) -> "Cluster":
        return self

    async def __aexit__(self, *_: object) -> None:
        pass

    def elect(self, **priorities: int) -> None:
        """Live records of these instances; "own" is this one's."""
        now = datetime.datetime.now(datetime.UTC)
        self.put(PEERING, {"status": {
            OWN if who == "own" else who: {"priority": priority, "lifetime": 60, "lastseen": now.isoformat()}
            for who, priority in priorities.items()}})


class Work:
    """A reconcile loop that confirms once, and then is busy with something."""

    problem: str | None = None

    def __init__(self, *, confirm: reconciling.Confirm, **_: Any) -> None:
        self._confirm = confirm

    async def run(self) -> None:
        await self._confirm()
        await asyncio.Event().wait()

    def wake(self, delay: float = 0.0) -> None:
        pass

    def trouble(self) -> str | None:
        return Work.problem

    def woken_unserved_seconds(self) -> float:
        return 0.0


class Operator:
    """An embedded operator that ends when it is let."""

    def __init__(self) -> None:
        self.runs = self.ending = False
        self.may_end = asyncio.Event()
        self.may_end.set()

    async def run(self) -> None:
        self.runs = True
        try:
            await asyncio.Event().wait()
        finally:
            self.ending = True
            await self.may_end.wait()
            self.runs = self.ending = False


class Instance:
    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.cluster, self.seat, self.work = Cluster(), Operator(), Operator()
        self.roles: list[election.Role] = []
        self.problems: list[str | None] = []
        monkeypatch.setattr(client, "Cluster", lambda: self.cluster)
        monkeypatch.setattr(candidacy, "MOMENT_SECONDS", 0.0)
        monkeypatch.setattr(candidacy.random, "uniform", lambda lowest, highest: 0.0)
        monkeypatch.setattr(operator, "build", lambda *_, **__: self.seat)
        monkeypatch.setattr(reconciling, "Reconciler", Work)
        self.handlers = handlers.Handlers(registry=kopf.OperatorRegistry(), namespace="ns", grace_seconds=1.0)
        self.handlers._operator = self.work  # type: ignore[assignment]
        self.cluster.elect(own=1)
        self.candidacy = candidacy.Candidacy(
            settings=SETTINGS, identity=OWN, on_role=self.roles.append, on_problem=self.problems.append,
            work_due=lambda: True, user_handlers=self.handlers)

    async def is_active(self) -> None:
        self.candidacy.start()
        await fakes.until(lambda: self.work.runs and self.roles[-1:] == [election.Role.ACTIVE])


def scenario(monkeypatch: pytest.MonkeyPatch, play: Callable[[Instance], Any]) -> None:
    async def run() -> None:
        instance = Instance(monkeypatch)
        try:
            await instance.is_active()
            await play(instance)
        finally:
            instance.seat.may_end.set()
            instance.work.may_end.set()
            await instance.candidacy.stop()

    asyncio.run(asyncio.wait_for(run(), 30))


def test_whoever_is_overtaken_ends_its_handlers_though_its_loop_is_busy(monkeypatch: pytest.MonkeyPatch) -> None:
    async def play(instance: Instance) -> None:
        instance.cluster.elect(own=1, another=2)
        await fakes.until(lambda: instance.roles[-1] is election.Role.CANDIDATE, seconds=5)
        await fakes.until(lambda: not instance.work.runs, seconds=5)
        assert instance.seat.runs

    scenario(monkeypatch, play)


def test_the_seat_is_kept_until_the_handlers_have_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    async def play(instance: Instance) -> None:
        instance.work.may_end.clear()
        stopping = asyncio.create_task(instance.candidacy.stop())
        await fakes.until(lambda: instance.work.ending)
        await asyncio.sleep(0.05)
        assert instance.seat.runs and not instance.seat.ending
        instance.work.may_end.set()
        await stopping
        assert not instance.seat.runs

    scenario(monkeypatch, play)


def test_a_stop_while_a_seat_is_being_given_up_leaves_nothing_running(monkeypatch: pytest.MonkeyPatch) -> None:
    async def play(instance: Instance) -> None:
        instance.work.may_end.clear()
        instance.cluster.elect(own=1, a=2, b=3, c=4)  # more than seats
        await fakes.until(lambda: instance.work.ending)  # the seat is being given up, which waits for the handlers
        stopping = asyncio.create_task(instance.candidacy.stop())
        await asyncio.sleep(0.1)
        assert not stopping.done()
        assert instance.seat.runs and not instance.seat.ending, "the handlers run to their end first"
        instance.work.may_end.set()
        await stopping
        assert not instance.work.runs and not instance.seat.runs

    scenario(monkeypatch, play)


def test_handlers_of_one_that_is_active_no_longer_are_waited_for_before_the_seat_goes(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def play(instance: Instance) -> None:
        instance.work.may_end.clear()
        instance.handlers.set_active(False)
        await fakes.until(lambda: instance.work.ending)
        stopping = asyncio.create_task(instance.candidacy.stop())
        await asyncio.sleep(0.1)
        assert instance.seat.runs and not instance.seat.ending
        instance.work.may_end.set()
        await stopping
        assert not instance.seat.runs

    scenario(monkeypatch, play)


def test_an_instance_that_has_stopped_does_not_say_that_it_issues(monkeypatch: pytest.MonkeyPatch) -> None:
    async def play(instance: Instance) -> None:
        await instance.candidacy.stop()
        assert prometheus_client.REGISTRY.get_sample_value("steadyhook_active") == 0

    scenario(monkeypatch, play)


def test_what_keeps_the_work_from_being_done_is_told_until_it_is_mended_and_the_seat_is_kept(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture,
) -> None:
    async def play(instance: Instance) -> None:
        monkeypatch.setattr(Work, "problem", "certificates cannot be watched")
        await fakes.until(lambda: instance.problems[-3:] == ["certificates cannot be watched"] * 3)
        monkeypatch.setattr(Work, "problem", None)
        await fakes.until(lambda: instance.problems[-1] is None)
        assert instance.seat.runs
        assert caplog.text.count("certificates cannot be watched") == 1

    scenario(monkeypatch, play)


@pytest.mark.filterwarnings("error")
def test_the_embedded_operators_are_configured_with_nothing_that_kopf_is_giving_up() -> None:
    async def work_and_handlers() -> tuple[operator.embedding.EmbeddedOperator, ...]:
        made = handlers.Handlers(registry=kopf.OperatorRegistry(), namespace="ns", grace_seconds=8.0)
        return made._operator, operator.build(SETTINGS, work=None, identity="one", priority=1)

    ours, seat = asyncio.run(work_and_handlers())
    settings = kopf.OperatorSettings()
    ours._configure(settings)
    seat._configure(settings)
    assert settings.queueing.exit_timeout == 8.0
    assert settings.peering.lifetime == SETTINGS.peering_lifetime


def test_a_pod_has_the_time_to_end_its_handlers_and_then_to_give_up_its_seat() -> None:
    manifests = pathlib.Path(__file__).parents[2] / "manifests" / "base"
    grace = [int(found) for path in manifests.rglob("*.yaml")
             for found in re.findall(r"terminationGracePeriodSeconds: (\d+)", path.read_text())]

    async def longest() -> float:
        made = handlers.Handlers(
            registry=kopf.OperatorRegistry(), namespace="ns", grace_seconds=SETTINGS.drain_seconds)
        return made._operator._stop_seconds + operator.embedding.STOP_SECONDS

    assert len(grace) == 3
    assert asyncio.run(longest()) < min(grace)


@pytest.mark.parametrize("skew_seconds", [-200.0, 0.4, 200.0])
def test_an_own_record_that_cannot_be_read_counts_as_dead_whatever_the_clock_says(
    monkeypatch: pytest.MonkeyPatch, skew_seconds: float
) -> None:
    async def run() -> None:
        instance = Instance(monkeypatch)
        instance.cluster.clock.now = lambda: datetime.datetime.now(datetime.UTC)  # type: ignore[method-assign]
        monkeypatch.setattr(clock.Clock, "skew_seconds", skew_seconds, raising=False)
        (record,) = instance.candidacy._parse({"status": {OWN: {"lastseen": "never"}}})
        assert not record.is_live(datetime.datetime.now(datetime.UTC))

    asyncio.run(run())
