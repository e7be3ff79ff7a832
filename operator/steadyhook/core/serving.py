"""
What a server serves: the leaf Secret when it is marked ready and sound, else the last good certificate.

::

    nothing served --sound Secret--> Serving --damaged, deleted or older Secret--> Degraded (keeps serving)
         |                              ^                                              |
      Waiting                           +---------------- sound Secret ----------------+
"""
import dataclasses
import datetime
import enum

from steadyhook.core import facts, leaf, reasons


class Phase(enum.StrEnum):
    """The phase of an instance, as its ManagerNode shows it."""

    WAITING = "Waiting"
    SERVING = "Serving"
    DEGRADED = "Degraded"


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Served:
    """The certificate that new handshakes get."""

    certificate: facts.Certificate
    generation: int
    signers: frozenset[facts.Fingerprint] = frozenset()  # those in the ca.crt beside it that verify it


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """What to serve from now on. ``swap``: the Secret's leaf replaces what is served (or is served at last)."""

    phase: Phase
    reason: reasons.Reason
    message: str
    swap: bool = False
    served: Served | None = None
    wake_at: datetime.datetime | None = dataclasses.field(default=None, compare=False)


TRIAL_SECONDS = 300.0
"""
For how long a leaf is not served whose ca.crt does not know the CA of the served one.

The issuer never writes such a leaf as long as anything remembers that CA, and replaces a foreign one long before. If
it stays, then both Secrets and all bundles were lost or restored from before that CA, and it is this leaf that clients
trust, whatever its generation. The price: where no issuer runs, so does a leaf Secret that was restored by itself.
"""


def judge(
    seen: facts.Leaf | None, *, served: Served | None, service_name: str | None, now: datetime.datetime,
    seen_seconds: float = 0.0,
) -> Verdict:
    """
    Decide about the leaf Secret as it is now (None: there is none).

    ``service_name`` is the DNS name by which the API server calls this webhook (None: not checked).
    ``seen_seconds``: for how long the Secret has held this leaf, by this instance's monotonic clock.
    """
    defect = _defect(seen, served=served, service_name=service_name, now=now, seen_seconds=seen_seconds)
    if defect is None and seen is not None and seen.certificate is not None and seen.generation is not None:
        new = Served(certificate=seen.certificate, generation=seen.generation,
                     signers=seen.signers & {item.fingerprint for item in seen.trusted})
        swap = served is None or served.certificate.fingerprint != new.certificate.fingerprint
        return Verdict(phase=Phase.SERVING, reason=reasons.Reason.SERVING,
                       message=f"serves generation {new.generation}", swap=swap, served=new,
                       wake_at=new.certificate.not_after)
    assert defect is not None
    if served is None:
        wake_at = leaf.begins(seen) if defect.reason is reasons.Reason.NOT_YET_VALID and seen else None
        reason = (reasons.Reason.WAITING_FOR_SECRET if defect.reason is reasons.Reason.SECRET_MISSING
                  else defect.reason)
        return Verdict(phase=Phase.WAITING, reason=reason, message=defect.message, wake_at=wake_at)
    not_after = served.certificate.not_after
    expired = now >= not_after
    dates = [] if expired else [not_after]
    if defect.reason is reasons.Reason.FOREIGN_SIGNER and seen_seconds < TRIAL_SECONDS:
        dates.append(now + datetime.timedelta(seconds=TRIAL_SECONDS - seen_seconds))
    if defect.reason is reasons.Reason.NOT_YET_VALID and seen is not None and (begins := leaf.begins(seen)) is not None:
        dates.append(begins)
    fate = "has itself expired" if expired else f"is good until {not_after:%Y-%m-%dT%H:%M:%SZ}"
    return Verdict(phase=Phase.DEGRADED, reason=defect.reason,
                   message=f"{defect.message}; goes on with generation {served.generation}, which {fate}",
                   served=served, wake_at=min((date for date in dates if date > now), default=None))


def _defect(
    seen: facts.Leaf | None, *, served: Served | None, service_name: str | None, now: datetime.datetime,
    seen_seconds: float,
) -> facts.Defect | None:
    if seen is None:
        return facts.Defect(reason=reasons.Reason.SECRET_MISSING, message="the Secret does not exist")
    defect = leaf.first_defect(dataclasses.replace(seen, adopted=False), now)  # what listeners made is not for us
    if defect is not None:
        return defect
    assert seen.certificate is not None and seen.generation is not None
    if service_name is not None and not leaf.covers(seen.certificate.dns_names, service_name):
        return facts.Defect(
            reason=reasons.Reason.WRONG_NAMES,
            message=f"Secret {seen.secret.name} is for {', '.join(sorted(seen.certificate.dns_names)) or 'no name'},"
                    f" not for {service_name}, by which the API server calls")
    if served is None or now >= served.certificate.not_after:
        return None
    known = served.signers & {item.fingerprint for item in seen.trusted}
    if served.signers and not known:
        if seen_seconds >= TRIAL_SECONDS:
            return None  # the whole cluster may have been restored: then it is this leaf that clients trust
        return facts.Defect(
            reason=reasons.Reason.FOREIGN_SIGNER,
            message=f"Secret {seen.secret.name} comes with a ca.crt that does not know the CA of the leaf that is"
                    " served, so the API servers may not trust it")
    if seen.generation < served.generation and leaf.sane_generation(served.generation, now) is not None:
        return facts.Defect(
            reason=reasons.Reason.OLDER_GENERATION,
            message=f"Secret {seen.secret.name} holds generation {seen.generation}, older than the one served"
                    " (a restored backup?)")
    return None
