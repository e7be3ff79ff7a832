"""Gathering: all the reading that a decision of the issuer needs, turned into facts."""
import collections.abc
import dataclasses
import datetime
import logging

from steadyhook.cluster import asking, client, paths, servers
from steadyhook.core import facts, policy, proofs, reasons, rivals, rotation
from steadyhook.core import leaf as rules
from steadyhook.pki import certificates, entries, secrets

logger = logging.getLogger(__name__)


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
    See everything about one certificate, by reads that bypass every cache.

    ``manifest``: its WebhookCertificate, just read. ``states``: what is known of configurations by uid.
    ``last_generation``: what this instance has issued itself, which the status may not tell yet.
    Raises :class:`client.APIError`.
    """
    authority_manifest = await cluster.find(paths.secret(wanted.namespace, wanted.authority_secret_name))
    leaf_manifest = await cluster.find(paths.secret(wanted.namespace, wanted.secret_name))
    by_listener = wanted.compatibility is policy.Compatibility.DYNAMICLISTENER
    authority = secrets.read_authority(authority_manifest, by_listener=by_listener) if authority_manifest else None
    leaf = secrets.read_leaf(leaf_manifest, authorities=authority.bundle if authority else (),
                             by_listener=by_listener) if leaf_manifest else None
    status = manifest.get("status") or {}
    provided, provided_pairs = await _provided(cluster, wanted)
    if by_listener:
        found = asking.Found(configurations=await calls.find(cluster, wanted.services))
        callers = calls.trusting(authority.bundle if authority is not None else ())
    else:
        found = await asked.find(cluster, manifest, wanted, states=states)
        callers = found.configurations
    seen = facts.Seen(
        leaf=leaf,
        provided=provided if isinstance(provided, facts.Certificate) else None,
        provided_defect=provided if isinstance(provided, facts.Defect) else None,
        authority=authority,
        configurations=found.configurations,
        strays=found.strays,
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


class Calls:
    """
    The configurations that call certain Services, though nothing in their metadata says so.

    What was read of an object is kept until its resourceVersion changes, as all definitions of a cluster are many MiB.
    """

    def __init__(self) -> None:
        self._read: dict[tuple[str, str], tuple[str, str, tuple[facts.Entry, ...]]] = {}

    def trusting(self, bundle: collections.abc.Iterable[facts.Certificate]) -> tuple[facts.Configuration, ...]:
        """Those that trusted any of these certificates at the last look, with these entries alone."""
        wanted = {item.fingerprint for item in bundle}
        return tuple(
            facts.Configuration(kind=kind, name=name, uid=uid, resource_version=version, entries=ours,
                                state=facts.ConfigurationState.READ_ONLY)
            for (kind, uid), (version, name, read) in self._read.items()
            if (ours := tuple(one for one in read if wanted & {item.fingerprint for item in one.trusted})))

    async def find(
        self, cluster: client.Cluster, services: frozenset[tuple[str, str]]
    ) -> tuple[facts.Configuration, ...]:
        """Those that call any of the Services, with these entries alone. Raises :class:`client.APIError`."""
        found = []
        read = {}
        for kind in paths.CONFIGURATION_KINDS:
            for item in await cluster.list_metadata(paths.configurations(kind)):
                key = kind, item["metadata"]["uid"]
                version = item["metadata"]["resourceVersion"]
                kept = self._read.get(key)
                if kept is None or kept[0] != version:
                    manifest = await cluster.find(paths.configuration(kind, item["metadata"]["name"]))
                    if manifest is None:
                        continue
                    version = manifest["metadata"]["resourceVersion"]
                    kept = version, item["metadata"]["name"], tuple(
                        one for one in entries.read(kind, manifest) if one.service is not None)
                read[key] = kept
                calling = tuple(one for one in kept[2] if one.service in services)
                if calling:
                    found.append(facts.Configuration(
                        kind=kind, name=item["metadata"]["name"], uid=item["metadata"]["uid"],
                        resource_version=version, entries=calling, state=facts.ConfigurationState.READ_ONLY))
        self._read = read
        return tuple(found)
