"""What the issuing half watches. The handlers decide nothing: they wake the loop that looks at everything afresh."""
import collections.abc
from typing import Any

import kopf

from steadyhook.cluster import asking, embedding, paths
from steadyhook.settings import Settings

Wake = collections.abc.Callable[[float], None]
"""Wakes the reconcile loop after so many seconds; may be called from any thread."""

ASKING = {asking.INJECT_FROM: kopf.PRESENT}
"""Others of these kinds change often and are none of our business (the status of an APIService, for one)."""

GATHER_SECONDS = 1.0
"""Acknowledgements of many nodes are counted together."""


def build(
    settings: Settings, *, wake: Wake | None, identity: str | None, priority: int | None
) -> embedding.EmbeddedOperator:
    """
    The embedded operator of the home namespace; a peer with ``priority``, or standalone when ``identity`` is None.

    ``wake``: None for one that does no more than to keep the seat.
    """
    registry = embedding.registry()
    if wake is not None:
        _watch_certificate(registry, wake)
        _watch_configurations(registry, wake)
        _watch_secret(registry, wake)
    return embedding.EmbeddedOperator(
        name="issuing",
        registry=registry,
        namespace=settings.namespace,
        configure=lambda kopf_settings: _configure(
            kopf_settings, settings, secret_name=settings.secret_name, certificate=settings.certificate),
        identity=identity,
        peering_name=settings.peering_name if identity is not None else None,
        priority=priority,
    )


def build_overview(settings: Settings, *, listed: Wake, configured: Wake) -> embedding.EmbeddedOperator:
    """Watches the certificates of all namespaces, and the configurations: what all certificates have in common."""
    registry = embedding.registry()
    _watch_certificate(registry, listed)
    _watch_configurations(registry, configured)
    return embedding.EmbeddedOperator(
        name="overview", registry=registry, namespace=None,
        configure=lambda kopf_settings: _configure(kopf_settings, settings))


def build_one(settings: Settings, *, namespace: str, secret_name: str, wake: Wake) -> embedding.EmbeddedOperator:
    """Watches what belongs to one certificate alone; never a peer, as the election is elsewhere."""
    registry = embedding.registry()
    _watch_secret(registry, wake)
    return embedding.EmbeddedOperator(
        name=f"{namespace}-{secret_name}", registry=registry, namespace=namespace,
        configure=lambda kopf_settings: _configure(kopf_settings, settings, secret_name=secret_name))


def _configure(
    kopf_settings: kopf.OperatorSettings, settings: Settings, *, secret_name: str | None = None,
    certificate: str | None = None,
) -> None:
    # The leaf alone is watched: one selector a resource is possible, and the CA Secret is read when deciding.
    if secret_name is not None:
        kopf_settings.watching.field_selectors["secrets"] = f"metadata.name={secret_name}"
    if certificate is not None:
        kopf_settings.watching.field_selectors["webhookcertificates"] = f"metadata.name={certificate}"
    # kopf waits for a pause of this length before it hands over what has changed: in a storm there may be none longer.
    kopf_settings.batching.batch_window = 0.01
    kopf_settings.watching.chunk_size = 100  # all definitions of a cluster can be many MiB
    kopf_settings.peering.lifetime = settings.peering_lifetime
    kopf_settings.peering.stealth = True


def _watch_certificate(registry: kopf.OperatorRegistry, wake: Wake) -> None:
    @kopf.on.event(paths.GROUP, "webhookcertificates", registry=registry)
    async def changed(**_: Any) -> None:
        wake(0.0)


def _watch_configurations(registry: kopf.OperatorRegistry, wake: Wake) -> None:
    @kopf.on.event("admissionregistration.k8s.io", "validatingwebhookconfigurations", registry=registry)
    @kopf.on.event("admissionregistration.k8s.io", "mutatingwebhookconfigurations", registry=registry)
    @kopf.on.event("apiextensions.k8s.io", "customresourcedefinitions", annotations=ASKING, registry=registry)
    @kopf.on.event("apiregistration.k8s.io", "apiservices", annotations=ASKING, registry=registry)
    async def changed(**_: Any) -> None:
        wake(0.0)


def _watch_secret(registry: kopf.OperatorRegistry, wake: Wake) -> None:
    @kopf.on.event("", "v1", "secrets", registry=registry)
    async def changed(**_: Any) -> None:
        wake(0.0)

    @kopf.on.event(paths.GROUP, "managernodes", registry=registry)
    async def acknowledged(**_: Any) -> None:
        wake(GATHER_SECONDS)
