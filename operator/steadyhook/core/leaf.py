"""The checks of a leaf Secret that the issuer and the servers share: named, in order, the first failure wins."""
import collections.abc
import datetime

from steadyhook.core import facts, reasons

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
    if leaf.generation is None and not leaf.adopted:
        return _defect(reasons.Reason.GENERATION_MISSING, leaf, "has no generation, so that a restored backup could"
                       " not be told from it")
    return None


def signed_by_its_bundle(leaf: facts.Leaf, now: datetime.datetime) -> facts.Defect | None:
    if leaf.adopted:  # it carries no bundle; who has signed it is seen from the CA Secret
        return None
    if not leaf.signers & {item.fingerprint for item in leaf.trusted}:
        return _defect(reasons.Reason.FOREIGN_SIGNER, leaf, "holds a leaf that no CA certificate in its ca.crt"
                       " verifies")
    return None


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


def covers(dns_names: frozenset[str], wanted: str) -> bool:
    """Whether a certificate for these names is good for the wanted one; a wildcard stands for one label (RFC 6125)."""
    return wanted in dns_names or f"*.{wanted.partition('.')[2]}" in dns_names


def _defect(reason: reasons.Reason, leaf: facts.Leaf, what: str) -> facts.Defect:
    return facts.Defect(reason=reason, message=f"Secret {leaf.secret.name} {what}")
