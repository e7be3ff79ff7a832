"""Who serves a webhook: the endpoints of its Services, joined by pod UID with what the instances say of themselves."""
import asyncio
import collections.abc
import dataclasses

from steadyhook.cluster import client, paths
from steadyhook.core import facts, policy, proofs

PODS_AT_ONCE = 8
GONE = frozenset({"Failed", "Succeeded"})
"""The phases of a pod whose processes have ended for good, though its object may stay for weeks."""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Servers:
    """Everyone who may still serve an older leaf, and where each is to be looked at, by pod UID."""

    servers: tuple[facts.Server, ...]
    listeners: collections.abc.Mapping[str, tuple[proofs.Listener, ...]]
    foreign_entries: tuple[str, ...] = ()  # in words, what nobody believes


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class _Said:
    """What a ManagerNode says of one instance."""

    node: str
    pod_uid: str
    pod_name: str
    fingerprint: facts.Fingerprint | None


@dataclasses.dataclass(slots=True, kw_only=True)
class _Endpoint:
    name: str
    node: str | None
    listeners: dict[frozenset[int], proofs.Listener] = dataclasses.field(default_factory=dict)


async def find(
    cluster: client.Cluster, wanted: policy.Policy,
    configurations: collections.abc.Iterable[facts.Configuration] = (),
) -> Servers:
    """
    Everyone who may still serve an older leaf: each endpoint, ready or not, and each instance whose pod exists.

    ``configurations``: those that call the Services, which tell which of their ports are webhooks.
    Read afresh, since the old CA leaves by it. Raises :class:`client.APIError`.
    """
    said = await _instances(cluster, wanted)
    endpoints: dict[str, _Endpoint] = {}
    for namespace, service in sorted(wanted.services):
        parts = (await cluster.get(paths.endpoint_slices(namespace, service)))["items"]
        named = await _webhook_ports(cluster, (namespace, service), configurations) if any(
            len(part.get("ports") or []) > 1 for part in parts) else None
        for part in parts:
            _add_endpoints(endpoints, part, named=named)
    believed, foreign = await _check(cluster, wanted, said, endpoints)
    servers = [facts.Server(
        pod_uid=uid, name=believed[uid].node if uid in believed else found.name,
        fingerprint=believed[uid].fingerprint if uid in believed else None,
        address=_text(found.listeners.values())) for uid, found in endpoints.items()]
    servers += [facts.Server(pod_uid=uid, name=item.node, fingerprint=item.fingerprint)
                for uid, item in believed.items() if uid not in endpoints]
    return Servers(
        servers=tuple(sorted(servers, key=lambda item: item.pod_uid)), foreign_entries=tuple(foreign),
        listeners={uid: tuple(found.listeners.values()) for uid, found in endpoints.items()})


def count(
    nodes: collections.abc.Iterable[client.Manifest], certificate: str, fingerprint: str | None
) -> tuple[int, int]:
    """How many of a certificate's instances in these ManagerNodes serve this leaf, and how many there are."""
    entries = [item for _, item in _entries(nodes, certificate)]
    return sum(1 for item in entries if fingerprint and item.get("fingerprint") == fingerprint), len(entries)


def is_gone(pod: client.Manifest | None, uid: str) -> bool:
    """Whether the pod of this UID runs no more, by what is there under its name."""
    return pod is None or pod["metadata"]["uid"] != uid or (pod.get("status") or {}).get("phase") in GONE


async def _instances(cluster: client.Cluster, wanted: policy.Policy) -> list[_Said]:
    nodes = await cluster.get(paths.manager_nodes(wanted.namespace))
    return [_Said(node=node, pod_uid=item["podUID"], pod_name=item["podName"], fingerprint=item.get("fingerprint"))
            for node, item in _entries(nodes["items"], wanted.name)]


def _entries(
    nodes: collections.abc.Iterable[client.Manifest], certificate: str
) -> collections.abc.Iterator[tuple[str, client.Manifest]]:
    for node in nodes:
        for item in (node.get("status") or {}).get("instances", []):
            if item.get("certificate") == certificate:
                yield node["metadata"]["name"], item


async def _webhook_ports(
    cluster: client.Cluster, service: tuple[str, str], configurations: collections.abc.Iterable[facts.Configuration]
) -> frozenset[str] | None:
    """The names of the Service's ports that are called; None if nobody says which, or it may not be read."""
    called = {entry.service_port for item in configurations if _is_believed(item)
              for entry in item.entries if entry.service == service}
    if not called:
        return None
    try:
        manifest = await cluster.find(paths.service(*service))
    except client.Forbidden:
        return None
    ports = (manifest or {}).get("spec", {}).get("ports") or []
    return frozenset(item.get("name", "") for item in ports if item["port"] in called) or None


def _is_believed(configuration: facts.Configuration) -> bool:
    """Whether it is no object of just anybody's, which names a port where something else listens."""
    return configuration.known or configuration.state in (
        facts.ConfigurationState.OPEN, facts.ConfigurationState.READ_ONLY)


def _add_endpoints(
    endpoints: dict[str, _Endpoint], part: client.Manifest, *, named: frozenset[str] | None
) -> None:
    """
    Note each endpoint of a slice with its listeners.

    Of two address families of one pod the first will do, as it is one process: so listeners are told by their ports.
    """
    ports = {item.get("name") or "": item["port"] for item in part.get("ports") or []
             if item.get("protocol", "TCP") == "TCP" and item.get("port")}
    if not ports:
        return
    if named is not None and named <= ports.keys():
        groups = [frozenset({ports[name]}) for name in named]
    else:
        groups = [frozenset(ports.values())]
    for endpoint in part.get("endpoints") or []:
        target = endpoint.get("targetRef") or {}
        address = endpoint["addresses"][0]
        found = endpoints.setdefault(target.get("uid", address), _Endpoint(
            name=target.get("name", address), node=endpoint.get("nodeName")))
        for group in groups:
            found.listeners.setdefault(group, frozenset((address, port) for port in group))


async def _check(
    cluster: client.Cluster, wanted: policy.Policy, said: list[_Said], endpoints: dict[str, _Endpoint]
) -> tuple[dict[str, _Said], list[str]]:
    """
    What is believed, by pod UID, and what is not, in words.

    A ManagerNode speaks for the pods of its own node: where those are is in the API server's own objects.
    """
    limit = asyncio.Semaphore(PODS_AT_ONCE)

    async def node_of(item: _Said) -> str | None:
        """None for a pod that is gone."""
        endpoint = endpoints.get(item.pod_uid)
        if endpoint is not None and endpoint.node is not None:
            return endpoint.node
        async with limit:
            pod = await cluster.find(paths.pod(wanted.namespace, item.pod_name))
        return None if pod is None or is_gone(pod, item.pod_uid) else pod["spec"].get("nodeName", "")

    believed, foreign = {}, []
    for item, node in zip(said, await asyncio.gather(*(node_of(item) for item in said), return_exceptions=True),
                          strict=True):
        if isinstance(node, client.Malformed):
            foreign.append(f"ManagerNode {item.node} speaks of a pod named {item.pod_name[:63]!r}")
        elif isinstance(node, BaseException):
            raise node
        elif node is not None and node != item.node:
            foreign.append(f"ManagerNode {item.node} speaks of pod {item.pod_name}, which is on node {node}")
        elif node is not None:
            believed[item.pod_uid] = item
    return believed, foreign


def _text(listeners: collections.abc.Iterable[proofs.Listener]) -> str | None:
    addresses = sorted(address for one in listeners for address in one)
    return ", ".join(f"[{host}]:{port}" if ":" in host else f"{host}:{port}" for host, port in addresses) or None
