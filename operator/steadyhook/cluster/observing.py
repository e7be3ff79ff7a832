"""Gathering: all the reading that a decision of the issuer needs, turned into facts."""
import collections.abc
import dataclasses
import datetime

from steadyhook.cluster import client, paths, servers
from steadyhook.core import conditions, facts, policy, reasons, rotation
from steadyhook.pki import certificates, entries, secrets

INJECT_FROM = "steadyhook.io/inject-ca-from"


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Observation:
    """The facts, the CA Secret's key pairs, which go nowhere but into writes, and where the servers are."""

    seen: facts.Seen
    pairs: collections.abc.Mapping[facts.Fingerprint, certificates.KeyPair] = dataclasses.field(repr=False)
    addresses: collections.abc.Mapping[str, servers.Address] = dataclasses.field(default_factory=dict)


async def observe(
    cluster: client.Cluster, manifest: client.Manifest, wanted: policy.Policy, *,
    states: collections.abc.Mapping[str, facts.ConfigurationState],
    last_generation: int, calls: "Calls",
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
    configurations: tuple[facts.Configuration, ...]
    strays: tuple[str, ...] = ()
    if by_listener:
        configurations = await calls.find(cluster, wanted.services)
    else:
        configurations, strays = await _configurations(cluster, manifest, wanted, states=states)
    seen = facts.Seen(
        leaf=leaf,
        provided=provided if isinstance(provided, facts.Certificate) else None,
        provided_defect=provided if isinstance(provided, facts.Defect) else None,
        authority=authority,
        configurations=configurations,
        strays=strays,
        last_generation=max(status.get("generation") or 0, last_generation),
        last_signer=status.get("caFingerprint"),
        remembered=frozenset(status.get("trustedCAs") or ()),
        retired=tuple(status.get("retiredCAs") or ()),
    )
    pairs = {**provided_pairs, **(secrets.signing_pairs(authority_manifest) if authority_manifest else {})}
    if not rotation.has_switched(seen):
        return Observation(seen=seen, pairs=pairs)
    found = await servers.find(cluster, wanted)
    return Observation(
        seen=dataclasses.replace(seen, servers=tuple(item.server for item in found)), pairs=pairs,
        addresses={item.server.pod_uid: item.address for item in found if item.address is not None})


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


async def _configurations(
    cluster: client.Cluster, manifest: client.Manifest, wanted: policy.Policy, *,
    states: collections.abc.Mapping[str, facts.ConfigurationState],
) -> tuple[tuple[facts.Configuration, ...], tuple[str, ...]]:
    """Those that ask for this certificate's bundle; and in words those that ask for one that does not exist."""
    known = conditions.known_configurations(manifest.get("status") or {})
    found, strays = [], []
    for kind in paths.CONFIGURATION_KINDS:
        for item in await cluster.list_metadata(paths.configurations(kind)):
            name = item["metadata"]["name"]
            namespace, _, asked = (item["metadata"].get("annotations") or {}).get(INJECT_FROM, "").partition("/")
            if namespace != wanted.namespace:
                continue
            if asked == wanted.name:
                configuration = await cluster.find(paths.configuration(kind, name))
                if configuration is not None:
                    found.append(_configuration(kind, configuration, known=known, states=states))
            elif not asked or await cluster.find(paths.certificate(namespace, asked)) is None:
                strays.append(f"{kind} {name} asks for the bundle of {namespace}/{asked}")
    return tuple(found), tuple(strays)


def _configuration(
    kind: str, manifest: client.Manifest, *, known: collections.abc.Container[str],
    states: collections.abc.Mapping[str, facts.ConfigurationState],
) -> facts.Configuration:
    metadata = manifest["metadata"]
    return facts.Configuration(
        kind=kind, name=metadata["name"], uid=metadata["uid"], resource_version=metadata["resourceVersion"],
        entries=tuple(entries.read(kind, manifest)), known=metadata["uid"] in known,
        state=states.get(metadata["uid"], facts.ConfigurationState.OPEN),
    )


class Calls:
    """
    The configurations that call certain Services, though nothing in their metadata says so.

    What was read of an object is kept until its resourceVersion changes, as all definitions of a cluster are many MiB.
    """

    def __init__(self) -> None:
        self._read: dict[tuple[str, str], tuple[str, tuple[facts.Entry, ...]]] = {}

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
                    kept = version, tuple(one for one in entries.read(kind, manifest) if one.service is not None)
                read[key] = kept
                calling = tuple(one for one in kept[1] if one.service in services)
                if calling:
                    found.append(facts.Configuration(
                        kind=kind, name=item["metadata"]["name"], uid=item["metadata"]["uid"],
                        resource_version=version, entries=calling, state=facts.ConfigurationState.READ_ONLY))
        self._read = read
        return tuple(found)
