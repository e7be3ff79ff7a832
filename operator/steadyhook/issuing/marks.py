"""What of a WebhookCertificate is the user's to change: its status is our own, and a write of it wakes nobody."""
from typing import Any

from steadyhook.cluster import client
from steadyhook.core import policy

Mark = tuple[Any, ...]


def mark(manifest: client.Manifest) -> Mark:
    """Equal as long as there is nothing new for the issuer in the object."""
    metadata = manifest["metadata"]
    return (metadata["uid"], metadata.get("generation"), metadata.get("deletionTimestamp"),
            tuple(sorted(policy.requests(metadata.get("annotations") or {}).items())))
