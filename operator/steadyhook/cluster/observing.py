"""Gathering: all the reading that a decision of the issuer needs, turned into facts."""
import asyncio
import collections.abc
import dataclasses
import datetime
import logging
import random

from steadyhook.cluster import asking, client, paths, servers, sharing
from steadyhook.core import facts, policy, proofs, reasons, rivals, rotation
from steadyhook.core import leaf as rules
from steadyhook.pki import certificates, entries, secrets

logger = logging.getLogger(__name__)

READS_AT_ONCE = 8  # of configurations that have changed
READ_ATTEMPTS = 3
CANDIDATES = 1024  # certificates that may have signed a leaf


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Observation:
    """The facts, the CA Secret's key pairs, which go nowhere but into writes, and where each server listens."""

    seen: facts.Seen
    pairs: collections.abc.Mapping[facts.Fingerprint, certificates.KeyPair] = dataclasses.field(repr=False)
    listeners: collections.abc.Mapping[str, tuple[proofs.Listener, ...]] = dataclasses.field(default_factory=dict)


async def observe(
    cluster: client.Cluster, manifest: client.Manifest, wanted: policy.Policy, *,
    states: collections.abc.Mapping[str, facts.ConfigurationState],
    last_generation: int, calls: "Calls", asked: asking.Asking,
) -> Observation:
    """
    See everything about one certificate, by reads that bypass every cache and begin after this was called.

    ``manifest``: its WebhookCertificate, just read. ``states``: what is known of configurations by uid.
    ``last_generation``: what this instance has issued itself, which the status may not tell yet.
    Raises :class:`client.APIError`.
    """
    authority_manifest = await cluster.find(paths.secret(wanted.namespace, wanted.authority_secret_name))
    leaf_manifest = await cluster.find(paths.secret(wanted.namespace, wanted.secret_name))
    by_listener = wanted.compatibility is policy.Compatibility.DYNAMICLISTENER
    authority = secrets.read_authority(authority_manifest, by_listener=by_listener) if authority_manifest else None
    status = manifest.get("status") or {}
    provided, provided_pairs = await _provided(cluster, wanted)
    if by_listener:
        found = asking.Found(configurations=await calls.find(cluster, wanted.services))
        # A CA of the user's own may sign for others too, who call by names of their own.
        ours = authority is not None and wanted.authority_name is None
        callers = calls.trusting(authority.bundle if authority is not None and ours else ())
    else:
        found = await asked.find(cluster, manifest, wanted, states=states,
                                 listing=lambda kind: calls.listed(cluster, kind))
        callers = found.configurations
    # A leaf of a listener comes without its CA: if the CA Secret is lost, the configurations alone may hold it.
    trusted = _trusted(found.configurations) if by_listener else []
    candidates = [*(authority.bundle if authority is not None else ()), *trusted]
    leaf = secrets.read_leaf(
        leaf_manifest, authorities=candidates, by_listener=by_listener) if leaf_manifest is not None else None
    seen = facts.Seen(
        leaf=leaf,
        provided=provided if isinstance(provided, facts.Certificate) else None,
        provided_defect=provided if isinstance(provided, facts.Defect) else None,
        authority=authority,
        configurations=found.configurations,
        strays=found.strays,
        left_out=found.left_out,
        lost_callers=asking.lost_callers(callers, wanted),
        last_generation=rules.last_generation(
            status.get("generation"), last_generation, datetime.datetime.now(datetime.UTC)),
        last_signer=status.get("caFingerprint"),
        remembered=frozenset(status.get("trustedCAs") or ()),
        retired=tuple(status.get("retiredCAs") or ()),
    )
    pairs = {**provided_pairs, **(secrets.signing_pairs(authority_manifest) if authority_manifest else {})}
    if not rotation.has_switched(seen):
        return Observation(seen=seen, pairs=pairs)
    try:
        serving = await servers.find(cluster, wanted, found.configurations)
    except client.APIError as error:
        return Observation(seen=dataclasses.replace(seen, servers_defect=_unknown(wanted, error)), pairs=pairs)
    return Observation(
        seen=dataclasses.replace(seen, servers=serving.servers, foreign_entries=serving.foreign_entries), pairs=pairs,
        listeners=serving.listeners)


def _trusted(configurations: collections.abc.Iterable[facts.Configuration]) -> list[facts.Certificate]:
    """What webhooks trust, each certificate once: so many that nobody can make this take long."""
    every = (item for one in configurations for entry in one.entries for item in entry.trusted)
    return list({item.fingerprint: item for item in every}.values())[:CANDIDATES]


async def find_rival(cluster: client.Cluster, namespace: str, name: str) -> rivals.Rival | None:
    """The older WebhookCertificate that has a Secret of this one, if there is one. Raises :class:`client.APIError`."""
    return rivals.find((await cluster.get(paths.certificates(namespace)))["items"]).get((namespace, name))


def _unknown(wanted: policy.Policy, error: client.APIError) -> facts.Defect:
    """Why nobody knows who serves, which holds back the last step of a rotation and nothing else."""
    logger.warning("Who serves WebhookCertificate %s/%s is not known: %s", wanted.namespace, wanted.name, error)
    if isinstance(error, client.Unreachable):
        return facts.Defect(reason=reasons.Reason.API_UNREACHABLE, message=f"who serves is not known: {error}")
    remedy = "look for what refuses this"
    if isinstance(error, client.Forbidden):
        homes = ", ".join(sorted({wanted.namespace, *(namespace for namespace, _ in wanted.services)}))
        remedy = (f"let a Role in each namespace ({homes}) allow the issuer to list endpointslices and managernodes and"
                  " to get pods")
    return facts.Defect(reason=reasons.Reason.SERVERS_UNKNOWN,
                        message=f"the old CA stays, as who serves is not known: {error}; {remedy}")


async def observe_switched(
    cluster: client.Cluster, wanted: policy.Policy, before: Observation
) -> Observation | None:
    """
    See what the leaf needs right after the CA Secret says that the next CA signs: the two Secrets, and no more.

    ``before``: what that was decided from. None when a Secret is not there: then everything has to be looked at.
    Raises :class:`client.APIError`.

    Until the leaf is written the two Secrets do not go together, and a program that checks the pair could replace it;
    so nothing else is read again between the two writes. That is safe: what the leaf depends on is the CA Secret and
    the leaf Secret, which are read afresh, and the leaf is written only over the version read here. That the next CA
    is trusted by every configuration, for long enough, was the condition of the write before this one, it is by that
    write that every other instance goes on with the same leaf, and what a configuration trusts meanwhile only grows:
    a configuration that somebody overwrites in this moment would be overwritten just the same a moment later.
    """
    authority_manifest, leaf_manifest = await asyncio.gather(
        cluster.find(paths.secret(wanted.namespace, wanted.authority_secret_name)),
        cluster.find(paths.secret(wanted.namespace, wanted.secret_name)))
    if authority_manifest is None or leaf_manifest is None:
        return None
    by_listener = wanted.compatibility is policy.Compatibility.DYNAMICLISTENER
    authority = secrets.read_authority(authority_manifest, by_listener=by_listener)
    leaf = secrets.read_leaf(leaf_manifest, authorities=authority.bundle, by_listener=by_listener)
    return dataclasses.replace(
        before, seen=dataclasses.replace(before.seen, authority=authority, leaf=leaf),
        pairs={**before.pairs, **secrets.signing_pairs(authority_manifest)})


async def _provided(
    cluster: client.Cluster, wanted: policy.Policy
) -> tuple[facts.Certificate | facts.Defect | None, dict[facts.Fingerprint, certificates.KeyPair]]:
    """The CA of the user's own, None if there is to be none, and its key pair if it can be used."""
    if wanted.authority_name is None:
        return None, {}
    try:
        manifest = await cluster.find(paths.secret(wanted.namespace, wanted.authority_name))
    except client.Forbidden as error:
        return facts.Defect(reason=reasons.Reason.FORBIDDEN, message=f"{error}; add Secret {wanted.authority_name} to"
                            " resourceNames of the Role that the issuer is bound to, for get"), {}
    if manifest is None:
        return facts.Defect(reason=reasons.Reason.SECRET_MISSING,
                            message=f"Secret {wanted.authority_name}, of spec.authority.secretName, does not exist"), {}
    found = secrets.read_provided(manifest, wanted=wanted, now=datetime.datetime.now(datetime.UTC))
    return found, secrets.signing_pairs(manifest) if isinstance(found, facts.Certificate) else {}


Services = frozenset[tuple[str, str]]
"""(namespace, name) of each."""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class _Read:
    """What was read of a configuration, as it was at this version."""

    name: str
    version: str
    entries: tuple[facts.Entry, ...]

    @property
    def services(self) -> Services:
        return frozenset(item.service for item in self.entries if item.service is not None)


class Calls:
    """
    The configurations that call certain Services, though nothing in their metadata says so.

    What was read of an object is kept until its resourceVersion changes, as all definitions of a cluster are many MiB.
    One memory will do for all certificates of a process, and those that ask at the same time share the reads: a
    decision still rests on lists that began after it had asked (see :class:`sharing.Shared`).

    ``on_change``: told the Services that something else calls now, or calls in another way.
    """

    def __init__(self, on_change: collections.abc.Callable[[Services], None] = lambda services: None) -> None:
        self._read: dict[tuple[str, str], _Read] = {}
        self._on_change = on_change
        self._refreshing: sharing.Shared[None] = sharing.Shared()
        self._listing: dict[str, sharing.Shared[list[client.Manifest]]] = {
            kind: sharing.Shared() for kind in paths.CONFIGURATION_KINDS}

    def trusting(self, bundle: collections.abc.Iterable[facts.Certificate]) -> tuple[facts.Configuration, ...]:
        """Those that trusted any of these certificates at the last look, with these entries alone."""
        wanted = {item.fingerprint for item in bundle}
        return self._with(lambda entry: bool(wanted & {item.fingerprint for item in entry.trusted}))

    async def find(self, cluster: client.Cluster, services: Services) -> tuple[facts.Configuration, ...]:
        """Those that call any of the Services, with these entries alone. Raises :class:`client.APIError`."""
        await self.refresh(cluster)
        return self._with(lambda entry: entry.service in services)

    def _with(self, matches: collections.abc.Callable[[facts.Entry], bool]) -> tuple[facts.Configuration, ...]:
        return tuple(
            facts.Configuration(kind=kind, name=kept.name, uid=uid, resource_version=kept.version, entries=ours,
                                state=facts.ConfigurationState.READ_ONLY)
            for (kind, uid), kept in self._read.items() if (ours := tuple(filter(matches, kept.entries))))

    async def refresh(self, cluster: client.Cluster) -> None:
        """List all, and read what has changed since the last time. Raises :class:`client.APIError`."""
        await self._refreshing.get(lambda: self._refresh(cluster))

    async def listed(self, cluster: client.Cluster, kind: str) -> list[client.Manifest]:
        """The metadata of all configurations of a kind. Raises :class:`client.APIError`."""
        return await self._listing[kind].get(lambda: cluster.list_metadata(paths.configurations(kind)))

    async def _refresh(self, cluster: client.Cluster) -> None:
        listed = await asyncio.gather(*(self.listed(cluster, kind) for kind in paths.CONFIGURATION_KINDS))
        present = {(kind, item["metadata"]["uid"]): item["metadata"]
                   for kind, items in zip(paths.CONFIGURATION_KINDS, listed, strict=True) for item in items}
        for key in self._read.keys() - present.keys():
            self._on_change(self._read.pop(key).services)
        limit = asyncio.Semaphore(READS_AT_ONCE)
        results = await asyncio.gather(*(
            self._read_one(cluster, key, metadata["name"], limit) for key, metadata in present.items()
            if key not in self._read or self._read[key].version != metadata["resourceVersion"]), return_exceptions=True)
        # What could be read is kept: the next look needs the rest alone.
        for problem in results:
            if problem is not None:
                raise problem

    async def _read_one(
        self, cluster: client.Cluster, key: tuple[str, str], name: str, limit: asyncio.Semaphore
    ) -> None:
        kind, uid = key
        before = self._read.get(key)
        async with limit:
            manifest = await _find_patiently(cluster, paths.configuration(kind, name))
        if manifest is None or manifest["metadata"]["uid"] != uid:
            self._read.pop(key, None)
            return
        read = self._read[key] = _Read(
            name=name, version=manifest["metadata"]["resourceVersion"],
            entries=tuple(one for one in entries.read(kind, manifest) if one.service is not None))
        if before is None or before.entries != read.entries:
            self._on_change(read.services | (before.services if before is not None else frozenset()))


async def _find_patiently(cluster: client.Cluster, path: str) -> client.Manifest | None:
    """Of many reads under load some few fail, and the others need not wait for another look."""
    for _ in range(READ_ATTEMPTS - 1):
        try:
            return await cluster.find(path)
        except client.Unreachable:
            await asyncio.sleep(random.uniform(0.0, 0.3))
    return await cluster.find(path)
