"""
What the issuer does next: a total function of what was seen, the policy and the time.

::

    0. (Dynamiclistener) a Secret is not static -> freeze it
    1. no usable CA                             -> create it (or let the successor take its place)
    2. a configuration lacks the bundle         -> inject it
    3. the leaf is missing, damaged or due      -> write leaf and ready mark, once its signer is trusted
    4. the CA is due, or a rotation is asked for -> add a successor to the CA Secret and to the bundle
    5. the successor is trusted everywhere      -> write that down, then a leaf that it has signed
    6. every server serves that                 -> the old CA leaves
    7. else nothing, and when to look again

Each decision holds only steps that are safe now; after them the world is observed again. Trust comes before use:
the CA Secret knows a CA before it is injected, and it is injected before a leaf signed by it is written.
"""
import collections.abc
import dataclasses
import datetime

from steadyhook.core import facts, leaf, policy, reasons, rotation, steps

LOOK_AGAIN = datetime.timedelta(seconds=5)
"""How soon to look again for pods that are gone, of which nothing tells."""

BACKDATE = datetime.timedelta(minutes=5)
"""How far in the past a certificate's validity starts, to bear the clock skew between machines."""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Decision:
    """The steps to take, in this order, why, and when to look again if nothing happens before (None: no date)."""

    actions: tuple[steps.Step, ...] = ()
    reason: reasons.Reason
    message: str
    wake_at: datetime.datetime | None = None


def decide(seen: facts.Seen, wanted: policy.Policy, now: datetime.datetime) -> Decision:
    """Decide about one certificate. Same input, same output; never raises."""
    bundle = trust_bundle(seen, now)
    for step in (_freeze, _authority, _bundle, _injection, _leaf, _succession, _switch, _retirement):
        decision = step(seen, wanted, bundle, now)
        if decision is not None:
            return decision
    assert seen.leaf is not None and seen.leaf.certificate is not None and seen.authority is not None
    return Decision(
        reason=reasons.Reason.UP_TO_DATE,
        message=("the adopted leaf" if seen.leaf.adopted else f"generation {seen.leaf.generation}")
        + f" is good until {seen.leaf.certificate.not_after:%Y-%m-%dT%H:%M:%SZ}",
        wake_at=min(_renewal_time(seen, wanted), *_rotation_times(seen, wanted)),
    )


def trust_bundle(seen: facts.Seen, now: datetime.datetime) -> tuple[facts.Certificate, ...]:
    """
    What has to be trusted: it only grows, but for what the last step of a rotation has retired.

    The union of the CA Secret's bundle, of the CA certificates in the leaf Secret, and of what a configuration
    trusted when it was taken over. What somebody else writes into a configuration later is not taken in, unless the
    CA Secret is lost: then the configurations may be the only ones that still know what is served.
    """
    lost = authority_defect(seen, now) is not None or (seen.authority is not None and seen.authority.bundle_damaged)
    trusted = [
        *(seen.authority.bundle if seen.authority else ()),
        *(seen.leaf.trusted if seen.leaf else ()),
        *(item for configuration in seen.configurations if lost or configuration.is_taken_over
          for entry in configuration.entries for item in entry.trusted),
    ]
    retired = _retired(seen)
    unique = {item.fingerprint: item for item in trusted if item.not_after > now and item.fingerprint not in retired}
    return tuple(sorted(unique.values(), key=lambda item: (item.not_before, item.fingerprint)))


def _retired(seen: facts.Seen) -> frozenset[facts.Fingerprint]:
    """What must not come back, unless it signs once more."""
    if seen.authority is None:
        return frozenset()
    signers = {item.fingerprint for item in (seen.authority.certificate, seen.authority.successor) if item is not None}
    return seen.authority.retired - signers


def authority_defect(seen: facts.Seen, now: datetime.datetime) -> facts.Defect | None:
    """Why the CA Secret cannot sign, or None."""
    if seen.authority is None:
        return facts.Defect(reason=reasons.Reason.SECRET_MISSING, message="there is no CA Secret")
    if seen.authority.defect is not None:
        return seen.authority.defect
    assert seen.authority.certificate is not None
    if now >= seen.authority.certificate.not_after:
        return facts.Defect(reason=reasons.Reason.EXPIRED, message="the CA certificate has expired")
    return None


def leaf_defect(
    seen: facts.Seen, wanted: policy.Policy, now: datetime.datetime
) -> facts.Defect | None:
    """Why the leaf has to be written anew, or None. Needs a usable CA."""
    if seen.leaf is None:
        return facts.Defect(reason=reasons.Reason.SECRET_MISSING, message=f"Secret {wanted.secret_name} does not exist")
    return next((defect for check in _LEAF_CHECKS if (defect := check(seen, wanted, now)) is not None), None)


def _freeze(
    seen: facts.Seen, wanted: policy.Policy, bundle: tuple[facts.Certificate, ...], now: datetime.datetime
) -> Decision | None:
    if wanted.compatibility is not policy.Compatibility.DYNAMICLISTENER:
        return None
    free = to_freeze(item.secret for item in (seen.leaf, seen.authority) if item is not None)
    if not free:
        return None
    return Decision(
        actions=(steps.Freeze(secrets=free),),
        reason=reasons.Reason.FREEZING,
        message="listeners shall leave alone " + " and ".join(f"Secret {item.name}" for item in free))


def to_freeze(secrets: collections.abc.Iterable[facts.Secret]) -> tuple[facts.Secret, ...]:
    """Those of the Secrets of a listener that it may still write; nothing else has to be known for that."""
    return tuple(item for item in secrets if not item.static)


def _authority(
    seen: facts.Seen, wanted: policy.Policy, bundle: tuple[facts.Certificate, ...], now: datetime.datetime
) -> Decision | None:
    defect = authority_defect(seen, now)
    if defect is None:
        return None
    if seen.authority is not None and seen.authority.successor is not None:
        return _promote(seen, bundle, f"the present CA cannot sign: {defect.message}")
    if wanted.authority_name is not None and seen.provided is None:
        assert seen.provided_defect is not None
        return Decision(reason=reasons.Reason.PROVIDED_UNUSABLE, message=seen.provided_defect.message)
    replaces = seen.authority.secret if seen.authority else None
    return Decision(
        actions=(steps.CreateAuthority(
            replaces=replaces, bundle=bundle, reason=defect.reason, request=wanted.rotate_authority,
            retired=seen.authority.retired if seen.authority else frozenset(), provided=seen.provided),),
        reason=reasons.Reason.CREATING_AUTHORITY,
        message=f"creating a CA: {defect.message}",
    )


def _bundle(
    seen: facts.Seen, wanted: policy.Policy, bundle: tuple[facts.Certificate, ...], now: datetime.datetime
) -> Decision | None:
    assert seen.authority is not None
    missing = {item.fingerprint for item in bundle} - {item.fingerprint for item in seen.authority.bundle}
    if not missing and not seen.authority.bundle_damaged:
        return None
    return Decision(
        actions=(steps.ExtendBundle(authority=seen.authority, bundle=bundle),),
        reason=reasons.Reason.EXTENDING_BUNDLE,
        message="the trust bundle is damaged" if seen.authority.bundle_damaged
        else f"{len(missing)} more CA certificate(s) in use join the trust bundle",
    )


def _injection(
    seen: facts.Seen, wanted: policy.Policy, bundle: tuple[facts.Certificate, ...], now: datetime.datetime
) -> Decision | None:
    lacking = [item for item in writable(seen) if lacks(item, bundle)]
    if not lacking:
        return None
    return Decision(
        actions=tuple(steps.InjectBundle(configuration=item, bundle=bundle) for item in lacking),
        reason=reasons.Reason.INJECTING,
        message="injecting the trust bundle into " + ", ".join(f"{item.kind} {item.name}" for item in lacking),
    )


def _leaf(
    seen: facts.Seen, wanted: policy.Policy, bundle: tuple[facts.Certificate, ...], now: datetime.datetime
) -> Decision | None:
    defect = leaf_defect(seen, wanted, now)
    if defect is None:
        return None
    assert seen.authority is not None and seen.authority.certificate is not None
    signer = seen.authority.certificate
    if seen.authority.successor is not None and rotation.has_switched(seen):
        signer = seen.authority.successor  # never backwards
    lacking = rotation.untrusting(seen, signer)
    waits = defect.reason in (reasons.Reason.SIGNER_REPLACED, reasons.Reason.SWITCHING)
    if lacking and waits and _not_due(seen, wanted, now) is None:
        # What is served is still good everywhere, so there is time to wait for those that cannot be written as well.
        return Decision(
            reason=reasons.Reason.PENDING, message=f"{defect.message}, which has yet to be trusted by "
            + ", ".join(f"{item.kind} {item.name}" for item in lacking))
    wait_seconds = _unsettled_seconds(seen, wanted, signer, bundle)
    if wait_seconds > 0:
        return Decision(
            reason=reasons.Reason.SETTLING,
            message=f"{defect.message}; its CA is new, and the API servers get settleSeconds to load the bundle",
            wake_at=now + datetime.timedelta(seconds=wait_seconds),
        )
    return Decision(
        actions=(_issue(seen, wanted, signer, bundle, defect.reason, now),),
        reason=reasons.Reason.ISSUING_LEAF,
        message=f"issuing a leaf: {defect.message}",
    )


def _issue(
    seen: facts.Seen, wanted: policy.Policy, signer: facts.Certificate, bundle: tuple[facts.Certificate, ...],
    reason: reasons.Reason, now: datetime.datetime,
) -> steps.IssueLeaf:
    return steps.IssueLeaf(
        replaces=seen.leaf.secret if seen.leaf else None, signer=signer, bundle=bundle,
        generation=_next_generation(seen, now), reason=reason, request=wanted.rotate_leaf)


def _succession(
    seen: facts.Seen, wanted: policy.Policy, bundle: tuple[facts.Certificate, ...], now: datetime.datetime
) -> Decision | None:
    assert seen.authority is not None
    if seen.authority.successor is not None:
        return None
    due = rotation.is_due(seen, wanted, now)
    if due is None:
        return None
    return Decision(
        actions=(steps.AddSuccessor(authority=seen.authority, bundle=bundle, request=wanted.rotate_authority,
                                    provided=seen.provided),),
        reason=reasons.Reason.STARTING_ROTATION,
        message=f"a new CA joins the trust bundle: {due.message}",
    )


def _switch(
    seen: facts.Seen, wanted: policy.Policy, bundle: tuple[facts.Certificate, ...], now: datetime.datetime
) -> Decision | None:
    assert seen.authority is not None
    successor = seen.authority.successor
    if successor is None or rotation.has_switched(seen):
        return None
    lacking = rotation.untrusting(seen, successor)
    if lacking:
        return Decision(
            reason=reasons.Reason.DISTRIBUTING,
            message="the new CA has to be trusted by " + ", ".join(f"{item.kind} {item.name}" for item in lacking))
    wait_seconds = wanted.settle_seconds - seen.trusted_seconds.get(successor.fingerprint, 0.0)
    if wait_seconds > 0:
        return Decision(
            reason=reasons.Reason.DISTRIBUTING,
            message="every configuration trusts the new CA; the API servers get settleSeconds to load it",
            wake_at=now + datetime.timedelta(seconds=wait_seconds))
    return Decision(
        actions=(steps.Switch(authority=seen.authority, bundle=bundle),),
        reason=reasons.Reason.SWITCHING,
        message="the new CA is trusted everywhere, so it signs from now on")


def _retirement(
    seen: facts.Seen, wanted: policy.Policy, bundle: tuple[facts.Certificate, ...], now: datetime.datetime
) -> Decision | None:
    assert seen.authority is not None
    successor = seen.authority.successor
    if successor is None:
        return None
    if rotation.unacknowledged(seen):
        overdue = seen.waiting_seconds >= rotation.DEADLINE_SECONDS
        return Decision(reason=reasons.Reason.OVERDUE if overdue else reasons.Reason.ACKNOWLEDGING,
                        message=rotation.progress(seen), wake_at=now + LOOK_AGAIN)
    if wrong := rotation.wrong(seen):
        return Decision(
            reason=reasons.Reason.WRONG_CERTIFICATE,
            message="a certificate that the new CA does not verify is served by " + ", ".join(i.name for i in wrong),
            wake_at=now + LOOK_AGAIN)
    if missing := rotation.unproven(seen):
        return Decision(reason=reasons.Reason.PROVING, message=f"{len(missing)} servers are looked at on the wire",
                        wake_at=now)
    wait_seconds = wanted.settle_seconds - seen.acknowledged_seconds
    if wait_seconds > 0:
        blind = rotation.unreachable(seen)
        return Decision(
            reason=reasons.Reason.RETIRING,
            message=f"{rotation.progress(seen)}; the old CA leaves after settleSeconds"
            + (f"; not reachable to be looked at: {', '.join(item.name for item in blind[:5])}" if blind else ""),
            wake_at=now + datetime.timedelta(seconds=wait_seconds))
    return _promote(seen, (successor,), "every server serves a leaf by the new CA, so the old one leaves")


def _promote(seen: facts.Seen, bundle: tuple[facts.Certificate, ...], message: str) -> Decision:
    assert seen.authority is not None
    kept = {item.fingerprint for item in bundle}
    in_leaf = {item.fingerprint for item in (seen.leaf.trusted if seen.leaf else ())}
    leaving = ({item.fingerprint for item in seen.authority.bundle} | in_leaf) - kept
    return Decision(
        # All that ever left: a backup of the leaf Secret, or an old manifest, may name any of them.
        actions=(steps.Promote(authority=seen.authority, bundle=bundle,
                               retired=frozenset(leaving | (seen.authority.retired - kept))),),
        reason=reasons.Reason.RETIRING,
        message=message)


def _rotation_times(seen: facts.Seen, wanted: policy.Policy) -> list[datetime.datetime]:
    assert seen.authority is not None and seen.authority.certificate is not None
    return [seen.authority.certificate.not_after - wanted.ca_renew_before]


def writable(seen: facts.Seen) -> tuple[facts.Configuration, ...]:
    """The configurations that injection is waited for; one that cannot be written blocks nothing."""
    return tuple(item for item in seen.configurations if item.state is facts.ConfigurationState.OPEN)


def trusted_everywhere(seen: facts.Seen) -> frozenset[facts.Fingerprint]:
    """The certificates that the CA Secret's bundle and every webhook that can be written trust."""
    trusted = frozenset(item.fingerprint for item in (seen.authority.bundle if seen.authority else ()))
    for configuration in writable(seen):
        if configuration.entries:
            trusted &= trusted_by(configuration)
    return trusted


def trusted_by(configuration: facts.Configuration) -> frozenset[facts.Fingerprint]:
    """The certificates that every webhook of the configuration trusts."""
    each = [frozenset(item.fingerprint for item in entry.trusted) for entry in configuration.entries]
    return frozenset.intersection(*each) if each else frozenset()


def lacks(configuration: facts.Configuration, bundle: tuple[facts.Certificate, ...]) -> bool:
    """Whether any webhook of the configuration trusts something else than the bundle; or less, if it is not ours."""
    wanted = {item.fingerprint for item in bundle}
    more_will_do = configuration.state is facts.ConfigurationState.READ_ONLY
    trusted = [{item.fingerprint for item in entry.trusted} for entry in configuration.entries]
    return any(not wanted <= each if more_will_do else each != wanted for each in trusted) or not all(
        entry.readable for entry in configuration.entries)


def _unsettled_seconds(
    seen: facts.Seen, wanted: policy.Policy, signer: facts.Certificate, bundle: tuple[facts.Certificate, ...]
) -> float:
    """
    How long to wait before the signer may be used. API servers cannot acknowledge what they have loaded.

    The very first leaf need not wait, unless there is a bundle of others: then a webhook that works is taken over.
    """
    first_leaf = seen.leaf is None and seen.last_generation == 0 and bundle == (signer,)
    in_use = signer.fingerprint == seen.last_signer or (
        seen.leaf is not None and seen.leaf.defect is None and signer.fingerprint in seen.leaf.signers)
    if first_leaf or in_use:
        return 0
    return max(0.0, wanted.settle_seconds - seen.trusted_seconds.get(signer.fingerprint, 0.0))


def _next_generation(seen: facts.Seen, now: datetime.datetime) -> int:
    """
    Grows even if everything that remembers the last one is lost, hence the time in seconds.

    What is lost may have been issued just now, by a clock that is ahead of this one, and be in no status yet.
    """
    known = seen.leaf.generation if seen.leaf and seen.leaf.generation else 0
    lost = not known or known < seen.last_generation
    return max(int(now.timestamp()), seen.last_generation + 1, known + 1) + (
        int(BACKDATE.total_seconds()) if lost else 0)


Check = collections.abc.Callable[[facts.Seen, policy.Policy, datetime.datetime], facts.Defect | None]


def _sound(seen: facts.Seen, wanted: policy.Policy, now: datetime.datetime) -> facts.Defect | None:
    assert seen.leaf is not None
    return leaf.first_defect(seen.leaf, now)


def _latest(seen: facts.Seen, wanted: policy.Policy, now: datetime.datetime) -> facts.Defect | None:
    assert seen.leaf is not None
    if seen.leaf.generation is not None and seen.leaf.generation < seen.last_generation:
        return facts.Defect(
            reason=reasons.Reason.OLDER_GENERATION,
            message=f"Secret {wanted.secret_name} holds generation {seen.leaf.generation}, but"
                    f" {seen.last_generation} was issued (a restored backup?)")
    return None


def _known_signer(seen: facts.Seen, wanted: policy.Policy, now: datetime.datetime) -> facts.Defect | None:
    assert seen.leaf is not None and seen.authority is not None and seen.authority.certificate is not None
    present = {item.fingerprint for item in (seen.authority.certificate, seen.authority.successor) if item}
    if not present & seen.leaf.signers:
        return facts.Defect(
            reason=reasons.Reason.SIGNER_REPLACED,
            message=f"the leaf in Secret {wanted.secret_name} is not signed by the present CA")
    return None


def _by_successor(seen: facts.Seen, wanted: policy.Policy, now: datetime.datetime) -> facts.Defect | None:
    if rotation.has_switched(seen) and not rotation.is_by_successor(seen):
        return facts.Defect(
            reason=reasons.Reason.SWITCHING,
            message=f"the leaf in Secret {wanted.secret_name} is not signed by the new CA yet")
    return None


def _right_names(seen: facts.Seen, wanted: policy.Policy, now: datetime.datetime) -> facts.Defect | None:
    assert seen.leaf is not None and seen.leaf.certificate is not None
    if seen.leaf.adopted and wanted.dns_names <= seen.leaf.certificate.dns_names:
        return None
    if seen.leaf.certificate.dns_names != wanted.dns_names:
        found = ", ".join(sorted(seen.leaf.certificate.dns_names)) or "no name"
        return facts.Defect(
            reason=reasons.Reason.WRONG_NAMES,
            message=f"the leaf in Secret {wanted.secret_name} is for {found}, not for"
                    f" {', '.join(sorted(wanted.dns_names))}")
    return None


def _as_specified(seen: facts.Seen, wanted: policy.Policy, now: datetime.datetime) -> facts.Defect | None:
    assert seen.leaf is not None and seen.leaf.certificate is not None
    certificate = seen.leaf.certificate
    if seen.leaf.adopted:
        return None
    if certificate.key_algorithm != wanted.algorithm:
        return facts.Defect(
            reason=reasons.Reason.SPEC_CHANGED,
            message=f"the leaf has a key of {certificate.key_algorithm}, the spec wants {wanted.algorithm}")
    life = certificate.not_after - certificate.not_before - BACKDATE
    if life != wanted.duration and not (_is_cut_short(seen) and life < wanted.duration):
        return facts.Defect(
            reason=reasons.Reason.SPEC_CHANGED,
            message=f"the leaf was issued for {life}, the spec wants {wanted.duration}")
    return None


def _renewal_time(seen: facts.Seen, wanted: policy.Policy) -> datetime.datetime:
    """When the leaf is due. One cut short by the end of its CA waits for a new CA: another would end as soon."""
    assert seen.leaf is not None and seen.leaf.certificate is not None
    return seen.leaf.certificate.not_after if _is_cut_short(seen) else (
        seen.leaf.certificate.not_after - wanted.renew_before)


def _is_cut_short(seen: facts.Seen) -> bool:
    assert seen.leaf is not None and seen.leaf.certificate is not None
    assert seen.authority is not None and seen.authority.certificate is not None
    ends = [item.not_after for item in (seen.authority.certificate, seen.authority.successor)
            if item is not None and item.fingerprint in seen.leaf.signers]
    return any(seen.leaf.certificate.not_after >= end for end in ends)


def _not_due(seen: facts.Seen, wanted: policy.Policy, now: datetime.datetime) -> facts.Defect | None:
    due = _renewal_time(seen, wanted)
    if now >= due:
        return facts.Defect(
            reason=reasons.Reason.RENEWAL_DUE,
            message=f"the leaf is due for renewal since {due:%Y-%m-%dT%H:%M:%SZ}")
    return None


def _not_requested(seen: facts.Seen, wanted: policy.Policy, now: datetime.datetime) -> facts.Defect | None:
    assert seen.leaf is not None
    if wanted.rotate_leaf is not None and wanted.rotate_leaf != seen.leaf.request:
        return facts.Defect(reason=reasons.Reason.REQUESTED,
                            message=f"{policy.ROTATE_LEAF} asks for a new leaf ({wanted.rotate_leaf!r})")
    return None


_LEAF_CHECKS: tuple[Check, ...] = (
    _sound, _latest, _known_signer, _by_successor, _right_names, _as_specified, _not_due, _not_requested)
