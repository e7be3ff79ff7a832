"""Events: what changed, for ``kubectl describe`` and ``kubectl get events``."""
import datetime
import logging

from steadyhook.cluster import client, paths

logger = logging.getLogger(__name__)

NORMAL, WARNING = "Normal", "Warning"


async def post(
    cluster: client.Cluster, involved: client.Manifest, *, kind: str, reason: str, message: str, component: str,
    now: datetime.datetime,
) -> None:
    """
    Post one Event about an object (core/v1). An Event that cannot be posted is logged and forgotten.

    ``kind``: NORMAL or WARNING. ``message`` is cut at the 1024 bytes that the API allows.
    """
    metadata = involved["metadata"]
    timestamp = f"{now:%Y-%m-%dT%H:%M:%SZ}"
    event = {
        "metadata": {"generateName": f"{metadata['name']}.", "namespace": metadata["namespace"]},
        "involvedObject": {
            "apiVersion": involved["apiVersion"], "kind": involved["kind"], "name": metadata["name"],
            "namespace": metadata["namespace"], "uid": metadata["uid"],
            "resourceVersion": metadata["resourceVersion"],
        },
        "type": kind, "reason": reason, "message": message[:1024], "count": 1,
        "firstTimestamp": timestamp, "lastTimestamp": timestamp,
        "source": {"component": component},
    }
    try:
        await cluster.create(paths.events(metadata["namespace"]), event)
    except client.APIError as error:
        logger.warning("An Event could not be posted: %s", error)
