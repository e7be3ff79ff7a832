"""
Golden scenarios: what happens, in plain words, and what the core makes of it, word by word.

The files in ``golden/`` are played by the simulator's cluster with one clock and no accidents. ``GOLDEN_REWRITE=1``
writes them anew: only commit the changes if you understand what caused them.
"""
import collections.abc
import os
import pathlib
import random
import re

import pytest

from simulator import happenings, issuer, model, server, trace, world
from simulator.schedule import Event
from steadyhook.core import facts, issuing, policy, rotation, steps
from steadyhook.core import serving as judging

FOLDER = pathlib.Path(__file__).parent / "golden"
SPEC = {"secretName": "leaf", "service": {"name": "hook"}}
REWRITE = bool(os.environ.get("GOLDEN_REWRITE"))


class _Still(random.Random):
    """No accidents."""

    def random(self) -> float:
        return 0.5

    def uniform(self, a: float, b: float) -> float:
        return a


class _World(world.World):
    def latency(self) -> float:
        return 0.0


class Play:
    """The cluster of one scenario, and the lines that tell what the core has made of it."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.world = _World(rng=_Still(), log=trace.Trace(),
                            wanted=policy.parse(SPEC, namespace="ns", name="cert"))
        self.lines: list[str] = []
        self._last: tuple[str, str] | None = None
        real_decide, real_judge = issuing.decide, judging.judge

        def decide(seen: facts.Seen, wanted: policy.Policy, now: object) -> issuing.Decision:
            decision = real_decide(seen, wanted, now)  # type: ignore[arg-type]
            self._tell_decision(seen, decision)
            return decision

        def judge(seen: facts.Leaf | None, **keywords: object) -> judging.Verdict:
            verdict = real_judge(seen, **keywords)  # type: ignore[arg-type]
            line = f"server: {verdict.phase}, {verdict.reason}: {verdict.message}"
            if not self.lines or line not in self.lines[-1]:
                self._tell(line)
            return verdict

        monkeypatch.setattr(issuing, "decide", decide)
        monkeypatch.setattr(judging, "judge", judge)

    def do(self, event: str) -> None:
        """Carry out one event in plain words."""
        for pattern, act in EVENTS.items():
            if match := re.fullmatch(pattern, event):
                self._last = None
                act(self, *match.groups())
                return
        raise AssertionError(f"{event!r} is no event; known are {', '.join(EVENTS)}")

    def wait(self, seconds: float) -> None:
        end = self.world.now + seconds
        while self.world.clock.next_due() <= end:
            self.world.clock.step()
        self.world.clock.now = max(self.world.clock.now, end)

    def happen(self, what: str, pick: int = 0) -> None:
        event = Event(at=0.0, what=what, pick=pick, seconds=0.0)
        for _ in happenings.HAPPENINGS[what](self.world, event):
            break
        self.wait(0.0)

    def pod(self, name: str) -> server.Server:
        return self.world.servers[name]

    def start_issuer(self) -> None:
        peer = issuer.Issuer(self.world, world.Machine(f"issuer-{len(self.world.issuers)}"))
        self.world.issuers.append(peer)
        peer.start(0.0)

    def kill_active(self) -> None:
        next(peer for peer in self.world.issuers if peer.role == "active").crash()

    def damage_successor(self) -> None:
        self.happen("damage-ca", pick=2)

    def _tell_decision(self, seen: facts.Seen, decision: issuing.Decision) -> None:
        what = (str(decision.reason), decision.message)
        if what == self._last:
            return
        self._last = what
        self._tell(f"issuer: [{rotation.phase(seen)}] {decision.reason}: {decision.message}")
        for action in decision.actions:
            self._tell(f"        -> {_describe(action)}")

    def _tell(self, line: str) -> None:
        self.lines.append(f"    {self.world.now:9.1f} s  {line}")


def _describe(action: steps.Step) -> str:
    names = "+".join(item.fingerprint for item in action.bundle) or "nothing else"
    match action:
        case steps.IssueLeaf():
            return f"IssueLeaf by {action.signer.fingerprint}, ca.crt {names}"
        case steps.InjectBundle():
            return f"InjectBundle {names} into {action.configuration.name}"
        case steps.Promote():
            return f"Promote, bundle {names}, retired {'+'.join(sorted(action.retired))}"
    return f"{type(action).__name__}, bundle {names}"


def _trust(play: Play, name: str, whom: str) -> None:
    trusted = () if whom == "nobody" else (play.world.mint.authority(play.world.wanted, play.world.utc(), whom),)
    happenings.add_configuration(play.world, model.CONFIGURATION + name, trusted)


def _start_pods(play: Play, count: str) -> None:
    for _ in range(int(count)):
        number = len(play.world.servers)
        happenings.add_server(play.world, machine=world.Machine(f"machine-{number}"), node=f"node-{number}")


EVENTS: dict[str, collections.abc.Callable[..., None]] = {
    r"(\d+) pods? starts?": _start_pods,
    r"an issuer starts": Play.start_issuer,
    r"configuration (\w+) trusts (\w+)": _trust,
    r"(\d+) seconds pass": lambda play, seconds: play.wait(float(seconds)),
    r"65 days pass": lambda play: play.happen("days-pass"),
    r"the leaf Secret is deleted": lambda play: play.happen("delete-leaf"),
    r"the CA Secret is deleted": lambda play: play.happen("delete-ca"),
    r"the first leaf is restored": lambda play: play.happen("restore-leaf"),
    r"the ready mark is taken off": lambda play: play.happen("damage-leaf", pick=4),
    r"the next CA is damaged": Play.damage_successor,
    r"a configuration is overwritten": lambda play: play.happen("overwrite-configuration", pick=1),
    r"a rotation is asked for": lambda play: play.happen("rotate-ca"),
    r"a new leaf is asked for": lambda play: play.happen("rotate-leaf"),
    r"the active issuer is killed": Play.kill_active,
    r"(pod-\d+) is stopped": lambda play, name: play.pod(name).pause(float("1e9")),
    r"(pod-\d+) goes on": lambda play, name: play.pod(name).resume(),
    r"(pod-\d+) is deleted": lambda play, name: happenings.remove_server(play.pod(name)),
}


@pytest.mark.parametrize("path", sorted(FOLDER.glob("*.txt")), ids=lambda path: path.stem)
def test_the_story_is_told_word_by_word(path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = path.read_text().splitlines()
    play = Play(monkeypatch)
    for line in before:
        if line.startswith("    "):
            continue
        play.lines.append(line)
        if line and not line.startswith("#"):
            play.do(line)
    if REWRITE:
        path.write_text("\n".join(play.lines) + "\n")
    assert REWRITE or play.lines == before
