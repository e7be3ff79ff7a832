"""
What has to hold at every step, whatever happens: the design's invariants, written independently of the core's checks.

The numbers are the design's: 1 one write a generation, 2 compare-and-swap, 3 trust before use, 4 the last good goes on,
5 no writes at rest, 9 time. Each is checked when something changes that it depends on.
"""
import collections
import datetime
from typing import TYPE_CHECKING, Any

from simulator import model, world
from steadyhook.core import election, facts, issuing, reasons, serving, steps

if TYPE_CHECKING:
    from simulator import issuer, server

ALMOST_EXPIRED = datetime.timedelta(minutes=5)
"""Clocks differ by some minutes, so about a certificate that ends so soon opinions may differ."""


LARGEST_FALL_SECONDS = issuing.BACKDATE.total_seconds() + 2 * election.LARGEST_SKEW_SECONDS
"""A generation is a time in seconds by the clock of whoever gives it, with a margin where one was lost."""

RATE_SECONDS, RATE_LIMIT = 60.0, 12
"""More leaves than this by one process are a storm of its own, whatever is done to it."""


class Violation(Exception):
    """Something that must not happen has happened."""


class Checker:
    """Is told of everything that changes, and raises :class:`Violation`."""

    def __init__(self, where: world.World) -> None:
        self.world = where
        self.writes: collections.Counter[str] = collections.Counter()
        self.last_write = 0.0
        self.leaf_reasons: collections.Counter[reasons.Reason] = collections.Counter()
        self.conflicts: list[str] = []
        self._action: steps.Step | None = None
        self._seen_versions: dict[str, int] = {}  # at which versions whoever writes has seen the objects
        self._clock = where.utc()  # of whoever writes
        self._generation = 0
        self._was_lost = False  # no leaf told its generation when one of the unrecorded was written
        self._unrecorded = 0  # generations since the last one that the status knows
        self._was_spoiled = False  # a person has written a generation into the status that no issuer gives
        self._signer: facts.Fingerprint | None = None
        self._replaced: dict[facts.Fingerprint, str | None] = {}  # who signed before a leaf that nothing hurried
        self._retired: set[facts.Fingerprint] = set()
        self._forgotten: set[facts.Fingerprint] = set()  # what no object remembers any more
        self._leaf_writes: dict[str, list[float]] = {}
        self._never_ours: set[str] = set()  # the uids of configurations that no issuer has written
        self._untouched: set[str] = set()  # the uids of configurations as they were created
        self._told: dict[str, set[facts.Fingerprint]] = {}  # what a configuration trusted when it was taken over

    def attempted(
        self, who: "issuer.Issuer", key: str, version: int, observation: "issuer.Observation",
        action: steps.Step | None,
    ) -> None:
        """A write of an issuer has arrived at the API server, which has yet to accept it."""
        if observation.versions.get(key, 0) != version or key not in {key if version == 0 else None, *who.observed}:
            raise Violation(f"2: {who.name} writes {key} as if it were at {version}; it was seen at"
                            f" {observation.versions.get(key, 0)}, and read since the last refusal at"
                            f" {who.observed.get(key)}")
        signer = action.signer if isinstance(action, steps.IssueLeaf) else (
            action.authority.successor if isinstance(action, steps.Promote) else None)
        if signer is not None and signer.fingerprint not in observation.keys:
            raise Violation(f"2: {who.name} has not seen the key of {signer.fingerprint}")
        if who.machine.is_wrong and not who.machine.clock_was_set:
            raise Violation(f"9: {who.name} writes {key} though its clock is wrong by {who.machine.skew_seconds:.0f} s")
        self._action = action
        self._seen_versions = dict(observation.versions)
        self._clock = self.world.utc(who.machine)
        current = self.world.store.get(key)
        if current is not None and key in (model.LEAF, model.AUTHORITY) and not current.value.ours and (
                current.resource_version == version) and "caFingerprint" not in self._status():
            raise Violation(f"2: {who.name} writes over {key}, which is somebody else's")
        if (current.resource_version if current else 0) != version:
            self.conflicts.append(key)

    def written(self, old: model.Object | None, new: model.Object | None) -> None:
        """The store has accepted a write, of whomever."""
        item = new or old
        assert item is not None
        by_issuer = new is not None and new.author.startswith("issuer")
        if new is not None and new.author != "people":
            self.writes[item.key] += 1
            self.last_write = self.world.now
        if by_issuer and new is not None:
            self._check_strangers(new)
        if not by_issuer:
            self._note_forgotten()
        if item.key == model.CERTIFICATE and item.value.status.get("generation", 0) >= self._generation:
            self._unrecorded = 0
        told = item.value.status.get("generation", 0) if item.key == model.CERTIFICATE else self._generation
        if item.author == "people" and (told < self._generation or told > 10**12):
            self._unrecorded, self._was_lost = max(1, self._unrecorded), True  # a person has taken it out of the status
            self._was_spoiled |= told > 10**12
        if item.key.startswith(model.CONFIGURATION):
            if by_issuer and self.world.wanted.compatibility is not None:
                raise Violation(f"2: {item.key} is the application's own to write")
            self._note_takeover(old, new, by_issuer=by_issuer)
        if item.key == model.AUTHORITY:
            if new is None:  # the status remembers, but for the last moments
                self._retired &= set(self._status().get("retiredCAs", ()))
            if new is not None and by_issuer:
                self._check_authority(old.value if old else None, new.value)
        elif item.key == model.LEAF and new is not None and by_issuer:
            self._check_rate(new.author)
            self._check_leaf(old.value if old else None, new.value, author=new.author)

    def swapped(
        self, one: "server.Server", item: model.Object | None, before: serving.Served | None
    ) -> None:
        """A server's keeper has taken a new certificate, or has dropped the one it had."""
        if one.served is None:
            raise Violation(f"4: {one.name} has dropped its certificate")
        now = one.utc()
        content: model.LeafContent | None = item.value if item else None
        new = one.served.certificate
        if content is None or content.unreadable or content.certificate.fingerprint != new.fingerprint:
            raise Violation(f"4: {one.name} serves {new.fingerprint}, which the Secret that it sees does not hold")
        if content.mark != new.fingerprint:
            raise Violation(f"1: {one.name} serves {new.fingerprint}, which is not marked ready")
        if not new.not_before <= now < new.not_after:
            raise Violation(f"4: {one.name} serves {new.fingerprint} outside of its validity")
        signers = [ca for ca in content.trusted if ca.pem == new.pem]
        if not signers:
            raise Violation(f"4: {one.name} serves {new.fingerprint}, which the Secret's ca.crt does not verify")
        if not any(ca.not_before <= now < ca.not_after for ca in signers):
            raise Violation(f"9: {one.name} serves {new.fingerprint}, whose CA is not in force")
        restored = before is not None and one.seen_seconds >= serving.TRIAL_SECONDS and (
            before.certificate.pem not in {ca.pem for ca in content.trusted})
        if before is not None and now < before.certificate.not_after and not restored and (
                one.served.generation < before.generation):
            raise Violation(f"3: {one.name} goes back from generation {before.generation} to"
                            f" {one.served.generation}")
        self.check_trust()

    def check_trust(self) -> None:
        """3: what any live server serves verifies under everything that an API server may have loaded."""
        now = self.world.utc()
        for one in self.world.live_servers():
            certificate = one.certificate
            if certificate is None or one.planted or certificate.not_after - ALMOST_EXPIRED <= now:
                continue
            if certificate.pem in self._forgotten:
                continue
            could_wait, before = certificate.fingerprint in self._replaced, {
                self._replaced.get(certificate.fingerprint)}
            for uid, views in self.world.views.items():
                if one.legacy is not None and certificate.pem not in self._told.get(uid, ()):
                    continue  # it never called this one
                for view in views:
                    if view.until <= self.world.now or view.foreign or (view.blocked and not could_wait):
                        continue
                    # Where the issuer may not write, who takes away the trust in what was served has broken it alone.
                    later = views[views.index(view):]
                    broken = [view.blocked and any(
                        not before <= one.trusted[index] for one in later if index < len(one.trusted))
                        for index in range(len(view.trusted))]
                    if any(certificate.pem not in trusted and not broken[index]
                           for index, trusted in enumerate(view.trusted)):
                        raise Violation(
                            f"3: {one.name} serves {certificate.fingerprint}, signed by {certificate.pem}, but of"
                            f" configuration {uid} an API server may have loaded"
                            f" {[sorted(trusted) for trusted in view.trusted]}")

    def _status(self) -> dict[str, Any]:
        status: dict[str, Any] = self.world.store.objects[model.CERTIFICATE].value.status
        return status

    def _check_strangers(self, new: model.Object) -> None:
        """What somebody has only put in the way of an issuer is trusted nowhere."""
        trusted: list[facts.Certificate] = []
        if new.key == model.AUTHORITY:
            trusted = list(new.value.bundle)
        elif new.key == model.LEAF:
            trusted = list(new.value.trusted)
        elif new.key.startswith(model.CONFIGURATION):
            trusted = [one for entry in new.value for one in entry.trusted]
        if new.key == model.AUTHORITY and self.world.wanted.compatibility is not None and (
                "trustedCAs" not in self._status()):
            # Lost before any status was written: what the application's objects trust is all that is left to go by.
            self.world.strangers -= {item.fingerprint for item in trusted}
        strangers = (self.world.strangers | self.world.overwritten) & {item.fingerprint for item in trusted}
        if strangers:
            raise Violation(f"3: {new.author} lets {new.key} trust {sorted(strangers)[:3]}, which are strangers")

    def _check_rate(self, author: str) -> None:
        """5: a fight over the leaf Secret is not fought for ever."""
        process = f"{author}/{next(peer.starts for peer in self.world.issuers if peer.name == author)}"
        recent = [at for at in self._leaf_writes.get(process, []) if self.world.now - at < RATE_SECONDS]
        self._leaf_writes[process] = [*recent, self.world.now]
        if len(recent) + 1 > RATE_LIMIT:
            raise Violation(f"5: {author} has written the leaf {len(recent) + 1} times within {RATE_SECONDS:.0f} s")

    @property
    def is_unrecorded(self) -> bool:
        """Whether there was a generation that no status has known."""
        return self._unrecorded > 0

    def restored(self) -> None:
        """The whole store was put back: nobody remembers what came after."""
        leaf, authority = self.world.store.get(model.LEAF), self.world.store.get(model.AUTHORITY)
        self._generation = (leaf.value.generation or 0) if leaf else 0
        self._retired = set(authority.value.retired) if authority else set()
        self._signer = leaf.value.certificate.pem if leaf else None
        self._unrecorded = int(self._status().get("generation", 0) < self._generation)
        self._note_forgotten()

    def _note_forgotten(self) -> None:
        """
        Where both Secrets and every configuration have lost a CA, nobody can bring it back; nor where a listener has
        made one of its own in the place of one that was lost, which the application copies.
        """
        leaf, authority = self.world.store.get(model.LEAF), self.world.store.get(model.AUTHORITY)
        remembered = {*(leaf.value.trusted if leaf else ()), *(authority.value.bundle if authority else ())}
        if authority is not None:
            remembered |= {authority.value.certificate, authority.value.successor}
        made_by_a_listener = authority is not None and authority.author in self.world.servers
        for item in () if made_by_a_listener else self.world.store.list(model.CONFIGURATION):
            remembered |= {one for entry in item.value for one in entry.trusted}
        names = {item.pem for item in remembered if item is not None}
        self._forgotten |= {one.certificate.pem for one in self.world.live_servers()
                            if one.certificate is not None and one.certificate.pem not in names}

    def _note_takeover(self, old: model.Object | None, new: model.Object | None, *, by_issuer: bool) -> None:
        """What a configuration trusts when it is first written by an issuer, that one has been told."""
        if old is None and new is not None:
            self._never_ours.add(new.uid)
        if by_issuer and old is not None and old.uid in self._never_ours:
            self._never_ours.discard(old.uid)
            ours = any(one["uid"] == old.uid and one.get("ours") for one in self._status().get("configurations", ()))
            if not ours and not all(entry.readable for entry in old.value):
                raise Violation(f"3: {old.key} is taken over though some of what it trusts cannot be read")
        if old is None and new is not None:
            self._untouched.add(new.uid)
        elif old is not None and old.uid in self._untouched:
            self._untouched.discard(old.uid)
            if by_issuer:
                told = {one.pem for entry in old.value for one in entry.trusted}
                self._told[old.uid] = told
                self._forgotten -= told

    def unsettled(self, who: "issuer.Issuer", decision: issuing.Decision) -> None:
        raise Violation(f"5: the decisions of {who.name} lead nowhere; the last was {decision.reason}")

    def _check_leaf(self, old: model.LeafContent | None, new: model.LeafContent, *, author: str) -> None:
        assert isinstance(self._action, steps.IssueLeaf)
        certificate = new.certificate
        if new.mark != certificate.fingerprint or new.generation is None:
            raise Violation(f"1: {certificate.fingerprint} is written without its mark or generation")
        if new.generation <= self._generation:
            known = self.world.store.objects[model.CERTIFICATE].value.status.get("generation", 0)
            restored = old is not None and old.generation == known  # it is just what the status knows
            soon = self._generation - new.generation <= LARGEST_FALL_SECONDS or self._was_spoiled
            if not (self._unrecorded and (self._was_lost or restored) and soon):
                raise Violation(f"1: generation {new.generation} follows {self._generation}")
            # No status knew of the last one, which was lost after another, or for a backup. Servers that serve it
            # refuse this one as older; that they say so has to bring a person to ask for another leaf.
            self.world.note("checker", "forgives", f"generation {new.generation} follows {self._generation}")
            self.world.was_restored = True
        authority = self.world.store.get(model.AUTHORITY)
        held: model.AuthorityContent | None = authority.value if authority else None
        if held is not None and held.certificate is not None and certificate.pem == held.certificate.pem and (
                held.successor is not None and self._signer == held.successor.pem != certificate.pem):
            raise Violation(f"3: the leaf goes back from {self._signer} to {certificate.pem}")
        kept = {one.pem for one in held.bundle} if held is not None else set()
        made_by = next((peer for peer in self.world.issuers if peer.name == author), None)
        signers = [one for one in (held.bundle if held is not None else ()) if one.pem == certificate.pem]
        if made_by is not None and signers and not any(
                one.not_before <= self.world.utc(made_by.machine) for one in signers):
            raise Violation(f"9: {author} signs with {certificate.pem}, which has yet to begin by its own clock")
        if certificate.pem in {self.world.mint.keys[one] for one in self._retired} - kept:
            raise Violation(f"3: a leaf is signed by {certificate.pem}, which has been retired")
        if self._action.reason in (reasons.Reason.SWITCHING, reasons.Reason.SIGNER_REPLACED) and old is not None and (
                self._clock < old.certificate.not_after - self.world.wanted.renew_before):
            self._check_breaking(self._action.signer)
        self._generation = new.generation
        status = self.world.store.objects[model.CERTIFICATE].value.status
        lost = old is None or (old.generation or 0) < max(1, status.get("generation", 0))
        self._was_lost = lost or (self._was_lost and self._unrecorded > 0)
        self._unrecorded += 1
        if certificate.pem != self._signer and self._action.reason in (
                reasons.Reason.SWITCHING, reasons.Reason.SIGNER_REPLACED):
            self._replaced[certificate.fingerprint] = self._signer
        self._signer = certificate.pem
        self.leaf_reasons[self._action.reason] += 1

    def _check_breaking(self, signer: facts.Certificate) -> None:
        """3: whoever was seen to trust what has signed until now is not broken by another signer, whosever it is."""
        for item in self.world.store.list(model.CONFIGURATION):
            if self._seen_versions.get(item.key) != item.resource_version:
                continue  # changed since the look
            for entry in item.value:
                trusted = {one.pem for one in entry.trusted}
                if self._signer in trusted and signer.pem not in trusted:
                    raise Violation(f"3: {signer.fingerprint} is to sign, but {item.key} trusts only {sorted(trusted)}")

    def _check_promotion(self, old: model.AuthorityContent | None, new: model.AuthorityContent) -> None:
        """3: the present CA makes room for one that signs; also for one that has its key."""
        leaf = self.world.store.get(model.LEAF)
        if old is None or old.certificate is None or old.certificate in new.bundle or leaf is None or (
                leaf.value.unreadable or self._seen_versions.get(model.LEAF) != leaf.resource_version):
            return
        if new.certificate not in leaf.value.trusted:
            raise Violation(f"3: {old.certificate.fingerprint} leaves, but no leaf has come with its successor")

    def _check_authority(self, old: model.AuthorityContent | None, new: model.AuthorityContent) -> None:
        now = self.world.utc()
        kept = {item.fingerprint for item in new.bundle}
        if new.certificate is not None and new.certificate.fingerprint not in kept:
            raise Violation(f"3: the bundle lacks the signer {new.certificate.fingerprint}")
        if old is not None and old.successor is not None and old.successor not in (new.successor, new.certificate):
            raise Violation(f"3: the successor {old.successor.fingerprint} is dropped")
        if isinstance(self._action, steps.Switch) and new.successor is not None:
            self._check_breaking(new.successor)
        if isinstance(self._action, steps.Promote):
            self._check_promotion(old, new)
            self._retired = (self._retired | set(new.retired)) - kept
        elif old is not None:
            gone = {item.fingerprint for item in old.bundle
                    if item.not_after - ALMOST_EXPIRED > now} - kept
            if gone and not old.bundle_unreadable:
                raise Violation(f"3: the bundle loses {sorted(gone)}")
        if isinstance(self._action, steps.CreateAuthority | steps.AddSuccessor) and self._action.provided is not None:
            self._retired.discard(self._action.provided.fingerprint)  # the user wants it to sign once more
        back = self._retired & kept
        if back:
            raise Violation(f"3: what was retired comes back: {sorted(back)}")


def at_rest(where: world.World) -> str | None:
    """What keeps the world from the state that everything has to end in, or None."""
    leaf, authority = where.store.get(model.LEAF), where.store.get(model.AUTHORITY)
    if leaf is None or authority is None:
        return "a Secret is missing"
    content: model.LeafContent = leaf.value
    held: model.AuthorityContent = authority.value
    if where.wanted.compatibility is not None and not (content.static and held.static):
        return "a Secret is not static"
    for one in where.live_servers():
        if one.certificate is None or one.certificate.fingerprint != content.certificate.fingerprint:
            return f"{one.name} does not serve the Secret's leaf"
    if held.has_successor:
        return "a rotation has not ended"
    if held.certificate is None or content.certificate.pem != held.certificate.pem:
        return "the leaf is not signed by the CA"
    own = where.store.get(model.PROVIDED)
    if own is not None and held.certificate != own.value:
        return "the CA is not the user's own"
    bundle = {item.fingerprint for item in held.bundle}
    for item in where.store.list(model.CONFIGURATION):
        if item.key in where.never:
            continue
        if any({one.fingerprint for one in entry.trusted} != bundle or not entry.readable for entry in item.value):
            return f"{item.key} does not carry the bundle"
    status = where.store.objects[model.CERTIFICATE].value.status
    forbidden = any({one.fingerprint for one in entry.trusted} != bundle
                    for item in where.store.list(model.CONFIGURATION) if item.key in where.never
                    for entry in item.value)
    good = {"Ready": "True", "Injected": "False" if forbidden else "True"}
    untrue = [item["type"] for item in status.get("conditions", ())
              if item["status"] != good.get(item["type"], "False")]
    if untrue or not status:
        return f"the status is not that of rest: {untrue}"
    active = [peer.name for peer in where.issuers if peer.role == "active"]
    if not active or (len(active) > 1 and all(abs(peer.machine.skew_seconds) < 3 for peer in where.issuers)):
        return f"active are {active}"
    return None


def minimal(where: world.World) -> str | None:
    """After a rotation that nothing has disturbed, only the new CA is trusted."""
    held: model.AuthorityContent = where.store.objects[model.AUTHORITY].value
    trusted = sorted(item.fingerprint for item in held.bundle)
    return None if len(trusted) == 1 else f"the bundle is not minimal: {trusted}"
