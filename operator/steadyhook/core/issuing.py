"""
What the issuer does next: a total function of what was seen, the policy and the time.

::

    0. a Secret is somebody else's              -> nothing at all
       (Dynamiclistener) a Secret is not static -> freeze it
    1. no usable CA                             -> create it (or let the successor take its place)
    2. a configuration lacks the bundle         -> inject it
    3. the leaf is missing, damaged or due      -> write leaf and ready mark, once its signer is trusted
    4. the CA is due, or a rotation is asked for -> add a successor to the CA Secret and to the bundle
    5. the successor is trusted everywhere      -> write that down, then a leaf that it has signed
       (or whatever cannot be written has been waited for until the leaf is due)
    6. every server serves that                 -> the old CA leaves
    7. else nothing, and when to look again

Each decision holds only steps that are safe now; after them the world is observed again. Trust comes before use:
the CA Secret knows a CA before it is injected, and it is injected before a leaf signed by it is written.
"""
import collections.abc
import dataclasses
import datetime

from steadyhook.core import bounds, facts, leaf, policy, reasons, rotation, steps

LOOK_AGAIN = datetime.timedelta(seconds=5)
"""How soon to look again for pods that are gone, of which nothing tells."""

BUNDLE_LIMIT = 256
"""With how many certificates the trust bundle takes nothing more in: it is written into many objects."""

PATIENCE = datetime.timedelta(hours=1)
"""For so long a CA that has yet to begin is waited for, since clocks differ; one that begins later is replaced."""

BACKDATE = datetime.timedelta(minutes=5)
"""How far in the past a certificate's validity starts, to bear the clock skew between machines."""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Decision:
    """The steps to take, in this order, why, and when to look again if nothing happens before (None: no date)."""

    actions: tuple[steps.Step, ...] = ()
    reason: reasons.Reason
    message: str
    wake_at: datetime.datetime | None = None
    left_out: str | None = None  # in words: CA certificates in the leaf Secret that were not taken into the bundle


def decide(seen: facts.Seen, wanted: policy.Policy, now: datetime.datetime) -> Decision:
    """Decide about one certificate. Same input, same output; never raises."""
    bundle = trust_bundle(seen, now)
    decision = _first_step(seen, wanted, bundle, now)
    return dataclasses.replace(decision, left_out=left_out(seen, now))


def _first_step(
    seen: facts.Seen, wanted: policy.Policy, bundle: tuple[facts.Certificate, ...], now: datetime.datetime
) -> Decision:
    for step in (_ownership, _freeze, _authority, _bundle, _injection, _leaf, _succession, _switch, _retirement):
        decision = step(seen, wanted, bundle, now)
        if decision is not None:
            return decision
    assert seen.leaf is not None and seen.leaf.certificate is not None and seen.authority is not None
    wake_at = min((date for date in (_renewal_time(seen, wanted), *_rotation_times(seen, wanted)) if date > now),
                  default=None)
    if _is_prepared(seen, wanted, now):
        assert seen.provided is not None
        return Decision(reason=reasons.Reason.PENDING, wake_at=wake_at, message=_not_yet(
            f"the CA in Secret {wanted.authority_name}", seen.provided))
    return Decision(
        reason=reasons.Reason.UP_TO_DATE,
        message=("the adopted leaf" if seen.leaf.adopted else f"generation {seen.leaf.generation}")
        + f" is good until {seen.leaf.certificate.not_after:%Y-%m-%dT%H:%M:%SZ}",
        wake_at=wake_at,
    )


def trust_bundle(seen: facts.Seen, now: datetime.datetime) -> tuple[facts.Certificate, ...]:
    """
    What has to be trusted: it only grows, but for what the last step of a rotation has retired.

    The union of the CA Secret's bundle, of the CA certificates in the leaf Secret that are known to matter, and of what
    a configuration trusted when it was taken over. What somebody else writes into a configuration later is not taken
    in. If the CA Secret is lost, the configurations may be the only ones that still hold what is served: then they are
    asked for all that the status remembers.
    """
    lost = authority_defect(seen, now) is not None or (seen.authority is not None and seen.authority.bundle_damaged)
    trusted = [
        *(seen.authority.bundle if seen.authority else ()),
        *_from_leaf(seen),
        *(item for configuration in _taken_over(seen) for item in _all_trusted(configuration)),
        *(item for configuration in seen.configurations if lost for item in _recovered(seen, configuration)),
    ]
    retired = _retired(seen)
    unique = {item.fingerprint: item for item in trusted if item.not_after > now and item.fingerprint not in retired}
    return tuple(sorted(unique.values(), key=lambda item: (item.not_before, item.fingerprint)))


def left_out(seen: facts.Seen, now: datetime.datetime) -> str | None:
    """In words, the CA certificates in the leaf Secret that are not taken into the bundle, or None."""
    if seen.leaf is None or len(seen.leaf.trusted) <= 1:
        return None
    held = {item.fingerprint for item in (*_from_leaf(seen), *(seen.authority.bundle if seen.authority else ()))}
    strangers = [item for item in seen.leaf.trusted if item.not_after > now
                 and item.fingerprint not in held and item.fingerprint not in _retired(seen)]
    if not strangers:
        return None
    return (f"{len(strangers)} CA certificate(s) in ca.crt of Secret {seen.leaf.secret.name} are not taken into the"
            f" trust bundle, since they do not verify the leaf beside them; the first is"
            f" {strangers[0].fingerprint[:16]}")


def _known(seen: facts.Seen) -> frozenset[facts.Fingerprint]:
    """The CAs that matter for sure: who has signed the leaf, and what the status remembers of the trust bundle."""
    signers = seen.leaf.signers if seen.leaf else frozenset()
    return seen.remembered | signers | (frozenset({seen.last_signer}) if seen.last_signer else frozenset())


def _from_leaf(seen: facts.Seen) -> tuple[facts.Certificate, ...]:
    """From ``ca.crt``, into which anybody may write anything who may write the leaf Secret."""
    known = _known(seen)
    found = tuple(item for item in (seen.leaf.trusted if seen.leaf else ()) if item.fingerprint in known)
    return found[:facts.TAKEOVER_LIMIT]


def _taken_over(seen: facts.Seen) -> tuple[facts.Configuration, ...]:
    """The configurations that become ours now, as far as the bundle has room for what they trust."""
    chosen = []
    held = {item.fingerprint for item in (seen.authority.bundle if seen.authority else ())}
    for configuration in seen.configurations:
        if not configuration.is_taken_over:
            continue
        more = held | {item.fingerprint for item in _all_trusted(configuration)}
        if more == held or len(more) <= BUNDLE_LIMIT:
            held = more
            chosen.append(configuration)
    return tuple(chosen)


def _recovered(seen: facts.Seen, configuration: facts.Configuration) -> tuple[facts.Certificate, ...]:
    """
    What a configuration gives back when the CA Secret is lost: what the status remembers, whoever has kept it.

    What a leaf alone speaks for counts only in those that were ours, or are the application's.
    """
    known = seen.remembered | (frozenset({seen.last_signer}) if seen.last_signer else frozenset())
    if configuration.known or configuration.standing is facts.ConfigurationState.READ_ONLY:
        known = _known(seen)
        was_ours = configuration.known and not known  # of what only calls the application anybody can make one
        found = tuple(item for item in _all_trusted(configuration) if was_ours or item.fingerprint in known)
        return found[:facts.TAKEOVER_LIMIT]
    found = tuple(item for item in _all_trusted(configuration) if item.fingerprint in known)
    return found[:facts.TAKEOVER_LIMIT]


def _all_trusted(configuration: facts.Configuration) -> tuple[facts.Certificate, ...]:
    return tuple({item.fingerprint: item for entry in configuration.entries for item in entry.trusted}.values())


def _retired(seen: facts.Seen) -> frozenset[facts.Fingerprint]:
    """What must not come back, unless it signs once more."""
    if seen.authority is None:
        return frozenset(seen.retired)
    signers = {item.fingerprint for item in (seen.authority.certificate, seen.authority.successor) if item is not None}
    return frozenset({*seen.retired, *seen.authority.retired}) - signers


def retired(seen: facts.Seen, *, kept: collections.abc.Container[facts.Fingerprint],
            leaving: collections.abc.Iterable[facts.Fingerprint] = ()) -> tuple[facts.Fingerprint, ...]:
    """What to remember as retired, in the CA Secret and in the status: the oldest first, and only the last ones."""
    held = seen.authority.retired if seen.authority else ()
    every = dict.fromkeys([*seen.retired, *held, *sorted(leaving)])
    return tuple(item for item in every if item not in kept)[-bounds.RETIRED:]


def foreign_secrets(seen: facts.Seen) -> tuple[facts.Secret, ...]:
    """
    The Secrets that are somebody else's, so that they are neither written over nor deleted.

    Once a leaf of ours was in them, the names are ours: whatever is found there later is damage, and repaired.
    """
    if seen.last_signer is not None:
        return ()
    return tuple(item.secret for item in (seen.leaf, seen.authority) if item is not None and not item.secret.ours)


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


def _ownership(
    seen: facts.Seen, wanted: policy.Policy, bundle: tuple[facts.Certificate, ...], now: datetime.datetime
) -> Decision | None:
    foreign = foreign_secrets(seen)
    if not foreign:
        return None
    names = " and ".join(f"Secret {item.name}" for item in foreign)
    return Decision(
        reason=reasons.Reason.NOT_OURS,
        message=f"{names} was made by somebody else, so nothing is written over it; name other Secrets in another"
                " WebhookCertificate, or delete it, or annotate it with steadyhook.io/adopt=true if it may be replaced")


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
    defect = authority_defect(seen, now) or _too_early(rotation.signer(seen), now)
    if defect is None:
        return None
    successor = seen.authority.successor if seen.authority else None
    if successor is not None and now < successor.not_after and _too_early(successor, now) is None:
        return _promote(seen, bundle, f"the present CA cannot sign: {defect.message}")
    if wanted.authority_name is not None and seen.provided is None:
        message = seen.provided_defect.message if seen.provided_defect else f"Secret {wanted.authority_name} is missing"
        return Decision(reason=reasons.Reason.PROVIDED_UNUSABLE, message=message)
    if seen.provided is not None and not seen.provided.has_begun(now):
        return Decision(reason=reasons.Reason.PENDING, wake_at=seen.provided.not_before, message=_not_yet(
            f"the CA in Secret {wanted.authority_name}", seen.provided))
    if wanted.authority_secret_name in seen.contested:
        return _leave_alone(wanted.authority_secret_name, defect)
    replaces = seen.authority.secret if seen.authority else None
    return Decision(
        actions=(steps.CreateAuthority(
            replaces=replaces, bundle=bundle, reason=defect.reason, request=wanted.rotate_authority,
            retired=retired(seen, kept={seen.provided.fingerprint} if seen.provided else ()),
            provided=seen.provided),),
        reason=reasons.Reason.CREATING_AUTHORITY,
        message=f"creating a CA: {defect.message}",
    )


def _too_early(certificate: facts.Certificate | None, now: datetime.datetime) -> facts.Defect | None:
    """Why a CA is not waited for: clocks that are corrected cannot explain it, and nobody can be served meanwhile."""
    if certificate is None or certificate.not_before - now <= PATIENCE:
        return None
    return facts.Defect(reason=reasons.Reason.NOT_YET_VALID, message=_not_yet("the CA", certificate))


def _not_yet(what: str, certificate: facts.Certificate) -> str:
    return f"{what} is valid only from {certificate.not_before:%Y-%m-%dT%H:%M:%SZ} on"


def _leave_alone(name: str, defect: facts.Defect) -> Decision:
    return Decision(
        reason=reasons.Reason.CONTESTED,
        message=f"Secret {name} is written over or deleted again and again by somebody else ({defect.message}), so it"
                " is left alone for a while; find out who does it, by its managedFields or in the audit log")


def _bundle(
    seen: facts.Seen, wanted: policy.Policy, bundle: tuple[facts.Certificate, ...], now: datetime.datetime
) -> Decision | None:
    assert seen.authority is not None
    missing = {item.fingerprint for item in bundle} - {item.fingerprint for item in seen.authority.bundle}
    if not missing and not seen.authority.bundle_damaged:
        return None
    if seen.authority.bundle_damaged and wanted.authority_secret_name in seen.contested:
        return _leave_alone(wanted.authority_secret_name, facts.Defect(
            reason=reasons.Reason.NOT_PEM, message="the trust bundle is damaged"))
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
    signer = rotation.signer(seen)
    assert signer is not None
    if wanted.secret_name in seen.contested and defect.reason not in NO_DAMAGE:
        return _leave_alone(wanted.secret_name, defect)
    if not signer.has_begun(now):
        return Decision(reason=reasons.Reason.PENDING, wake_at=signer.not_before,
                        message=f"{defect.message}; {_not_yet('its CA', signer)}")
    lacking = rotation.untrusting(seen, signer)
    waits = defect.reason in (reasons.Reason.SIGNER_REPLACED, reasons.Reason.SWITCHING)
    if lacking and waits and _has_time(seen, wanted, now):
        # What is served is still good everywhere, so there is time to wait for those that cannot be written as well.
        overdue = rotation.is_held_too_long(seen)
        return Decision(reason=reasons.Reason.TRUST_OVERDUE if overdue else reasons.Reason.PENDING,
                        message=f"{defect.message}, which has yet to be trusted by "
                        + rotation.holding(lacking, remedy=overdue))
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


NO_DAMAGE = frozenset({
    reasons.Reason.RENEWAL_DUE, reasons.Reason.SPEC_CHANGED, reasons.Reason.SIGNER_REPLACED, reasons.Reason.REQUESTED,
    reasons.Reason.SWITCHING, reasons.Reason.WRONG_NAMES})
"""Why a leaf is written anew that nobody has spoiled."""


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
        return None  # one that has yet to begin is waited for, and one that begins too late is replaced by row 1
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
    if not successor.has_begun(now):
        return Decision(reason=reasons.Reason.DISTRIBUTING, wake_at=successor.not_before,
                        message=_not_yet("the new CA", successor))
    lacking = rotation.untrusting(seen, successor)
    if lacking and _has_time(seen, wanted, now):
        overdue = rotation.is_held_too_long(seen)
        return Decision(reason=reasons.Reason.TRUST_OVERDUE if overdue else reasons.Reason.DISTRIBUTING,
                        message="the new CA has to be trusted by " + rotation.holding(lacking, remedy=overdue))
    wait_seconds = wanted.settle_seconds - seen.trusted_seconds.get(successor.fingerprint, 0.0)
    if wait_seconds > 0:
        return Decision(
            reason=reasons.Reason.DISTRIBUTING,
            message="every configuration trusts the new CA; the API servers get settleSeconds to load it",
            wake_at=now + datetime.timedelta(seconds=wait_seconds))
    return Decision(
        actions=(steps.Switch(authority=seen.authority, bundle=bundle),),
        reason=reasons.Reason.SWITCHING,
        message="the new CA is trusted everywhere, so it signs from now on" if not lacking else
        "the leaf is due, so the new CA signs from now on, though it is not trusted by "
        + bounds.listing([f"{item.kind} {item.name}" for item in lacking]))


def _has_time(seen: facts.Seen, wanted: policy.Policy, now: datetime.datetime) -> bool:
    """
    Whether the leaf is good for long enough to wait for configurations that cannot be written.

    Anybody may make such an object, and it is nobody else's business in the end: with the CA the leaf would end as
    well, for all that call the webhook.
    """
    certificate = seen.leaf.certificate if seen.leaf else None
    return certificate is not None and now < certificate.not_after - wanted.renew_before


def _retirement(
    seen: facts.Seen, wanted: policy.Policy, bundle: tuple[facts.Certificate, ...], now: datetime.datetime
) -> Decision | None:
    assert seen.authority is not None
    successor = seen.authority.successor
    if successor is None:
        return None
    if seen.servers_defect is not None:
        return Decision(reason=seen.servers_defect.reason, message=seen.servers_defect.message,
                        wake_at=now + LOOK_AGAIN)
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
    leaving = {item.fingerprint for item in (*seen.authority.bundle, *_from_leaf(seen))} - kept
    return Decision(
        # All that ever left: a backup of the leaf Secret, or an old manifest, may name any of them.
        actions=(steps.Promote(authority=seen.authority, bundle=bundle,
                               retired=retired(seen, kept=kept, leaving=leaving)),),
        reason=reasons.Reason.RETIRING,
        message=message)


def _rotation_times(seen: facts.Seen, wanted: policy.Policy) -> list[datetime.datetime]:
    assert seen.authority is not None and seen.authority.certificate is not None
    if wanted.authority_name is None:
        return [seen.authority.certificate.not_after - wanted.ca_renew_before]
    if seen.provided is None:
        return []
    return [seen.provided.not_before, seen.provided.not_after - wanted.renew_before]  # to begin with it, to warn


def _is_prepared(seen: facts.Seen, wanted: policy.Policy, now: datetime.datetime) -> bool:
    """Whether the user has put a CA in place whose time is yet to come."""
    present = seen.authority.certificate if seen.authority else None
    return wanted.authority_name is not None and seen.provided is not None and not seen.provided.has_begun(now) and (
        seen.provided != present)


def standing(seen: facts.Seen, configuration: facts.Configuration) -> facts.ConfigurationState:
    """The state of a configuration, the room in the trust bundle included."""
    if configuration.is_taken_over and configuration.uid not in {item.uid for item in _taken_over(seen)}:
        return facts.ConfigurationState.CROWDED
    return configuration.standing


def writable(seen: facts.Seen) -> tuple[facts.Configuration, ...]:
    """The configurations that injection is waited for; one that cannot be written blocks nothing."""
    taken_over = {item.uid for item in _taken_over(seen)}
    return tuple(item for item in seen.configurations if item.standing is facts.ConfigurationState.OPEN
                 and (item.known or item.uid in taken_over))


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
    known = (leaf.sane_generation(seen.leaf.generation, now) if seen.leaf else None) or 0
    last = leaf.sane_generation(seen.last_generation, now) or 0
    lost = not known or not last or known < last
    margin = int(BACKDATE.total_seconds()) if lost else 0  # once, however often something is lost
    return max(int(now.timestamp()) + margin, last + 1, known + 1)


Check = collections.abc.Callable[[facts.Seen, policy.Policy, datetime.datetime], facts.Defect | None]


def _sound(seen: facts.Seen, wanted: policy.Policy, now: datetime.datetime) -> facts.Defect | None:
    assert seen.leaf is not None
    return leaf.first_defect(seen.leaf, now)


def _latest(seen: facts.Seen, wanted: policy.Policy, now: datetime.datetime) -> facts.Defect | None:
    assert seen.leaf is not None
    last = leaf.sane_generation(seen.last_generation, now) or 0
    if seen.leaf.generation is not None and seen.leaf.generation < last:
        return facts.Defect(
            reason=reasons.Reason.OLDER_GENERATION,
            message=f"Secret {wanted.secret_name} holds generation {seen.leaf.generation}, but"
                    f" {last} was issued (a restored backup?)")
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
    if life != wanted.duration and not (life < wanted.duration and (
            _is_cut_short(seen) or (wanted.duration - life <= BACKDATE and _begins_with_its_signer(seen)))):
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


def _begins_with_its_signer(seen: facts.Seen) -> bool:
    """Whether it could not be backdated in full: its CA had only just begun."""
    assert seen.leaf is not None and seen.leaf.certificate is not None and seen.authority is not None
    return any(item is not None and item.fingerprint in seen.leaf.signers
               and item.not_before == seen.leaf.certificate.not_before
               for item in (seen.authority.certificate, seen.authority.successor))


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
