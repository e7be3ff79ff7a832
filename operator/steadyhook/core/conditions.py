"""The status of a WebhookCertificate: true conditions, in the form of the Kubernetes API conventions."""
import collections.abc
import dataclasses
import datetime
from typing import Any

from steadyhook.core import bounds, facts, issuing, leaf, policy, reasons, rotation


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Acknowledged:
    """How many serving instances serve the leaf that the Secret holds, of how many."""

    done: int
    total: int
    unserved_seconds: float = 0.0  # for how long none of them has served it


def status(
    *, seen: facts.Seen, wanted: policy.Policy, decision: issuing.Decision, acknowledged: Acknowledged,
    previous: collections.abc.Mapping[str, Any], observed_generation: int, now: datetime.datetime,
) -> dict[str, Any]:
    """The whole status, made from what was seen; equal to ``previous`` when nothing has changed."""
    bundle = issuing.trust_bundle(seen, now)
    progress = _rotation(seen, decision, previous, now)
    # What is in the Secrets of somebody else's is nothing to be remembered.
    trusted = seen.remembered if issuing.foreign_secrets(seen) else {item.fingerprint for item in bundle}
    result: dict[str, Any] = {
        "observedGeneration": observed_generation,
        "acknowledged": f"{acknowledged.done}/{acknowledged.total}",
        "conditions": _merge(
            previous.get("conditions", []), _conditions(seen, wanted, decision, acknowledged, now), now=now,
            observed_generation=observed_generation),
        "configurations": _configurations(seen, bundle),
        "trustedCAs": sorted(trusted)[:issuing.BUNDLE_LIMIT],
        "retiredCAs": list(issuing.retired(seen, kept=trusted)),
    }
    certificate = seen.leaf.certificate if seen.leaf else None
    if certificate and seen.leaf and _leaf_defect(seen, wanted, now) is None:
        result |= {
            "fingerprint": certificate.fingerprint,
            "generation": seen.leaf.generation or 0,
            "notBefore": _timestamp(certificate.not_before),
            "notAfter": _timestamp(certificate.not_after),
        }
    else:  # the last good one is still what the servers serve
        result |= {key: previous[key] for key in ("fingerprint", "generation", "notBefore", "notAfter")
                   if key in previous}
    known = (leaf.sane_generation(value, now) or 0 for value in (result.get("generation"), seen.last_generation))
    result["generation"] = max(known)
    signer = _signer(seen)
    if signer is not None:
        result |= {"caFingerprint": signer.fingerprint, "caNotAfter": _timestamp(signer.not_after)}
    else:
        result |= {key: previous[key] for key in ("caFingerprint", "caNotAfter") if key in previous}
    if progress is not None:
        result["rotation"] = progress
    return {key: value for key, value in result.items() if value not in (0, [])}


def _rotation(
    seen: facts.Seen, decision: issuing.Decision, previous: collections.abc.Mapping[str, Any], now: datetime.datetime
) -> dict[str, str] | None:
    """Where a rotation stands, and since when; None if there is none."""
    phase = rotation.phase(seen)
    if phase is reasons.Reason.NOT_ROTATING:
        return None
    before = previous.get("rotation")
    since = before.get("since") if isinstance(before, dict) and before.get("phase") == phase else None
    return {"phase": str(phase), "since": since or _timestamp(now), "message": bounds.cut(decision.message)}


def _leaf_defect(seen: facts.Seen, wanted: policy.Policy, now: datetime.datetime) -> facts.Defect | None:
    """Why the leaf is not good, or is none that anybody looks after; None if it is good."""
    if seen.leaf is None:
        return facts.Defect(
            reason=reasons.Reason.SECRET_MISSING, message=f"Secret {wanted.secret_name} does not exist")
    if seen.leaf.secret in issuing.foreign_secrets(seen):
        return facts.Defect(reason=reasons.Reason.NOT_OURS,
                            message=f"Secret {wanted.secret_name} was made by somebody else, and is not looked after")
    return leaf.first_defect(seen.leaf, now)


def _signer(seen: facts.Seen) -> facts.Certificate | None:
    """The present or the next CA, whichever has signed the leaf; of two with one key, the one that signs now."""
    if seen.authority is None or seen.leaf is None or issuing.foreign_secrets(seen):
        return None
    candidates = (rotation.signer(seen), seen.authority.successor, seen.authority.certificate)
    return next((item for item in candidates if item is not None and item.fingerprint in seen.leaf.signers), None)


def invalid_spec_status(
    problem: policy.InvalidSpec, *, previous: collections.abc.Mapping[str, Any], observed_generation: int,
    now: datetime.datetime,
) -> dict[str, Any]:
    """The status for a spec that nothing can be issued from: all that was known of the last leaf is kept."""
    conditions = [
        _condition(kind, False, reasons.Reason.INVALID_SPEC, str(problem)) for kind in ("Ready", "Issuing")]
    return {**previous, "observedGeneration": observed_generation,
            "conditions": _merge(previous.get("conditions", []), conditions, now=now,
                                 observed_generation=observed_generation)}


def blocked_status(
    reason: reasons.Reason, message: str, *, previous: collections.abc.Mapping[str, Any], observed_generation: int,
    now: datetime.datetime,
) -> dict[str, Any]:
    """
    The status while nothing can be looked at or written, for whatever reason.

    Whether the last leaf is good is not known any better than before, but that it ends is known all the same.
    """
    conditions = [_condition("Issuing", False, reason, message), _condition("Degraded", True, reason, message)]
    not_after = _parse_date(previous.get("notAfter"))
    if not_after is None:
        conditions.append(_condition("Ready", False, reason, "no leaf is known to be good"))
    elif now >= not_after:
        conditions.append(_condition(
            "Ready", False, reasons.Reason.EXPIRED,
            f"the last leaf that is known of expired at {previous['notAfter']}, and there is no other: {message}"))
    return {**previous, "observedGeneration": observed_generation,
            "conditions": _merge(previous.get("conditions", []), conditions, now=now,
                                 observed_generation=observed_generation)}


def _conditions(
    seen: facts.Seen, wanted: policy.Policy, decision: issuing.Decision, acknowledged: Acknowledged,
    now: datetime.datetime,
) -> list[dict[str, str]]:
    defect = _leaf_defect(seen, wanted, now)
    busy = bool(decision.actions) or decision.reason is reasons.Reason.SETTLING
    phase = rotation.phase(seen)
    rotating = phase is not reasons.Reason.NOT_ROTATING
    trouble = _trouble(seen, wanted, decision, acknowledged, now)
    return [
        _condition("Ready", defect is None, defect.reason if defect else reasons.Reason.UP_TO_DATE,
                   defect.message if defect else f"Secret {wanted.secret_name} holds a good leaf"),
        _condition("Issuing", busy, decision.reason, decision.message),
        _injected(seen, now),
        _condition("Rotating", rotating, phase, decision.message if rotating else "the CA is not due"),
        _condition("Degraded", trouble is not None, trouble.reason if trouble else reasons.Reason.AS_EXPECTED,
                   trouble.message if trouble else "nothing waits for a person"),
    ]


UNSERVED_SECONDS = 600.0
"""After so long in which no instance has served the Secret's leaf, a person has to look at it."""

_FOR_A_PERSON = (reasons.Reason.OVERDUE, reasons.Reason.TRUST_OVERDUE, reasons.Reason.WRONG_CERTIFICATE,
                 reasons.Reason.NOT_OURS, reasons.Reason.CONTESTED)


def _trouble(
    seen: facts.Seen, wanted: policy.Policy, decision: issuing.Decision, acknowledged: Acknowledged,
    now: datetime.datetime,
) -> facts.Defect | None:
    """What a person has to look at, since it does not go away by itself."""
    if seen.provided_defect is not None:
        return facts.Defect(reason=reasons.Reason.PROVIDED_UNUSABLE, message=seen.provided_defect.message)
    if seen.provided is not None and now >= seen.provided.not_after - wanted.renew_before:
        return facts.Defect(
            reason=reasons.Reason.PROVIDED_ENDING, message=f"the CA in Secret {wanted.authority_name} ends at"
            f" {_timestamp(seen.provided.not_after)}, and every leaf with it; put a new one into that Secret")
    nobody_serves = acknowledged.total > 0 and acknowledged.done == 0
    if nobody_serves and acknowledged.unserved_seconds >= UNSERVED_SECONDS and (
            seen.leaf is not None and leaf.first_defect(seen.leaf, now) is None):
        return facts.Defect(
            reason=reasons.Reason.NOT_SERVED, message=f"none of {acknowledged.total} instances has served the leaf in"
            f" Secret {wanted.secret_name} for more than {UNSERVED_SECONDS / 60:.0f} minutes; their ManagerNodes say"
            f" why; if it was restored from a backup, annotate the WebhookCertificate with {policy.ROTATE_LEAF}=now")
    if decision.reason in _FOR_A_PERSON:
        return facts.Defect(reason=decision.reason, message=decision.message)
    if seen.servers_defect is not None and decision.reason is reasons.Reason.SERVERS_UNKNOWN:
        return seen.servers_defect
    if undialed := [item.name for item in seen.servers if rotation.is_dark(item) and (
            item.proof is facts.Proof.SKIPPED)]:
        return facts.Defect(
            reason=reasons.Reason.NOT_DIALED,
            message=f"the rotation waits for ever for {bounds.listing(undialed)}: what is served there can only be seen"
                    " on the wire, and STEADYHOOK_DIAL is off; set it to on, or delete these pods")
    if seen.foreign_entries:
        return facts.Defect(
            reason=reasons.Reason.FOREIGN_ENTRY,
            message=f"not believed: {bounds.listing(seen.foreign_entries, '; ')}. An instance writes about itself, on"
                    " its own node; find out who has written these ManagerNodes, and delete them")
    if seen.left_out:
        return facts.Defect(
            reason=reasons.Reason.TOO_MANY,
            message=f"{seen.left_out} more objects ask for this bundle than the {bounds.CONFIGURATIONS} that are looked"
                    " after, and are left alone; take the annotation away where it is not needed")
    if seen.lost_callers:
        return facts.Defect(
            reason=reasons.Reason.NAME_STILL_CALLED,
            message=f"{bounds.listing(seen.lost_callers, '; ')}, which is not in spec.dnsNames, so that these calls"
                    " fail; add it again, or change what calls by it")
    if seen.strays:
        return facts.Defect(
            reason=reasons.Reason.NO_SUCH_CERTIFICATE,
            message=f"{bounds.listing(seen.strays, '; ')}, which does not exist; correct the annotation or apply the"
                    " certificate")
    return None


def _injected(seen: facts.Seen, now: datetime.datetime) -> dict[str, str]:
    bundle = issuing.trust_bundle(seen, now)
    blocked = [item for item in seen.configurations if _is_blocked(seen, item) and issuing.lacks(item, bundle)]
    lacking = [item for item in seen.configurations if issuing.lacks(item, bundle)]
    if not seen.configurations:
        return _condition("Injected", True, reasons.Reason.NO_CONFIGURATION,
                          "no webhook configuration asks for this certificate's bundle by annotation")
    if blocked:
        worst = blocked[0]
        more = f"; {len(blocked) - 1} more are not written either" if len(blocked) > 1 else ""
        state = issuing.standing(seen, worst)
        return _condition("Injected", False, reasons.Reason(state), _describe_blocked(worst, state) + more)
    if lacking:
        return _condition("Injected", False, reasons.Reason.PENDING,
                          f"{len(lacking)} of {len(seen.configurations)} configurations lack the bundle")
    return _condition("Injected", True, reasons.Reason.INJECTED,
                      f"{len(seen.configurations)} configuration(s) carry the bundle")


def _describe_blocked(configuration: facts.Configuration, state: facts.ConfigurationState) -> str:
    what = f"{configuration.kind} {configuration.name}"
    if state is facts.ConfigurationState.FORBIDDEN:
        return (f"{what} may not be patched by the issuer; add its name to resourceNames of the ClusterRole"
                " that the issuer is bound to")
    if state is facts.ConfigurationState.REJECTED:
        return (f"{what} may be patched by the issuer, but an admission policy or webhook refuses it; the Event of this"
                " reason has its words: let it admit the issuer's account")
    if state is facts.ConfigurationState.UNREADABLE:
        return (f"{what} has a caBundle that holds something else than certificates; it is not taken over, as it would"
                " lose what others can read of it: remove from caBundle all but whole PEM certificates")
    if state is facts.ConfigurationState.CROWDED:
        return (f"{what} trusts more certificates than can be taken over ({facts.TAKEOVER_LIMIT} of one object,"
                f" {issuing.BUNDLE_LIMIT} of all), as every other configuration would have to trust them; remove from"
                " caBundle what signs for nobody any more")
    if state is facts.ConfigurationState.READ_ONLY:
        return (f"{what} does not trust every CA in the CA Secret yet; the application copies them by itself, at the"
                " latest when its pods restart")
    return f"{what} is overwritten again and again by another writer; remove caBundle from what that one applies"


def known_configurations(status: collections.abc.Mapping[str, Any]) -> frozenset[str]:
    """The uids of the configurations that have carried our bundle before, by a status. Never raises."""
    found = status.get("configurations")
    return frozenset(
        item["uid"] for item in (found if isinstance(found, list) else ())
        if isinstance(item, dict) and item.get("ours") is True and isinstance(item.get("uid"), str))


def _is_blocked(seen: facts.Seen, configuration: facts.Configuration) -> bool:
    """Whether it cannot be written, as opposed to one that will be."""
    return issuing.standing(seen, configuration) not in (
        facts.ConfigurationState.OPEN, facts.ConfigurationState.UNTRIED)


def _configurations(seen: facts.Seen, bundle: tuple[facts.Certificate, ...]) -> list[dict[str, Any]]:
    """Those that were ours first: of more than there is room for, these must not be taken for new ones."""
    entries = [_configuration(seen, item, bundle) for item in seen.configurations]
    if len(entries) > bounds.CONFIGURATIONS:
        entries.sort(key=lambda item: "ours" not in item)
    return entries[:bounds.CONFIGURATIONS]


def _configuration(
    seen: facts.Seen, configuration: facts.Configuration, bundle: tuple[facts.Certificate, ...]
) -> dict[str, Any]:
    lacking = issuing.lacks(configuration, bundle)
    standing = issuing.standing(seen, configuration)
    carries = bool(bundle) and not lacking  # an empty bundle is in everything that trusts nobody
    if carries:
        state = reasons.Reason.INJECTED
    elif _is_blocked(seen, configuration):
        state = reasons.Reason(standing)
    else:
        state = reasons.Reason.OVERWRITTEN if configuration.known else reasons.Reason.PENDING
    result: dict[str, Any] = {
        "kind": configuration.kind, "name": configuration.name, "uid": configuration.uid, "state": str(state)}
    if configuration.known or (carries and standing is facts.ConfigurationState.OPEN):
        # Not to be told by the state: it may be forbidden since. Nor by what it carries: the bundle is no secret.
        result["ours"] = True
    if lacking and _is_blocked(seen, configuration):
        result["message"] = bounds.cut(_describe_blocked(configuration, standing))
    return result


def _condition(kind: str, holds: bool, reason: reasons.Reason, message: str) -> dict[str, str]:
    return {"type": kind, "status": "True" if holds else "False", "reason": str(reason),
            "message": bounds.cut(message)}


def _merge(
    previous: collections.abc.Sequence[collections.abc.Mapping[str, Any]],
    conditions: collections.abc.Sequence[collections.abc.Mapping[str, str]],
    *, now: datetime.datetime, observed_generation: int,
) -> list[dict[str, Any]]:
    """Keep lastTransitionTime where the status stays, and the conditions of others."""
    before = {item["type"]: item for item in previous if _is_condition(item)} if isinstance(previous, list) else {}
    result = []
    for condition in conditions:
        old = before.pop(condition["type"], {})
        same = old.get("status") == condition["status"]
        result.append({**condition, "observedGeneration": observed_generation,
                       "lastTransitionTime": old["lastTransitionTime"] if same else _timestamp(now)})
    return [*result, *(dict(item) for item in before.values())]


def _is_condition(item: Any) -> bool:
    """Whether it is what the definition lets through today."""
    return isinstance(item, dict) and all(isinstance(item.get(key), str) for key in ("type", "lastTransitionTime"))


def _parse_date(value: Any) -> datetime.datetime | None:
    try:
        date = datetime.datetime.fromisoformat(value)
    except (TypeError, ValueError):
        return None
    return date if date.tzinfo is not None else date.replace(tzinfo=datetime.UTC)


def _timestamp(moment: datetime.datetime) -> str:
    return f"{moment:%Y-%m-%dT%H:%M:%SZ}"
