"""What the issuing half watches. The handlers decide nothing: they wake the loop that looks at everything afresh."""
import collections.abc
from typing import Any

import kopf

from steadyhook.cluster import embedding, observing, paths
from steadyhook.settings import Settings

Wake = collections.abc.Callable[[float], None]
"""Wakes the reconcile loop after so many seconds; may be called from any thread."""

ASKING = {observing.INJECT_FROM: kopf.PRESENT}
"""Others of these kinds change often and are none of our business (the status of an APIService, for one)."""

GATHER_SECONDS = 1.0
"""Acknowledgements of many nodes are counted together."""


def build(
    settings: Settings, *, wake: Wake, identity: str | None, priority: int | None
) -> embedding.EmbeddedOperator:
    """The embedded operator; a peer with ``priority``, or standalone when ``identity`` is None."""
    return embedding.EmbeddedOperator(
        name="issuing",
        registry=_registry(wake),
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


def _registry(wake: Wake) -> kopf.OperatorRegistry:
    registry = embedding.registry()

    @kopf.on.event(paths.GROUP, "webhookcertificates", registry=registry)
    @kopf.on.event("", "v1", "secrets", registry=registry)
    @kopf.on.event("admissionregistration.k8s.io", "validatingwebhookconfigurations", registry=registry)
    @kopf.on.event("admissionregistration.k8s.io", "mutatingwebhookconfigurations", registry=registry)
    @kopf.on.event("apiextensions.k8s.io", "customresourcedefinitions", annotations=ASKING, registry=registry)
    @kopf.on.event("apiregistration.k8s.io", "apiservices", annotations=ASKING, registry=registry)
    async def changed(**_: Any) -> None:
        wake(0.0)

    @kopf.on.event(paths.GROUP, "managernodes", registry=registry)
    async def acknowledged(**_: Any) -> None:
        wake(GATHER_SECONDS)

    return registry
