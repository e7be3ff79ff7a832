"""What an installation did to the API server, counted from its audit log."""
import dataclasses
from typing import Any

from devcluster import audit

WRITES = ("create", "update", "patch", "delete")


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Tally:
    """Counts of one namespace's accounts; ``leaf_writes`` are (verb, HTTP status) in their order."""

    leaf_writes: tuple[tuple[str, int], ...]
    most_peers: int  # the largest number of records that the KopfPeering ever held

    @property
    def leaf_conflicts(self) -> int:
        return sum(code == 409 for _, code in self.leaf_writes)


def count(log: audit.AuditLog, *, namespace: str, secret: str, since: int = 0) -> Tally:
    """Count the writes of the ServiceAccounts of ``namespace`` from a position of the audit log on."""
    prefix = f"system:serviceaccount:{namespace}:"

    def written(resource: str) -> list[dict[str, Any]]:
        events = log.select(verb=WRITES, resource=resource, namespace=namespace, since=since)
        return [event for event in events if event["user"]["username"].startswith(prefix)]

    peers = [sum(bool(item) for item in (event.get("responseObject") or {}).get("status", {}).values())
             for event in written("kopfpeerings") if audit.code_of(event) < 400]
    return Tally(
        leaf_writes=tuple((event["verb"], audit.code_of(event)) for event in written("secrets")
                          if audit.name_of(event) == secret),
        most_peers=max(peers, default=0),
    )
