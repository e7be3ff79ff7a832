"""Who issues: what the elections and the programs of the installations in a cluster tell; values in, sentences out."""
import collections.abc
import dataclasses
import datetime
import re
from typing import Any

from steadyhook.core import election

NAMES_SHOWN = 5
OVERLAYS = {"longhorn-system": "manifests/overlays/longhorn", "cattle-system": "manifests/overlays/rancher"}
ISSUING_MODULES = ("steadyhook.manager", "steadyhook.issuer")


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Program:
    """A Deployment or DaemonSet whose pods can issue. ``certificate``: None for those of every namespace."""

    what: str  # kind and name
    namespace: str
    account: str
    peering: str
    certificate: str | None
    ready: int
    wanted: int


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Election:
    """A KopfPeering. ``unreadable``: whose records are none, by kopf's rules."""

    namespace: str
    name: str
    records: tuple[election.Record, ...] = ()
    unreadable: tuple[str, ...] = ()


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Seen:
    """All installations of a cluster, as far as one may look. ``hidden``: what may not be looked at, in words."""

    programs: tuple[Program, ...] = ()
    elections: tuple[Election, ...] = ()
    hidden: str | None = None


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Standing:
    """
    Who issues a certificate, or why nobody does.

    Neither ``identity`` nor ``problem``: it is not known, and ``hidden`` says why. ``account``: of the issuer, as
    "namespace:name".
    """

    identity: str | None = None
    namespace: str | None = None
    account: str | None = None
    problem: str | None = None
    remedy: str = ""
    installed: bool = False  # whether an installation should issue it, so that the problem may pass by itself
    hidden: str | None = None


def read_election(manifest: dict[str, Any]) -> Election:
    """A KopfPeering object; a record that kopf could not read is told apart, and takes no part."""
    records, unreadable = [], []
    for identity, record in (manifest.get("status") or {}).items():
        try:
            (one,) = election.parse({"status": {identity: record}})
        except (ValueError, TypeError, AttributeError, OverflowError):
            unreadable.append(str(identity))
            continue
        if one.expires_at.tzinfo is None:  # kopf takes it as UTC
            one = dataclasses.replace(one, expires_at=one.expires_at.replace(tzinfo=datetime.UTC))
        records.append(one)
    metadata = manifest["metadata"]
    return Election(namespace=metadata["namespace"], name=metadata["name"], records=tuple(records),
                    unreadable=tuple(unreadable))


def read_program(manifest: dict[str, Any]) -> Program | None:
    """A Deployment or DaemonSet; None if its pods do not issue, or take part in no election."""
    pod, status = manifest["spec"]["template"]["spec"], manifest.get("status") or {}
    for container in pod.get("containers") or ():
        line = [*(container.get("command") or ()), *(container.get("args") or ())]
        peering = _option(line, "--peering")
        if peering is None or not any(module in word for word in line for module in ISSUING_MODULES):
            continue
        environment = {item["name"]: item.get("value") for item in container.get("env") or ()}
        of_all = environment.get("STEADYHOOK_CERTIFICATES") == "all"
        daemons = manifest["kind"] == "DaemonSet"
        return Program(
            what=f"{manifest['kind']} {manifest['metadata']['name']}", namespace=manifest["metadata"]["namespace"],
            account=pod.get("serviceAccountName") or "default", peering=peering,
            certificate=None if of_all else environment.get("STEADYHOOK_CERTIFICATE") or "steadyhook-webhook",
            ready=status.get("numberReady" if daemons else "readyReplicas") or 0,
            wanted=(status.get("desiredNumberScheduled") or 0) if daemons else manifest["spec"].get("replicas", 1))
    return None


def standing(seen: Seen, *, namespace: str, certificate: str, now: datetime.datetime) -> Standing:
    """
    Who issues this certificate, which need not exist yet. ``now``: by the API server's clock.

    Same input, same output; never raises.
    """
    programs = [item for item in seen.programs if item.certificate is None
                or (item.namespace, item.certificate) == (namespace, certificate)]
    wanted = dict.fromkeys((item.namespace, item.peering) for item in programs)
    known = {(item.namespace, item.name): item for item in seen.elections}
    if not any(item.namespace == namespace for item in seen.programs):  # issuers that run outside of the cluster
        wanted |= dict.fromkeys(key for key in known if key[0] == namespace)
    for key in wanted:
        active = _active(known[key], now) if key in known else None
        if active is not None:
            account = next((f"{item.namespace}:{item.account}" for item in programs
                            if (item.namespace, item.peering) == key), None)
            return Standing(identity=active, namespace=key[0], account=account, hidden=seen.hidden)
    if wanted:
        key = next(iter(wanted))
        of_it = [item for item in programs if (item.namespace, item.peering) == key]
        problem, remedy = _nobody(key, known.get(key), of_it, now)
        return Standing(problem=problem, remedy=remedy, installed=True, hidden=seen.hidden)
    if seen.hidden is not None:
        return Standing(hidden=seen.hidden)
    return Standing(problem=f"no installation of steadyhook in this cluster issues WebhookCertificate {certificate} of"
                            f" namespace {namespace}", remedy=install(namespace))


def is_name(text: str) -> bool:
    """Whether it can be the name of a pod (a DNS subdomain), and so a part of a path."""
    return re.fullmatch(r"[a-z0-9]([-a-z0-9.]{0,251}[a-z0-9])?", text) is not None and ".." not in text


def install(namespace: str) -> str:
    """What makes issuers look after a namespace."""
    if namespace in OVERLAYS:
        return f"kubectl apply -k {OVERLAYS[namespace]}, which creates the WebhookCertificate as well"
    return (f"kubectl apply -k manifests/overlays/issuer, and a Role with its RoleBinding in namespace {namespace}, as"
            " in manifests/components/longhorn/role.yaml")


def _active(of: Election, now: datetime.datetime) -> str | None:
    """The identity of the active instance."""
    return next((item.identity for item in of.records
                 if election.role(of.records, identity=item.identity, now=now) is election.Role.ACTIVE), None)


def _nobody(
    key: tuple[str, str], of: Election | None, programs: collections.abc.Sequence[Program], now: datetime.datetime
) -> tuple[str, str]:
    """Why nobody is active in an election, and what to do."""
    name = f"KopfPeering {key[0]}/{key[1]}"
    look = f"look at kubectl get pods -n {key[0]} -l app.kubernetes.io/name=steadyhook, and at their logs"
    pods = "; ".join(f"{item.what}: {item.ready} of {item.wanted} pods ready" for item in programs)
    pods = f" ({pods})" if pods else ""
    if of is None:
        return f"nobody issues: {name} does not exist{pods}", "apply the manifests of the installation again"
    live = [item.identity for item in of.records if item.is_live(now)]
    if live:
        return (f"nobody issues: {', '.join(live[:NAMES_SHOWN])} have the same priority in {name}, and each waits for"
                f" the others{pods}", f"delete one of these pods in namespace {key[0]}")
    if of.unreadable:
        shown = ", ".join(of.unreadable[:NAMES_SHOWN])
        return (f"nobody issues: {name} has no live record, and records that cannot be read: {shown}{pods}",
                f"take these records out of its status (kubectl edit kopfpeering {key[1]} -n {key[0]}), then {look}")
    if of.records:
        since = max(item.expires_at for item in of.records)
        return (f"nobody issues for {_ago(now - since)}: the last record in {name} ended at"
                f" {since.astimezone(datetime.UTC):%Y-%m-%d %H:%M:%S} UTC{pods}", look)
    return f"nobody issues: {name} has no record; for how long is not known{pods}", look


def _ago(time: datetime.timedelta) -> str:
    seconds = max(0, int(time.total_seconds()))
    for size, unit in ((86400, "days"), (3600, "hours"), (60, "minutes")):
        if seconds >= 2 * size:
            return f"{seconds // size} {unit}"
    return f"{seconds} seconds"


def _option(line: list[str], name: str) -> str | None:
    """The value of a command line's option."""
    for index, word in enumerate(line):
        if word.startswith(f"{name}="):
            return word.partition("=")[2]
        if word == name and index + 1 < len(line):
            return line[index + 1]
    return None
