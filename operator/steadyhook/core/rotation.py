"""
Rotation of the CA: rows 4 to 6 of the issuer's table, each step safe by itself and found again after any crash.

::

    NotRotating --due or asked for--> Distributing: the next CA is in the bundle, every configuration gets it
        ^                                 | everywhere, and settled
        |                             Switching: written down, then the leaf is signed by the next CA
        |                                 | written
        |                             Acknowledging: every server serves it, or its pod is gone
        |                                 | all, seen on the wire, and settled
        +------- the old CA leaves ---- Retiring

Where it stands is in the CA Secret: a successor, and whether it signs already. It never goes backwards.
"""
import datetime

from steadyhook.core import bounds, facts, policy, reasons

DEADLINE_SECONDS = 6 * 3600.0
"""After so long without all trust or every acknowledgement the wait is overdue; it goes on: CAs overlap for weeks."""


def is_due(seen: facts.Seen, wanted: policy.Policy, now: datetime.datetime) -> facts.Defect | None:
    """Why the CA has to be rotated, or None. Needs a usable CA without a successor."""
    assert seen.authority is not None and seen.authority.certificate is not None
    certificate = seen.authority.certificate
    if wanted.authority_name is not None:  # its life is the user's to plan; a new one in the Secret is taken over
        if seen.provided is None or seen.provided.fingerprint == certificate.fingerprint:
            return None
        if not seen.provided.has_begun(now):  # prepared; its time will come
            return None
        return facts.Defect(reason=reasons.Reason.PROVIDED_CHANGED,
                            message=f"Secret {wanted.authority_name} holds another CA")
    if now >= certificate.not_after - wanted.ca_renew_before:
        return facts.Defect(reason=reasons.Reason.RENEWAL_DUE,
                            message=f"the CA ends at {certificate.not_after:%Y-%m-%dT%H:%M:%SZ}")
    if seen.authority.successor_damaged:
        return facts.Defect(reason=reasons.Reason.NOT_PEM, message="the next CA in the CA Secret is damaged")
    if wanted.rotate_authority is not None and wanted.rotate_authority != seen.authority.request:
        return facts.Defect(reason=reasons.Reason.REQUESTED,
                            message=f"{policy.ROTATE_AUTHORITY} asks for it ({wanted.rotate_authority!r})")
    return None


def has_switched(seen: facts.Seen) -> bool:
    """Whether leaves have to be signed by the successor already."""
    successor = seen.authority.successor if seen.authority else None
    if successor is None:
        return False
    assert seen.authority is not None
    if seen.authority.switched or seen.last_signer == successor.fingerprint:
        return True
    return is_by_successor(seen) and not _is_by_present(seen)


def is_by_successor(seen: facts.Seen) -> bool:
    """
    Whether the leaf in the Secret was signed by the successor.

    A successor with the key of the present CA (a CA that was renewed) verifies the former leaf as well; but that leaf
    does not come with it.
    """
    successor = seen.authority.successor if seen.authority else None
    if successor is None or seen.leaf is None or seen.leaf.defect is not None:
        return False
    if successor.fingerprint not in seen.leaf.signers:
        return False
    return not _is_by_present(seen) or any(item.fingerprint == successor.fingerprint for item in seen.leaf.trusted)


def _is_by_present(seen: facts.Seen) -> bool:
    present = seen.authority.certificate if seen.authority else None
    return present is not None and seen.leaf is not None and present.fingerprint in seen.leaf.signers


def signer(seen: facts.Seen) -> facts.Certificate | None:
    """The CA that signs now: the present one, or after the switch the next one; never backwards."""
    if seen.authority is None:
        return None
    return seen.authority.successor if has_switched(seen) else seen.authority.certificate


def in_use(seen: facts.Seen) -> frozenset[facts.Fingerprint]:
    """The CAs that clients need now: those that verify the leaf in the Secret, and the last one that is known of."""
    signers = seen.leaf.signers if seen.leaf else frozenset()
    return signers | (frozenset({seen.last_signer}) if seen.last_signer else frozenset())


def untrusting(seen: facts.Seen, certificate: facts.Certificate) -> tuple[facts.Configuration, ...]:
    """
    The configurations, also those that cannot be written, that a leaf by the certificate would break.

    Such a configuration has an entry that trusts a CA in use and does not trust the certificate. An entry that trusts
    no CA in use is broken already, or was never ours: anyone can ask for the bundle by annotation, or call the Service,
    and holds up nothing by that.
    """
    used = in_use(seen)
    return tuple(
        item for item in seen.configurations if any(_breaks(entry, certificate, used) for entry in item.entries))


def _breaks(entry: facts.Entry, certificate: facts.Certificate, used: frozenset[facts.Fingerprint]) -> bool:
    trusted = {item.fingerprint for item in entry.trusted}
    return certificate.fingerprint not in trusted and bool(trusted & used)


def next_signer(seen: facts.Seen) -> facts.Certificate | None:
    """The CA that signs the next leaf, or that will sign as soon as it is trusted everywhere."""
    if seen.authority is not None and seen.authority.successor is not None:
        return seen.authority.successor
    return signer(seen)


def is_held_too_long(seen: facts.Seen) -> bool:
    """Whether a person has to look at why the next signer is not trusted. The wait goes on: only a person ends it."""
    return seen.held_seconds >= DEADLINE_SECONDS


def holding(configurations: tuple[facts.Configuration, ...], *, remedy: bool) -> str:
    """In words, the configurations that the next signer waits for, and with ``remedy`` how a person ends the wait."""
    names = bounds.listing([f"{item.kind} {item.name}" for item in configurations])
    if not remedy:
        return names
    read_only = any(item.state is facts.ConfigurationState.READ_ONLY for item in configurations)
    way = ("restart the application, which copies the CAs, or write the CAs of the CA Secret into caBundle by hand; if"
           " the object need not call this webhook, delete it or empty its caBundle" if read_only else
           "let the issuer patch it, or write the trust bundle into caBundle by hand; if the object need not call this"
           " webhook, remove its annotation steadyhook.io/inject-ca-from")
    return (f"{names}, for more than {DEADLINE_SECONDS / 3600:.0f} hours; calls from there work now, and would fail"
            f" with a leaf by the new CA, so the wait goes on: {way}")


def unacknowledged(seen: facts.Seen) -> tuple[facts.Server, ...]:
    """
    The servers that do not say that they serve the Secret's leaf; all of them as long as that is not the successor's.

    For one that says nothing at all, because it is no instance of ours, what was seen on the wire counts.
    """
    served = None
    if seen.leaf is not None and seen.leaf.certificate is not None and is_by_successor(seen):
        served = seen.leaf.certificate.fingerprint
    return tuple(item for item in seen.servers if served is None or (
        item.proof is not facts.Proof.GOOD if item.fingerprint is None else item.fingerprint != served))


def wrong(seen: facts.Seen) -> tuple[facts.Server, ...]:
    """The servers that were seen to serve something that would not be trusted afterwards."""
    return tuple(item for item in seen.servers if item.proof is facts.Proof.WRONG)


def unproven(seen: facts.Seen) -> tuple[facts.Server, ...]:
    """The servers that nobody has looked at on the wire yet."""
    return tuple(item for item in seen.servers if item.proof is None)


def unreachable(seen: facts.Seen) -> tuple[facts.Server, ...]:
    """The servers that could not be looked at; their word has to do."""
    return tuple(item for item in seen.servers if item.proof is facts.Proof.UNREACHABLE)


def to_be_proven(seen: facts.Seen) -> tuple[facts.Server, ...]:
    """Whom to look at on the wire now: first those that say nothing, and everyone before the old CA leaves."""
    if not has_switched(seen):
        return ()
    silent = tuple(item for item in seen.servers if item.fingerprint is None)
    talking = [item for item in unacknowledged(seen) if item.fingerprint is not None]
    return silent if talking else seen.servers


def phase(seen: facts.Seen) -> reasons.Reason:
    """The name of the phase that the objects are in, whatever is being done at the moment."""
    if seen.authority is None or seen.authority.successor is None:
        return reasons.Reason.NOT_ROTATING
    if not has_switched(seen):
        return reasons.Reason.DISTRIBUTING
    waiting = unacknowledged(seen) or not is_by_successor(seen) or seen.servers_defect is not None
    return reasons.Reason.ACKNOWLEDGING if waiting else reasons.Reason.RETIRING


def progress(seen: facts.Seen) -> str:
    """How far the acknowledgements have come, with the first names that are waited for."""
    missing = unacknowledged(seen)
    text = f"{len(seen.servers) - len(missing)}/{len(seen.servers)} acknowledged"
    if not missing:
        return text
    return f"{text}, waiting for {bounds.listing([_describe(item) for item in missing])}"


def _describe(server: facts.Server) -> str:
    """The name, and for one that says nothing and cannot be looked at, why the wait may have no end."""
    if not is_dark(server):
        return server.name
    what = "could not be dialed" if server.proof is facts.Proof.UNREACHABLE else "is not dialed (STEADYHOOK_DIAL=off)"
    return f"{server.name} ({what} at {server.address})"


def is_dark(server: facts.Server) -> bool:
    """Whether it is an endpoint that says nothing of itself and was not seen on the wire either."""
    return server.fingerprint is None and server.address is not None and server.proof in (
        facts.Proof.UNREACHABLE, facts.Proof.SKIPPED)
