"""
What befalls the cluster: a list of events, made from a seed alone, that reads like a story.

A schedule is of one of these kinds: ``calm`` (requests, renewals and rolled pods, but no fault), ``takeover`` (a
webhook that works already, with a certificate and pods of somebody else's, then faults), ``rotation`` (faults around a
rotation of the CA), ``rough`` (anything), ``storm`` (listeners of dynamiclistener that fight over the Secrets before an
issuer comes, but no fault), ``listeners`` (the same all at once, then faults), ``own-ca`` (a CA of the user's own,
which is replaced, then faults), ``clocks`` (machines whose clocks are wrong by minutes to years, then faults) and
``strange`` (Secrets and configurations of others, fights and restored backups, then faults).
"""
import dataclasses
import random

KINDS = ("rough", "rotation", "rotation", "takeover", "calm", "listeners", "storm", "own-ca", "clocks", "strange")
WITHOUT_FAULTS = ("calm", "storm")
OF_LISTENERS = ("storm", "listeners")

REQUESTS = ("rotate-ca", "rotate-leaf", "days-pass", "start-pod", "roll-pod")
FAULTS = (
    "crash-issuer", "crash-issuer", "crash-at-write", "crash-at-write", "pause-issuer", "pause-issuer",
    "cut-off-issuer", "rivals", "crash-server", "pause-server", "cut-off-server", "outage", "slow-requests",
    "delete-leaf", "delete-leaf", "damage-leaf", "damage-leaf", "delete-ca", "damage-ca", "damage-ca",
    "overwrite-configuration", "overwrite-configuration", "forbid-configuration", "replace-configuration",
    "change-spec", "hide-server", "delete-pod", "apply-bundle", "start-pod-cut-off", "restore-leaf",
    "damage-status", "odd-record", "end-part", "end-part", "overwrite-forbidden", "copy-ca",
)
STRANGE = ("fight-over-leaf", "restore-cluster", "damage-status", "odd-record", "end-part")

SWITCH = (9.5, 11.5)
"""About when a rotation comes to its switch, in seconds after the request: what happens then is the hardest."""

STORIES: tuple[tuple[tuple[str, tuple[float, float]], ...], ...] = (
    (("pause-server", (0.0, 11.0)),),
    (("cut-off-server", (0.0, 11.0)),),
    (("start-pod-cut-off", (6.5, 10.5)),),
    (("restore-leaf", (9.0, 40.0)),),
    (("crash-at-write", SWITCH), ("delete-leaf", (11.5, 16.0))),
    (("crash-at-write", SWITCH), ("rivals", (0.0, 20.0))),
    (("crash-issuer", (0.0, 25.0)),),
    (("pause-issuer", SWITCH), ("delete-leaf", (9.0, 30.0))),
    (("forbid-configuration", (-2.0, 0.0)), ("apply-bundle", (5.0, 60.0))),
    (("damage-leaf", (5.0, 25.0)), ("start-pod", (5.0, 25.0))),
    (("rotate-leaf", SWITCH),),
    (("overwrite-forbidden", (0.0, 9.0)),),
    (("copy-ca", (-2.0, 12.0)),),
    (("delete-ca", (60.0, 100.0)), ("restore-leaf", (100.0, 150.0))),
)


@dataclasses.dataclass(frozen=True, slots=True)
class Event:
    """``pick`` chooses among whatever is there at that time; ``seconds`` is how long it lasts, if it does."""

    at: float
    what: str
    pick: int
    seconds: float

    def __str__(self) -> str:
        return f"{self.at:8.2f}  {self.what} #{self.pick} for {self.seconds:.1f} s"


@dataclasses.dataclass(frozen=True, slots=True)
class Schedule:
    """The cluster to begin with, and the events in the order of time."""

    seed: int
    kind: str
    issuers: int
    servers: int
    configurations: int
    skew_seconds: float
    torn_reads: bool
    events: tuple[Event, ...]

    def __str__(self) -> str:
        return "\n".join([
            f"seed {self.seed}: {self.kind}, {self.issuers} issuers, {self.servers} servers,"
            f" {self.configurations} configurations, clocks up to {self.skew_seconds:.0f} s apart"
            + (", torn reads" if self.torn_reads else ""),
            *map(str, self.events)])


def make(seed: int) -> Schedule:
    """The schedule of a seed: always the same."""
    rng = random.Random(seed)
    kind = KINDS[seed % len(KINDS)]
    calm = kind in WITHOUT_FAULTS
    return Schedule(
        seed=seed, kind=kind,
        issuers=rng.choice((1, 2, 3)) if calm else rng.choice((1, 2, 2, 3, 4)),
        servers=rng.choice((1, 2, 3, 4)),
        configurations=rng.choice((0, 1, 2, 2)),
        skew_seconds=0.0 if calm or rng.random() < 0.5 else 150.0,
        torn_reads=rng.random() < 0.3,
        events=tuple(sorted(_calm(rng) if calm else _faulty(rng, kind), key=lambda item: item.at)))


def _calm(rng: random.Random) -> list[Event]:
    """One thing after the other: each has its time to come to an end."""
    return [_event(rng, 60.0 + 120.0 * index, rng.choice(REQUESTS)) for index in range(rng.randint(1, 4))]


def _faulty(rng: random.Random, kind: str) -> list[Event]:
    end = rng.choice((20.0, 60.0, 150.0))
    events = [_event(rng, rng.uniform(0.0, end), rng.choice(FAULTS)) for _ in range(rng.randint(1, 7))]
    events += [_event(rng, rng.uniform(3.0, end), rng.choice(REQUESTS)) for _ in range(rng.randint(0, 2))]
    if kind == "rotation" or (kind == "listeners" and rng.random() < 0.6):
        begin = rng.uniform(3.0, 15.0)
        events.append(_event(rng, begin, "rotate-ca"))
        events += [_event(rng, begin + rng.uniform(0.0, 40.0), rng.choice(FAULTS)) for _ in range(rng.randint(0, 3))]
        events += [_event(rng, begin + rng.uniform(*window), what) for what, window in rng.choice(STORIES)]
    if kind == "clocks":
        events += [_event(rng, rng.uniform(0.0, end), "step-clock") for _ in range(rng.randint(0, 3))]
    if kind == "strange":
        events += [_event(rng, rng.uniform(5.0, end + 20.0), rng.choice(STRANGE)) for _ in range(rng.randint(1, 2))]
    if kind == "own-ca":
        events += [_event(rng, rng.uniform(0.0, end), "replace-own-ca") for _ in range(rng.randint(1, 3))]
    if kind == "takeover":
        events.append(_event(rng, rng.uniform(0.0, 30.0), "take-over-configuration"))
    return events


def _event(rng: random.Random, at: float, what: str) -> Event:
    return Event(at=at, what=what, pick=rng.randrange(1000), seconds=rng.choice((0.5, 5.0, 20.0, 60.0, 200.0))
                 * rng.uniform(0.5, 1.5))
