"""Who serves a webhook: the endpoints of its Services, joined by pod UID with what the instances say of themselves."""
import collections.abc
import dataclasses

from steadyhook.cluster import client, paths
from steadyhook.core import facts, policy

Address = tuple[str, int]
"""IP address and port."""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """A server, and where its endpoint is, if it is one."""

    server: facts.Server
    address: Address | None = None


async def find(cluster: client.Cluster, wanted: policy.Policy) -> tuple[Found, ...]:
    """
    Everyone who may still serve an older leaf: each endpoint, ready or not, and each instance whose pod exists.

    Read afresh, since the old CA leaves by it. Raises :class:`client.APIError`.
    """
    said = await _instances(cluster, wanted)
    found: dict[str, Found] = {}
    for namespace, service in sorted(wanted.services):
        for part in (await cluster.get(paths.endpoint_slices(namespace, service)))["items"]:
            for uid, name, address in _endpoints(part):
                # Of two address families of one pod the first will do: it is one process.
                found.setdefault(uid, Found(address=address, server=facts.Server(
                    pod_uid=uid, name=said[uid][0] if uid in said else name,
                    fingerprint=said[uid][2] if uid in said else None)))
    for uid, (node, pod_name, fingerprint) in said.items():
        if uid not in found and await _exists(cluster, wanted.namespace, pod_name, uid):
            found[uid] = Found(server=facts.Server(pod_uid=uid, name=node, fingerprint=fingerprint))
    return tuple(found[uid] for uid in sorted(found))


def count(
    nodes: collections.abc.Iterable[client.Manifest], certificate: str, fingerprint: str | None
) -> tuple[int, int]:
    """How many of a certificate's instances in these ManagerNodes serve this leaf, and how many there are."""
    entries = [item for _, item in _entries(nodes, certificate)]
    return sum(1 for item in entries if fingerprint and item.get("fingerprint") == fingerprint), len(entries)


async def _instances(cluster: client.Cluster, wanted: policy.Policy) -> dict[str, tuple[str, str, str | None]]:
    nodes = await cluster.get(paths.manager_nodes(wanted.namespace))
    return {item["podUID"]: (node, item["podName"], item.get("fingerprint"))
            for node, item in _entries(nodes["items"], wanted.name)}


def _entries(
    nodes: collections.abc.Iterable[client.Manifest], certificate: str
) -> collections.abc.Iterator[tuple[str, client.Manifest]]:
    for node in nodes:
        for item in (node.get("status") or {}).get("instances", []):
            if item.get("certificate") == certificate:
                yield node["metadata"]["name"], item


def _endpoints(part: client.Manifest) -> collections.abc.Iterator[tuple[str, str, Address]]:
    ports = [item["port"] for item in part.get("ports") or [] if item.get("protocol", "TCP") == "TCP"]
    for endpoint in part.get("endpoints") or []:
        target = endpoint.get("targetRef") or {}
        address = endpoint["addresses"][0]
        if ports:
            yield target.get("uid", address), target.get("name", address), (address, ports[0])


async def _exists(cluster: client.Cluster, namespace: str, name: str, uid: str) -> bool:
    pod = await cluster.find(paths.pod(namespace, name))
    return pod is not None and bool(pod["metadata"]["uid"] == uid)
