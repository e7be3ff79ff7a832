"""What is wrong with a webhook's Secret: values in, findings out; no clock and no I/O."""
import collections.abc
import dataclasses
import datetime
import enum

from steadyhook.cli import issuers
from steadyhook.core import facts, leaf, reasons

STORM_RATE = 1.0  # updates a second; a healthy Secret is written a few times a year
MANY_STORM_RATE = 0.3  # the same of many certificates: on a loaded API server few writes come through
MANY = 4  # more than two that take turns, and what was there before
TELLING_UPDATES = 3  # fewer may be a renewal that happens just now
SOON = datetime.timedelta(days=14)
NAMES_SHOWN = 5


class Kind(enum.StrEnum):
    """What can be found; CamelCase, as reasons are."""

    STORM = "Storm"
    NOBODY_ISSUES = "NobodyIssues"
    RENEWAL_FLIP = "RenewalFlip"
    UNREADABLE = "Unreadable"
    KEY_MISMATCH = "KeyMismatch"
    EXPIRED = "Expired"
    EXPIRES_SOON = "ExpiresSoon"
    NAMES_MISSING = "NamesMissing"
    BUNDLE_REPLACED = "BundleReplaced"
    NOBODY_CALLS = "NobodyCalls"
    NOBODY_SERVES = "NobodyServes"
    NOT_READY = "PodsNotReady"
    ANOTHER_LEAF = "AnotherLeafServed"
    STATIC = "Static"
    CLOCK_DIFFERS = "ClockDiffers"
    NOT_KNOWN = "NotKnown"


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Version:
    """What the Secret held from a moment on, in seconds since the first look."""

    at: float
    fingerprint: str


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Caller:
    """A configuration's entry that calls a Service which the leaf is for, or should be."""

    what: str  # kind, name and entry
    service: tuple[str, str]  # namespace, name
    verifies: bool  # whether its caBundle verifies the leaf


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Pod:
    """An endpoint of one of these Services."""

    name: str
    ready: bool


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Instance:
    """A server of ours, and the leaf that it says it serves."""

    pod: str
    node: str
    fingerprint: str


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Looked:
    """All that was looked at. ``seconds``: for how long; ``versions``: the first is what was there at the beginning."""

    namespace: str
    name: str
    seconds: float
    versions: tuple[Version, ...]
    leaf: facts.Leaf
    static: bool = False
    owner: str | None = None  # the WebhookCertificate that names it
    listened: bool = False  # whether it is that of listeners of dynamiclistener, by its annotations
    cert_manager: str | None = None  # the Certificate of cert-manager's that it is made from
    issuing: issuers.Standing | None = None  # of its WebhookCertificate, or of the one that adopting would make
    rights_missing: tuple[str, ...] = ()  # of the issuer that would have it
    clock_ahead: datetime.timedelta | None = None  # this machine's, of the API server's; None: no difference
    writers: tuple[str, ...] = ()
    callers: tuple[Caller, ...] = ()
    pods: tuple[Pod, ...] = ()
    instances: tuple[Instance, ...] = ()

    @property
    def updates(self) -> int:
        return len(self.versions) - 1


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """``wrong``: whether it is a fault; else it is a remark."""

    kind: Kind
    message: str
    remedy: str
    wrong: bool = True


def diagnose(looked: Looked, now: datetime.datetime) -> tuple[Finding, ...]:
    """Everything that is found, the gravest first. Same input, same output; never raises."""
    return tuple(finding for check in _CHECKS for finding in check(looked, now))


Findings = collections.abc.Iterator[Finding]


def _contention(looked: Looked, now: datetime.datetime) -> Findings:
    """The storm, or two certificates that take turns more slowly."""
    kinds = list(dict.fromkeys(item.fingerprint for item in looked.versions))
    rate = looked.updates / looked.seconds if looked.seconds > 0 else 0.0
    returned = any(
        item.fingerprint in {old.fingerprint for old in looked.versions[:index]}
        and item.fingerprint != looked.versions[index - 1].fingerprint
        for index, item in enumerate(looked.versions) if index)
    shown = ", ".join(item[:16] for item in kinds[:NAMES_SHOWN]) + (" and others" if len(kinds) > NAMES_SHOWN else "")
    said = (f"{looked.updates} updates in {looked.seconds:.0f} s ({rate:.1f} a second), {len(kinds)} different"
            f" certificates ({shown}), written by {', '.join(looked.writers) or 'whom its managedFields do not tell'}")
    storm_rate = MANY_STORM_RATE if len(kinds) >= MANY else STORM_RATE
    if looked.updates >= TELLING_UPDATES and rate >= storm_rate and len(kinds) > 1:
        yield Finding(
            kind=Kind.STORM, message=f"several writers fight over the Secret: {said}",
            remedy=_end(looked))
    elif returned:
        yield Finding(
            kind=Kind.RENEWAL_FLIP, message=f"certificates take turns in the Secret: {said}; so it goes when two"
            " writers renew it, each from its own memory (longhorn/longhorn#8433)", remedy=_end(looked))


def _issuing(looked: Looked, now: datetime.datetime) -> Findings:
    """Whether anybody issues what is asked for."""
    if looked.owner is None or looked.issuing is None:
        return
    if looked.issuing.problem is not None:
        yield Finding(kind=Kind.NOBODY_ISSUES, message=f"{looked.issuing.problem}; WebhookCertificate {looked.owner} is"
                      " neither renewed nor repaired meanwhile", remedy=looked.issuing.remedy)
    elif looked.issuing.identity is None:
        yield Finding(kind=Kind.NOT_KNOWN, wrong=False, message=f"whether anybody issues WebhookCertificate"
                      f" {looked.owner} is not known: {looked.issuing.hidden}",
                      remedy="ask for the right to list kopfpeerings, deployments and daemonsets in all namespaces")


_DEFECTS = {reasons.Reason.KEY_MISMATCH: Kind.KEY_MISMATCH, reasons.Reason.EXPIRED: Kind.EXPIRED,
            reasons.Reason.NOT_YET_VALID: Kind.EXPIRED}


def _content(looked: Looked, now: datetime.datetime) -> Findings:
    defect = leaf.readable(looked.leaf, now) or leaf.in_force(looked.leaf, now)
    if defect is not None:
        yield Finding(kind=_DEFECTS.get(defect.reason, Kind.UNREADABLE), message=defect.message, remedy=_renew(looked))
    elif looked.leaf.certificate is not None and looked.leaf.certificate.not_after - now < SOON:
        end = looked.leaf.certificate.not_after
        yield Finding(kind=Kind.EXPIRES_SOON, message=f"the leaf ends in {(end - now).days} days, at {end:%Y-%m-%d}",
                      remedy=_renew(looked))


def _names(looked: Looked, now: datetime.datetime) -> Findings:
    certificate = looked.leaf.certificate
    if certificate is None:
        return
    for namespace, service in sorted({item.service for item in looked.callers}):
        name = f"{service}.{namespace}.svc"
        if not leaf.covers(certificate.dns_names, name):
            held = ", ".join(sorted(certificate.dns_names)) or "no name"
            yield Finding(kind=Kind.NAMES_MISSING, message=f"the leaf is for {held}, but it is called as {name}",
                          remedy="add the name to what the certificate is made from, and let it be issued anew")


def _trust(looked: Looked, now: datetime.datetime) -> Findings:
    bad = [item.what for item in looked.callers if not item.verifies]
    if looked.leaf.certificate is not None and bad:
        yield Finding(
            kind=Kind.BUNDLE_REPLACED, message=f"the caBundle of {_some(bad)} does not verify the leaf in the Secret;"
            " each call fails with 'certificate signed by unknown authority'",
            remedy="put the CA of the leaf into it: for a certificate of steadyhook's, annotate it with"
            " steadyhook.io/inject-ca-from; else restart the program, which writes it at its start")


def _service(looked: Looked, now: datetime.datetime) -> Findings:
    if not looked.callers:
        yield Finding(kind=Kind.NOBODY_CALLS, message="no webhook configuration, conversion or APIService calls a"
                      " Service that this leaf is for", remedy="nothing, if the webhook is not installed any more",
                      wrong=False)
        return
    if not looked.pods:
        yield Finding(kind=Kind.NOBODY_SERVES, message="the Services that are called have no endpoints",
                      remedy="look at the pods and at the Services' selectors")
    waiting = [item.name for item in looked.pods if not item.ready]
    if waiting:
        yield Finding(kind=Kind.NOT_READY, message=f"{len(waiting)} of {len(looked.pods)} pods are not ready:"
                      f" {_some(waiting)}", remedy="if the Secret is calm, steadyhook repair restart DAEMONSET"
                      f" -n {looked.namespace}; else end the storm first")


def _served(looked: Looked, now: datetime.datetime) -> Findings:
    certificate = looked.leaf.certificate
    if certificate is None:
        return
    others = [f"{item.pod} on {item.node}" for item in looked.instances if item.fingerprint != certificate.fingerprint]
    if others:
        yield Finding(kind=Kind.ANOTHER_LEAF, message=f"{len(others)} of {len(looked.instances)} instances serve"
                      f" another leaf than the Secret's: {_some(others)}", remedy="right after a renewal that passes by"
                      f" itself; else look at the logs of these pods, and at kubectl get mnode -n {looked.namespace}")


def _remarks(looked: Looked, now: datetime.datetime) -> Findings:
    if looked.static:
        yield Finding(kind=Kind.STATIC, wrong=False, message="listeners of dynamiclistener leave it alone"
                      " (listener.cattle.io/static)" + (f"; WebhookCertificate {looked.owner} looks after it"
                                                        if looked.owner else ""),
                      remedy="nothing" if looked.owner else "see that somebody renews it")
    if looked.clock_ahead is not None:
        seconds = round(looked.clock_ahead.total_seconds())
        yield Finding(kind=Kind.CLOCK_DIFFERS, wrong=False, message=f"the clock of this machine is {abs(seconds)} s"
                      f" {'ahead of' if seconds > 0 else 'behind'} that of the API server, by which everything here is"
                      " judged", remedy="set one of them right; instances whose clocks differ by so much disagree about"
                      " who is active")


_CHECKS = (_contention, _issuing, _content, _names, _trust, _service, _served, _remarks)


def _renew(looked: Looked) -> str:
    """What makes a new leaf."""
    if looked.owner is not None:
        return f"look at kubectl describe whcert {looked.owner} -n {looked.namespace}: its issuer has to issue it anew"
    if looked.cert_manager is not None:
        return (f"look at kubectl describe certificate {looked.cert_manager} -n {looked.namespace}: cert-manager has to"
                " issue it anew")
    if not looked.listened:
        return "restart the program that made it: most of them renew their certificate at the start"
    return adoption(looked)


def _end(looked: Looked) -> str:
    """What ends a fight over it."""
    if looked.owner is not None:
        return f"look at kubectl describe whcert {looked.owner} -n {looked.namespace}: its issuer has to end it"
    if looked.cert_manager is not None or not looked.listened:
        return ("let one of these writers have it: scale the program down to one replica, or take away the other"
                " program that writes it; adopting is for the Secrets of dynamiclistener alone")
    return f"{adoption(looked)}; that freezes it at once, and one issuer has it from then on"


def adoption(looked: Looked) -> str:
    """The command that adopts it, after what has to be there first."""
    command = f"steadyhook repair adopt {looked.name} -n {looked.namespace}"
    if (first := obstacle(looked)) is None:
        return command
    problem, remedy = first
    return f"first {remedy} (now {problem}); then {command}"


def obstacle(looked: Looked) -> tuple[str, str] | None:
    """Why nobody would issue it if it were adopted now, and what to do."""
    issuing = looked.issuing
    if issuing is not None and issuing.problem is not None:
        return issuing.problem, issuing.remedy
    if issuing is not None and looked.rights_missing:
        return (f"the issuer's account {issuing.account} may not: {', '.join(looked.rights_missing)}",
                issuers.install(looked.namespace))
    return None


def _some(names: list[str]) -> str:
    more = len(names) - NAMES_SHOWN
    return ", ".join(names[:NAMES_SHOWN]) + (f" and {more} more" if more > 0 else "")
