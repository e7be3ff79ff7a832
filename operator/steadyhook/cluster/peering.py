"""The KopfPeering object: taking a seat in it."""
import collections.abc
import datetime

from steadyhook.cluster import client, paths
from steadyhook.core import election


async def join(
    cluster: client.Cluster, manifest: client.Manifest, *, namespace: str, identity: str, seat: election.Join,
    lifetime_seconds: int, now: datetime.datetime,
) -> None:
    """Write one's own record and drop the dead in one conditional write. Raises :class:`client.Conflict`."""
    record = {"priority": seat.priority, "lifetime": lifetime_seconds, "lastseen": now.isoformat()}
    await cluster.merge(paths.peering(namespace, manifest["metadata"]["name"]), {
        "metadata": {"resourceVersion": manifest["metadata"]["resourceVersion"]},
        "status": {**dict.fromkeys((*seat.drop, *election.unreadable(manifest))), identity: record},
    })


async def drop(
    cluster: client.Cluster, manifest: client.Manifest, *, namespace: str, identities: collections.abc.Iterable[str],
) -> None:
    """Take records out in one conditional write. Raises :class:`client.Conflict`."""
    await cluster.merge(paths.peering(namespace, manifest["metadata"]["name"]), {
        "metadata": {"resourceVersion": manifest["metadata"]["resourceVersion"]},
        "status": dict.fromkeys(identities),
    })
