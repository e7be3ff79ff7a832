"""
The configurations that ask for a certificate's bundle by annotation.

Whoever may create such an object can ask: what it holds is believed only once it is known that it may be written.
"""
import collections.abc
import dataclasses
import logging

from steadyhook.cluster import client, paths
from steadyhook.core import bounds, conditions, facts, leaf, policy
from steadyhook.pki import entries

logger = logging.getLogger(__name__)

INJECT_FROM = "steadyhook.io/inject-ca-from"

Listing = collections.abc.Callable[[str], collections.abc.Awaitable[list[client.Manifest]]]
"""The metadata of all configurations of a kind."""
States = collections.abc.Mapping[str, facts.ConfigurationState]


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """Those that ask for this certificate's bundle; and in words, for a person, what cannot work."""

    configurations: tuple[facts.Configuration, ...]
    strays: tuple[str, ...] = ()  # that ask for the bundle of a certificate that does not exist
    left_out: int = 0  # so many more ask than are looked after


class Asking:
    """What was read of an object is kept until its resourceVersion changes."""

    def __init__(self) -> None:
        self._read: dict[tuple[str, str], tuple[str, tuple[facts.Entry, ...]]] = {}

    async def find(
        self, cluster: client.Cluster, manifest: client.Manifest, wanted: policy.Policy, *, states: States,
        listing: Listing | None = None,
    ) -> Found:
        """``manifest``: the WebhookCertificate. ``states``: what is known by uid. Raises :class:`client.APIError`."""
        known = conditions.known_configurations(manifest.get("status") or {})
        asking, others = [], []
        for kind in paths.CONFIGURATION_KINDS:
            listed = await (listing(kind) if listing is not None else cluster.list_metadata(paths.configurations(kind)))
            for item in listed:
                metadata = item["metadata"]
                namespace, _, asked = (metadata.get("annotations") or {}).get(INJECT_FROM, "").partition("/")
                if namespace != wanted.namespace:
                    continue
                if asked == wanted.name:
                    asking.append((kind, metadata))
                else:
                    others.append((f"{kind} {metadata['name']}", asked))
        if len(asking) > bounds.CONFIGURATIONS:  # whoever makes many does not push out those that are looked after
            asking.sort(key=lambda item: (item[1]["uid"] not in known, item[1].get("creationTimestamp", "")))
        found = {}
        for kind, metadata in asking[:bounds.CONFIGURATIONS]:
            key = kind, metadata["uid"]
            read = await self._find_entries(cluster, key, metadata)
            if read is not None:
                found[key] = _configuration(kind, metadata, *read, known=known, states=states)
        self._read = {key: value for key, value in self._read.items() if key in found}
        return Found(configurations=tuple(found.values()), left_out=max(0, len(asking) - bounds.CONFIGURATIONS),
                     strays=await _strays(cluster, wanted.namespace, others))

    async def _find_entries(
        self, cluster: client.Cluster, key: tuple[str, str], metadata: client.Manifest
    ) -> tuple[str, tuple[facts.Entry, ...]] | None:
        """The resourceVersion and the entries as they are in it; None if the object is gone."""
        kept = self._read.get(key)
        if kept is not None and kept[0] == metadata["resourceVersion"]:
            return kept
        kind, uid = key
        manifest = await cluster.find(paths.configuration(kind, metadata["name"]))
        if manifest is None or manifest["metadata"]["uid"] != uid:
            return None
        read = self._read[key] = manifest["metadata"]["resourceVersion"], tuple(entries.read(kind, manifest))
        return read


def lost_callers(configurations: collections.abc.Iterable[facts.Configuration], wanted: policy.Policy
                 ) -> tuple[str, ...]:
    """In words, which call a Service by a name that the leaf does not have: none of these calls can succeed."""
    return tuple(sorted({
        f"{item.kind} {item.name} calls {called}" for item in configurations for entry in item.entries
        if (called := called_name(entry)) is not None and not leaf.covers(wanted.dns_names, called)}))


def called_name(entry: facts.Entry) -> str | None:
    """The DNS name by which the API server calls, None where it calls an address by itself (``url``)."""
    return f"{entry.service[1]}.{entry.service[0]}.svc" if entry.service is not None else None


def _configuration(
    kind: str, metadata: client.Manifest, version: str, read: tuple[facts.Entry, ...], *,
    known: collections.abc.Container[str], states: States,
) -> facts.Configuration:
    uid = metadata["uid"]
    untried = facts.ConfigurationState.OPEN if uid in known else facts.ConfigurationState.UNTRIED
    return facts.Configuration(kind=kind, name=metadata["name"], uid=uid, resource_version=version, entries=read,
                               known=uid in known, state=states.get(uid, untried))


async def _strays(
    cluster: client.Cluster, namespace: str, others: list[tuple[str, str]]
) -> tuple[str, ...]:
    """
    Those that ask for a certificate that does not exist.

    No name in an annotation, which anybody can write, becomes a path; and as it is only told, no failure matters.
    """
    if not others:
        return ()
    try:
        names = {item["metadata"]["name"] for item in await cluster.list_metadata(paths.certificates(namespace))}
    except client.APIError as error:
        logger.info("Whether other certificates exist that configurations ask for is not known: %s", error)
        return ()
    return tuple(f"{what} asks for the bundle of {namespace}/{asked}" for what, asked in others if asked not in names)
