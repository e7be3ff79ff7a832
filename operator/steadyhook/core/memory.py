"""
What the active instance remembers from look to look: for how long things have held, and what is left alone.

Every moment in here is of the instance's own monotonic clock, in seconds. Nothing of it is ever written down: a new
active instance measures each wait anew.
"""
import collections.abc
import dataclasses

from steadyhook.core import facts, issuing, policy, reasons, rotation, steps

FORBIDDEN_SECONDS = 300.0  # how long a configuration that may not be patched is left alone
TRY_AGAIN_SECONDS = 5.0  # after a trial that has shown nothing
CONTEST_SECONDS = 60.0  # so many injections of one bundle into one configuration within this time are a fight
CONTEST_INJECTIONS = 4
CONTEST_REPAIRS = 6  # so many repairs of one Secret, for the same reason, within that time are a fight as well
LONGEST_CONTEST_SECONDS = 300.0  # a fight that goes on is taken up more rarely


Bundle = tuple[facts.Certificate, ...]


class Memory:
    """Of one active instance."""

    def __init__(self) -> None:
        self._trusted_since: dict[tuple[facts.Fingerprint, str], float] = {}  # by CA and entry
        self._lost: frozenset[tuple[facts.Fingerprint, str]] = frozenset()  # what was trusted, and is no more
        self._acknowledged_since: float | None = None
        self._waiting_since: float | None = None
        self._held: tuple[facts.Fingerprint, float] | None = None  # the CA that has yet to be trusted, and since when
        self._blocked: dict[str, tuple[facts.ConfigurationState, float]] = {}
        self._accepted: set[str] = set()
        self._injections: dict[str, tuple[Bundle, list[float]]] = {}
        self._repairs: dict[tuple[str, reasons.Reason], list[float]] = {}  # by Secret's name
        self._contested: dict[str, tuple[float, float]] = {}  # until when a Secret is left alone, and for how long
        self._unserved_since: float | None = None
        self.last_generation = 0
        """The generation of the last leaf that this instance has tried to write; the status tells it to the others."""

    def forget_waits(self) -> None:
        """The instance is not active: whoever is measures by itself."""
        self._trusted_since.clear()
        self._lost = frozenset()
        self._acknowledged_since = self._waiting_since = None
        self._held = None

    def trusted_seconds(self, now: float) -> dict[facts.Fingerprint, float]:
        """
        For how long each CA that every writable configuration trusts has been seen in each that trusts it.

        One that could not be written and trusts it at last, by whomever's hand, has to settle as well.
        """
        return {fingerprint: now - max(since for (one, _), since in self._trusted_since.items() if one == fingerprint)
                for fingerprint in {one for one, _ in self._trusted_since}}

    def acknowledged_seconds(self, now: float) -> float:
        """For how long every server has been seen to serve the leaf of the successor."""
        return now - self._acknowledged_since if self._acknowledged_since is not None else 0.0

    def waiting_seconds(self, now: float) -> float:
        """For how long that has been waited for."""
        return now - self._waiting_since if self._waiting_since is not None else 0.0

    def note(self, seen: facts.Seen, now: float) -> facts.Seen:
        """
        Take in a new look at the world, and add for how long things have held, this look included.

        ``now`` is not before the last read of it.
        """
        self._accepted &= {item.uid for item in seen.configurations}
        self._note_trust(seen, now)
        self._note_acknowledgements(seen, now)
        self._note_hold(seen, now)
        return dataclasses.replace(
            seen, trusted_seconds=self.trusted_seconds(now), acknowledged_seconds=self.acknowledged_seconds(now),
            waiting_seconds=self.waiting_seconds(now),
            held_seconds=now - self._held[1] if self._held is not None else 0.0,
            contested=frozenset(name for name, (until, _) in self._contested.items() if now < until))

    def _note_trust(self, seen: facts.Seen, now: float) -> None:
        everywhere = issuing.trusted_everywhere(seen)
        entries = {f"{item.uid}/{entry.name}": {one.fingerprint for one in entry.trusted}
                   for item in seen.configurations for entry in item.entries}
        pairs = {(one, "") for one in everywhere} | {
            (one, key) for key, trusted in entries.items() for one in everywhere & trusted}
        # Where a CA was trusted for a moment only, API servers may have loaded what was there before; so that settles.
        lost = {pair for pair in self._trusted_since.keys() - pairs if pair[0] in everywhere and pair[1] in entries}
        self._trusted_since = {
            **{pair: self._trusted_since[pair] for pair in lost},
            **{pair: now if pair in self._lost else self._trusted_since.get(pair, now) for pair in pairs}}
        self._lost = frozenset(lost)

    def _note_acknowledgements(self, seen: facts.Seen, now: float) -> None:
        if not rotation.has_switched(seen):
            self._acknowledged_since = self._waiting_since = None
            return
        self._waiting_since = now if self._waiting_since is None else self._waiting_since
        complete = seen.servers_defect is None and not (
            rotation.unacknowledged(seen) or rotation.wrong(seen) or rotation.unproven(seen))
        if not complete:
            self._acknowledged_since = None
        elif self._acknowledged_since is None:
            self._acknowledged_since = now

    def _note_hold(self, seen: facts.Seen, now: float) -> None:
        signer = rotation.next_signer(seen)
        if signer is None or not rotation.untrusting(seen, signer):
            self._held = None
        elif self._held is None or self._held[0] != signer.fingerprint:
            self._held = (signer.fingerprint, now)

    def note_refusal(
        self, uid: str, now: float, state: facts.ConfigurationState = facts.ConfigurationState.FORBIDDEN
    ) -> None:
        """The API server refused to patch this configuration; ``state``: for which kind of reason."""
        self._accepted.discard(uid)
        self._blocked[uid] = (state, now + FORBIDDEN_SECONDS)

    def note_trial(self, uid: str, state: facts.ConfigurationState, now: float) -> None:
        """
        What a trial has shown of the right to write a configuration.

        OPEN is remembered until a patch is refused; UNTRIED, when there was no answer, for a moment.
        """
        if state is facts.ConfigurationState.OPEN:
            self._accepted.add(uid)
        elif state is facts.ConfigurationState.UNTRIED:
            self._blocked[uid] = (state, now + TRY_AGAIN_SECONDS)
        else:
            self.note_refusal(uid, now, state)

    def note_injection(self, uid: str, bundle: Bundle, now: float) -> int | None:
        """
        A configuration was written; how often it was overwritten if it is now left alone for a while, else None.

        The same bundle again means that somebody has overwritten it; another bundle is no fight.
        """
        self._injections = {one: item for one, item in self._injections.items() if now - item[1][-1] < CONTEST_SECONDS}
        before, times = self._injections.get(uid, (bundle, []))
        recent = [at for at in times if now - at < CONTEST_SECONDS and before == bundle]
        self._injections[uid] = (bundle, [*recent, now])
        if len(recent) + 1 < CONTEST_INJECTIONS:
            return None
        self._blocked[uid] = (facts.ConfigurationState.CONTESTED, now + CONTEST_SECONDS)
        return len(recent)

    def note_repair(self, action: steps.Step, wanted: policy.Policy, now: float) -> str | None:
        """
        A step was carried out; in words for an Event, whose Secret is now left alone for a while, else None.

        A repair for the same reason again and again means that somebody else spoils or deletes the Secret each time.
        """
        repaired = _repaired(action, wanted)
        if repaired is None:
            return None
        name, _ = repaired
        recent = [at for at in self._repairs.get(repaired, []) if now - at < CONTEST_SECONDS]
        self._repairs[repaired] = [*recent, now]
        if len(recent) + 1 < CONTEST_REPAIRS:
            return None
        until, length = self._contested.get(name, (float("-inf"), CONTEST_SECONDS / 2))
        length = min(2 * length, LONGEST_CONTEST_SECONDS) if now - until < 2 * length else CONTEST_SECONDS
        self._contested[name] = (now + length, length)
        self._repairs[repaired] = []
        return (f"Secret {name} had to be repaired {len(recent) + 1} times within {CONTEST_SECONDS:.0f} s; it is left"
                f" alone for {length:.0f} s")

    def unserved_seconds(self, now: float, *, done: int, total: int) -> float:
        """For how long all instances have been serving another leaf than the Secret's; to be told at each look."""
        if total == 0 or done > 0:
            self._unserved_since = None
        elif self._unserved_since is None:
            self._unserved_since = now
        return now - self._unserved_since if self._unserved_since is not None else 0.0

    def seconds_until_open(self, now: float) -> list[float]:
        """When each configuration or Secret that is left alone is to be tried again."""
        dates = [*(until for _, until in self._blocked.values()), *(until for until, _ in self._contested.values())]
        return [until - now for until in dates if until > now]

    def states(self, now: float) -> collections.abc.Mapping[str, facts.ConfigurationState]:
        """What is known of configurations by uid."""
        self._blocked = {uid: item for uid, item in self._blocked.items() if item[1] > now}
        return {**dict.fromkeys(self._accepted, facts.ConfigurationState.OPEN),
                **{uid: state for uid, (state, _) in self._blocked.items()}}


def _repaired(action: steps.Step, wanted: policy.Policy) -> tuple[str, reasons.Reason] | None:
    """The name of the Secret that a step has repaired, and of what, if it has."""
    match action:
        case steps.IssueLeaf() if action.reason not in issuing.NO_DAMAGE:
            return wanted.secret_name, action.reason
        case steps.CreateAuthority():
            return wanted.authority_secret_name, action.reason
        case steps.ExtendBundle() if action.authority.bundle_damaged:
            return wanted.authority_secret_name, reasons.Reason.EXTENDING_BUNDLE
    return None
