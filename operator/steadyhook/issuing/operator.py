"""What the issuing half watches. The handlers decide nothing: they wake the loop that looks at everything afresh."""
import collections.abc
from typing import Any, Protocol

import kopf

from steadyhook.cluster import asking, client, embedding, paths
from steadyhook.settings import Settings

Wake = collections.abc.Callable[[float], None]
"""Wakes the reconcile loop after so many seconds; may be called from any thread."""


class Work(Protocol):
    """Who is told of what is watched; from the operator's own thread."""

    def wake(self, delay: float = 0.0) -> None:
        """Look at everything within so many seconds."""

    def see(self, manifest: client.Manifest | None) -> None:
        """The WebhookCertificate is like this now; None: it is gone."""

    def changed(self, kind: str, name: str, version: str | None) -> None:
        """A Secret (by name) or a configuration (by uid) has this resourceVersion now; None: it is gone."""


ASKING = {asking.INJECT_FROM: kopf.PRESENT}
"""Others of these kinds change often and are none of our business (the status of an APIService, for one)."""

GATHER_SECONDS = 1.0
"""Acknowledgements of many nodes are counted together."""


def build(
    settings: Settings, *, work: Work | None, identity: str | None, priority: int | None
) -> embedding.EmbeddedOperator:
    """
    The embedded operator of the home namespace; a peer with ``priority``, or standalone when ``identity`` is None.

    ``work``: None for one that does no more than to keep the seat.
    """
    registry = embedding.registry()
    if work is not None:
        _watch_certificate(registry, work)
        _watch_configurations(registry, work)
        _watch_secret(registry, work)
    return embedding.EmbeddedOperator(
        name="issuing",
        registry=registry,
        namespace=settings.namespace,
        configure=lambda kopf_settings: _configure(kopf_settings, settings),
        identity=identity,
        peering_name=settings.peering_name if identity is not None else None,
        priority=priority,
    )


def _configure(kopf_settings: kopf.OperatorSettings, settings: Settings) -> None:
    # The leaf alone is watched: one selector a resource is possible, and the CA Secret is read when deciding.
    kopf_settings.watching.field_selectors["secrets"] = f"metadata.name={settings.secret_name}"
    kopf_settings.watching.field_selectors["webhookcertificates"] = f"metadata.name={settings.certificate}"
    kopf_settings.watching.chunk_size = 100  # all definitions of a cluster can be many MiB
    kopf_settings.peering.lifetime = settings.peering_lifetime
    kopf_settings.peering.stealth = True


def _watch_certificate(registry: kopf.OperatorRegistry, work: Work) -> None:
    @kopf.on.event(paths.GROUP, "webhookcertificates", registry=registry)
    async def changed(type: str | None, body: kopf.Body, **_: Any) -> None:
        work.see(None if type == "DELETED" else dict(body))


def _watch_configurations(registry: kopf.OperatorRegistry, work: Work) -> None:
    @kopf.on.event("admissionregistration.k8s.io", "validatingwebhookconfigurations", registry=registry)
    @kopf.on.event("admissionregistration.k8s.io", "mutatingwebhookconfigurations", registry=registry)
    @kopf.on.event("apiextensions.k8s.io", "customresourcedefinitions", annotations=ASKING, registry=registry)
    @kopf.on.event("apiregistration.k8s.io", "apiservices", annotations=ASKING, registry=registry)
    async def changed(type: str | None, body: kopf.Body, **_: Any) -> None:
        work.changed(str(body["kind"]), str(body["metadata"]["uid"]), _version(type, body))


def _watch_secret(registry: kopf.OperatorRegistry, work: Work) -> None:
    @kopf.on.event("", "v1", "secrets", registry=registry)
    async def changed(type: str | None, body: kopf.Body, **_: Any) -> None:
        work.changed("Secret", str(body["metadata"]["name"]), _version(type, body))

    @kopf.on.event(paths.GROUP, "managernodes", registry=registry)
    async def acknowledged(**_: Any) -> None:
        work.wake(GATHER_SECONDS)


def _version(kind_of_event: str | None, body: kopf.Body) -> str | None:
    return None if kind_of_event == "DELETED" else str(body["metadata"]["resourceVersion"])
