"""The KopfPeering object: reading its records, taking a seat, leaving."""
import collections.abc
import datetime
from typing import Any

from steadyhook.cluster import client, paths
from steadyhook.core import election


def parse(manifest: collections.abc.Mapping[str, Any]) -> tuple[election.Record, ...]:
    """The records of all peers, as kopf writes them; one that cannot be read counts as dead."""
    records = []
    for identity, record in (manifest.get("status") or {}).items():
        try:
            last_seen = datetime.datetime.fromisoformat(record["lastseen"])
            lifetime = datetime.timedelta(seconds=int(record.get("lifetime", 60)))
            records.append(election.Record(identity=identity, priority=int(record.get("priority", 0)),
                                           expires_at=last_seen + lifetime))
        except (KeyError, TypeError, ValueError):
            continue
    return tuple(records)


async def join(
    cluster: client.Cluster, manifest: client.Manifest, *, namespace: str, identity: str, seat: election.Join,
    lifetime_seconds: int, now: datetime.datetime,
) -> None:
    """Write one's own record and drop the dead in one conditional write. Raises :class:`client.Conflict`."""
    record = {"priority": seat.priority, "lifetime": lifetime_seconds, "lastseen": now.isoformat()}
    await cluster.merge(paths.peering(namespace, manifest["metadata"]["name"]), {
        "metadata": {"resourceVersion": manifest["metadata"]["resourceVersion"]},
        "status": {**dict.fromkeys(seat.drop), identity: record},
    })
