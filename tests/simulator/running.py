"""One run: a schedule, then the end of all faults, then rest."""
import dataclasses
import random

from simulator import clockwork, happenings, invariants, issuer, listener, model, schedule, trace, world
from steadyhook.core import policy, reasons

REST_SECONDS = 130.0  # two looks of an issuer that nothing wakes
PATIENCE_SECONDS = 1500.0  # within this time after the last fault everything has to be at rest
STEP_LIMIT = 20_000
SPEC = {"secretName": "leaf", "caSecretName": "ca", "service": {"name": "hook"}, "settleSeconds": world.SETTLE_SECONDS}
FOR_LISTENERS = {"compatibility": "Dynamiclistener", "privateKey": {"algorithm": "RSA-2048"}, "duration": "8760h",
                 "renewBefore": "2400h"}
OF_THE_USERS_CA = {"authority": {"secretName": "own-ca"}}
STORM_SECONDS = 5.0  # in which listeners have the Secrets to themselves


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What a run came to; ``violation`` is None when everything held."""

    seed: int
    steps: int
    violation: str | None
    leaf_writes: int
    log: trace.Trace


def run(plan: schedule.Schedule) -> Outcome:
    """The same schedule and the same core give the same outcome."""
    log = trace.Trace()
    where = world.World(rng=random.Random(plan.seed + 1), log=log, wanted=policy.parse(
        {**SPEC, **(FOR_LISTENERS if plan.kind in schedule.OF_LISTENERS else {}),
         **(OF_THE_USERS_CA if plan.kind == "own-ca" else {})}, namespace="ns", name="cert"))
    checker = where.checker = invariants.Checker(where)
    violation = None
    try:
        _set_up(where, plan)
        _play(where, plan)
        _rest(where, checker, plan)
    except invariants.Violation as error:
        violation = str(error)
        log.add(where.now, "VIOLATION", violation)
    return Outcome(seed=plan.seed, steps=where.clock.step_count, violation=violation,
                   leaf_writes=checker.writes[model.LEAF], log=log)


def _set_up(where: world.World, plan: schedule.Schedule) -> None:
    rng = where.rng

    def machine(name: str) -> world.Machine:
        skew_seconds = rng.uniform(-1.0, 1.0) * plan.skew_seconds
        if plan.kind == "clocks" and rng.random() < 0.6:
            skew_seconds = rng.choice(happenings.SKEWS) * rng.choice((1.0, -1.0))
        return world.Machine(name, skew_seconds=skew_seconds,
                             monotonic_offset=rng.uniform(0.0, 1e6))

    where.torn_reads = plan.torn_reads
    if plan.kind == "own-ca":
        happenings.provide(where, where.mint.authority(where.wanted, where.utc(), "own-CA"))
    alien = where.mint.authority(where.wanted, where.utc(), "alien")
    where.aliens[alien.pem] = alien
    taken_over = plan.kind == "takeover"
    for index in range(plan.configurations):
        happenings.add_configuration(
            where, f"{model.CONFIGURATION}{index}", (alien,) if taken_over else ())
    if plan.kind == "strange" and rng.random() < 0.5:
        happenings.occupy(where, rng.randrange(6))
    if plan.kind in ("strange", "own-ca", "rotation", "listeners") and rng.random() < 0.5:
        happenings.intrude(where)
    for view in (view for uid, views in where.views.items() if uid not in _uids(where, where.never)
                 for view in views):
        view.foreign = not taken_over
    for index in range(plan.servers):
        one = happenings.add_server(where, machine=machine(f"machine-{index}"), node=f"node-{index % 2}")
        if taken_over and index % 2:
            one.stop()
            one.legacy = where.mint.leaf(where.wanted, alien, where.utc())
    for index in range(plan.issuers):
        peer = issuer.Issuer(where, machine(f"issuer-{index}"))
        where.issuers.append(peer)
        peer.start(rng.uniform(0.0, 2.0) + (STORM_SECONDS if plan.kind == "storm" else 0.0))
    if plan.kind in schedule.OF_LISTENERS:
        where.blind = 0.3 if plan.kind == "listeners" else 0.0
        where.clock.start(clockwork.Process("application", listener.application(where)))


def _uids(where: world.World, keys: set[str]) -> set[str]:
    return {item.uid for item in where.store.objects.values() if item.key in keys}


def _play(where: world.World, plan: schedule.Schedule) -> None:
    for event in plan.events:
        _run_until(where, event.at)
        where.note("schedule", event.what, f"#{event.pick} for {event.seconds:.1f} s")
        process = clockwork.Process(event.what, happenings.HAPPENINGS[event.what](where, event))
        where.clock.start(process)
    if plan.events:
        rest = 150.0 if plan.kind in schedule.WITHOUT_FAULTS else where.rng.choice((0.0, 10.0, 60.0))
        _run_until(where, plan.events[-1].at + rest)


def _run_until(where: world.World, moment: float) -> None:
    """``moment`` is in seconds of the schedule, to which days that pass do not count."""
    while where.clock.next_due() <= moment + where.passed_seconds:
        _step(where)
    where.clock.now = max(where.clock.now, moment + where.passed_seconds)


def _step(where: world.World) -> None:
    if where.clock.step_count > STEP_LIMIT:
        raise invariants.Violation(f"5: no rest after {STEP_LIMIT} steps")
    try:
        where.clock.step()
    except world.Crashed as crash:
        peer: issuer.Issuer = crash.args[0]
        where.note(peer.name, "is killed")
        peer.crash()
        peer.start(where.rng.uniform(1.0, 30.0))


def _rest(where: world.World, checker: invariants.Checker, plan: schedule.Schedule) -> None:
    if plan.kind not in schedule.WITHOUT_FAULTS:
        where.note("schedule", "the end of all faults")
        happenings.heal(where)
    end = where.now + PATIENCE_SECONDS
    while True:
        moment = max(checker.last_write, where.now) + REST_SECONDS
        _run_until(where, moment - where.passed_seconds)
        restless = invariants.at_rest(where)
        if restless is None and checker.last_write <= where.now - REST_SECONDS:
            break
        if where.now > end:
            raise invariants.Violation(f"5: no rest within {PATIENCE_SECONDS:.0f} s: {restless or 'still writing'}")
    if plan.kind in schedule.WITHOUT_FAULTS:
        _check_calm(where, checker, plan)


def _check_calm(where: world.World, checker: invariants.Checker, plan: schedule.Schedule) -> None:
    """1: no conflict, and exactly the leaves that were asked for or due. What listeners have made is adopted."""
    if checker.conflicts:
        raise invariants.Violation(f"1: conflicts without any fault: {checker.conflicts}")
    if (surplus := invariants.minimal(where)) is not None:
        raise invariants.Violation(f"3: {surplus}")
    happened = [event.what for event in plan.events]
    expected = {
        reasons.Reason.SECRET_MISSING: 0 if plan.kind == "storm" else 1,
        reasons.Reason.REQUESTED: happened.count("rotate-leaf"),
        reasons.Reason.SWITCHING: happened.count("rotate-ca"),
    }
    found = dict(checker.leaf_reasons)
    renewals = found.pop(reasons.Reason.RENEWAL_DUE, 0)
    if found != {reason: count for reason, count in expected.items() if count} or (
            renewals > happened.count("days-pass")):
        raise invariants.Violation(f"1: leaves were written for {found}, and {renewals} renewals;"
                                   f" {expected} were asked for")
