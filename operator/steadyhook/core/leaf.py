"""The checks of a leaf Secret that the issuer and the servers share: named, in order, the first failure wins."""
import collections.abc
import datetime

from steadyhook.core import facts, reasons

FARTHEST = datetime.timedelta(days=3653)
"""A generation is a time in seconds; one that is so far ahead was not written by an issuer."""

Check = collections.abc.Callable[[facts.Leaf, datetime.datetime], facts.Defect | None]


def readable(leaf: facts.Leaf, now: datetime.datetime) -> facts.Defect | None:
    return leaf.defect


def marked_ready(leaf: facts.Leaf, now: datetime.datetime) -> facts.Defect | None:
    """The mark names the very leaf: a half-written, hand-edited or foreign content is not marked."""
    assert leaf.certificate is not None
    if leaf.adopted:
        return None
    if leaf.ready_mark is None:
        return _defect(reasons.Reason.NOT_MARKED_READY, leaf, "has no ready mark; it is not served before the issuer"
                       " has marked it")
    if leaf.ready_mark != leaf.certificate.fingerprint:
        return _defect(reasons.Reason.READY_MARK_STALE, leaf, f"is marked ready for the leaf {leaf.ready_mark[:16]},"
                       f" but holds {leaf.certificate.fingerprint[:16]}")
    return None


def numbered(leaf: facts.Leaf, now: datetime.datetime) -> facts.Defect | None:
    if leaf.adopted or sane_generation(leaf.generation, now) is not None:
        return None
    found = "no generation" if leaf.generation is None else f"the generation {leaf.generation}, which no issuer gives"
    return _defect(reasons.Reason.GENERATION_MISSING, leaf, f"has {found}, so that a restored backup could not be told"
                   " from it")


def signed_by_its_bundle(leaf: facts.Leaf, now: datetime.datetime) -> facts.Defect | None:
    if leaf.adopted:  # it carries no bundle; who has signed it is seen from the CA Secret
        return None
    signers = own_signers(leaf)
    if not signers:
        return _defect(reasons.Reason.FOREIGN_SIGNER, leaf, "holds a leaf that no CA certificate in its ca.crt"
                       " verifies")
    if any(item.not_before <= now < item.not_after for item in signers):
        return None
    begins = min(item.not_before for item in signers)
    if now < begins:
        return _defect(reasons.Reason.NOT_YET_VALID, leaf,
                       f"holds a leaf whose CA is valid only from {begins:%Y-%m-%dT%H:%M:%SZ} on")
    return _defect(reasons.Reason.EXPIRED, leaf, "holds a leaf whose CA has expired")


def in_force(leaf: facts.Leaf, now: datetime.datetime) -> facts.Defect | None:
    assert leaf.certificate is not None
    if now >= leaf.certificate.not_after:
        return _defect(reasons.Reason.EXPIRED, leaf, f"expired at {leaf.certificate.not_after:%Y-%m-%dT%H:%M:%SZ}")
    if now < leaf.certificate.not_before:
        return _defect(reasons.Reason.NOT_YET_VALID, leaf,
                       f"is valid only from {leaf.certificate.not_before:%Y-%m-%dT%H:%M:%SZ} on")
    return None


CHECKS: tuple[Check, ...] = (readable, marked_ready, numbered, signed_by_its_bundle, in_force)


def first_defect(leaf: facts.Leaf, now: datetime.datetime) -> facts.Defect | None:
    """The first thing that is wrong with the leaf Secret for everyone, or None."""
    return next((defect for check in CHECKS if (defect := check(leaf, now)) is not None), None)


def own_signers(leaf: facts.Leaf) -> tuple[facts.Certificate, ...]:
    """The CA certificates in the Secret itself that verify the leaf."""
    return tuple(item for item in leaf.trusted if item.fingerprint in leaf.signers)


def begins(leaf: facts.Leaf) -> datetime.datetime | None:
    """When the leaf and its CA are in force, or None if nothing is known of that."""
    if leaf.certificate is None:
        return None
    signers = [item.not_before for item in own_signers(leaf)]
    return max(leaf.certificate.not_before, min(signers, default=leaf.certificate.not_before))


def sane_generation(value: object, now: datetime.datetime) -> int | None:
    """The generation, if it is one that an issuer may have given: else a leaf would be written anew for ever."""
    if not isinstance(value, int) or isinstance(value, bool):
        return None
    return value if 0 < value <= int((now + FARTHEST).timestamp()) else None


def last_generation(told: object, tried: int, now: datetime.datetime) -> int:
    """The last one that is known to have been given: ``told`` by the status, ``tried`` by this instance itself."""
    return max(sane_generation(told, now) or 0, tried)


def covers(dns_names: frozenset[str], wanted: str) -> bool:
    """Whether a certificate for these names is good for the wanted one; a wildcard stands for one label (RFC 6125)."""
    return wanted in dns_names or f"*.{wanted.partition('.')[2]}" in dns_names


def _defect(reason: reasons.Reason, leaf: facts.Leaf, what: str) -> facts.Defect:
    return facts.Defect(reason=reason, message=f"Secret {leaf.secret.name} {what}")
