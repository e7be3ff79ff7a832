"""
What admission needs of kopf's private names; the only other module that touches them is ``cluster.registries``.

kopf has no public names for the errors by which its review function says what is wrong with a request, and none for
what that function remembers and which resources it knows. This changes the following, and nothing else:

* kopf keeps a memory of each object that ever passed through admission, for ever. Here none is added.
* kopf copies each object under review, deeply, even if no handler has changed anything: for an object of some MiB that
  takes seconds, in which nobody else is answered. Here it is copied only if there is a patch.
* kopf answers 404 for a resource that did not exist when it looked for resources, which with
  ``settings.scanning.disabled`` is at the start only. Here the review itself says what the resource is.
"""
import dataclasses
import functools
import logging
import time
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, cast

import kopf
from kopf._cogs.structs import patches, references
from kopf._core.engines import admission
from kopf._core.intents import registries

logger = logging.getLogger(__name__)

AmbiguousResourceError = admission.AmbiguousResourceError
UnknownResourceError = admission.UnknownResourceError
WebhookError = admission.WebhookError


_as_json_patch = patches.Patch.as_json_patch


def _as_json_patch_without_a_copy(self: patches.Patch, body: Any = None) -> patches.JSONPatch:
    return _as_json_patch(self, body) if self else []


patches.Patch.as_json_patch = _as_json_patch_without_a_copy  # type: ignore[method-assign]


class UnknownHandlerError(WebhookError):
    """The path of a request names no handler."""


def tell_apart(fn: kopf.WebhookFn) -> None:
    """
    Give a peer of an operator of the user's own a priority that no other one has, unless it has one.

    Of peers with the same priority, kopf's default, all pause: no ordinary handler would run in any of the replicas.
    """
    bound = fn.keywords if isinstance(fn, functools.partial) else {}
    settings = bound.get("settings")
    if not isinstance(settings, kopf.OperatorSettings):
        return
    if not settings.peering.standalone and not settings.peering.priority:
        # The later the lower, so that a newcomer never takes over from the one that is active.
        settings.peering.priority = -(time.time_ns() // 1000)
        logger.info("The priority of this instance in the peering %s is %d, as none was given and equal ones would all"
                    " pause.", settings.peering.name, settings.peering.priority)


class Reviewer:
    """kopf's review function as an admission server is given it, called by path and review."""

    def __init__(self, fn: kopf.WebhookFn) -> None:
        self._review = cast(Callable[..., Awaitable[Mapping[str, Any]]], fn)
        # Anything but the partial function that kopf makes (a test's, another framework's) is called as it is.
        bound = fn.keywords if isinstance(fn, functools.partial) else {}
        self._memories: admission.MemoGetter | None = bound.get("memories")
        self._insights: references.Insights | None = bound.get("insights")
        self._registry: registries.OperatorRegistry | None = bound.get("registry")
        if self._memories is not None:
            self._review = functools.partial(self._review, memories=_Forgetful(self._memories))

    async def __call__(
        self, review: Mapping[str, Any], *, webhook: str | None, sslpeer: Mapping[str, Any] | None,
        headers: Mapping[str, str],
    ) -> Mapping[str, Any]:
        """
        The answer to an AdmissionReview; ``webhook`` is the id of the handler (None: all that match).

        Raises :class:`WebhookError`, or one of its kinds, if the request is wrong rather than the object under review.
        """
        self.check_handler(webhook)
        _check_shape(review)
        call = functools.partial(self._review, review, webhook=webhook, sslpeer=sslpeer, headers=headers)
        try:
            return await call()
        except UnknownResourceError:
            late = self._late_resource(review["request"])
            if late is None or self._insights is None:
                raise
            # For this call only: whoever can reach the port could otherwise add resources without end.
            return await call(insights=dataclasses.replace(self._insights, webhook_resources={late}))

    def check_handler(self, webhook: str | None) -> None:
        """Raises :class:`UnknownHandlerError`."""
        # kopf would run no handler and so allow everything, which a typing error in a webhook configuration, or an
        # older version of the operator, must not do.
        if webhook is not None and self._registry is not None:
            known = {str(handler.id) for handler in self._registry._webhooks.get_all_handlers()}
            if webhook not in known:
                raise UnknownHandlerError(
                    f"there is no admission handler {webhook!r}, expected one of {', '.join(sorted(known)) or 'none'};"
                    " correct clientConfig.service.path in the webhook configuration, or load the handler's module")

    def _late_resource(self, request: Mapping[str, Any]) -> references.Resource | None:
        """The resource of the request, if a handler wants it."""
        if self._insights is None or self._registry is None:
            return None
        resource = _resource(request)
        candidates = {*self._insights.webhook_resources, resource}
        selectors = self._registry._webhooks.get_all_selectors()
        return resource if any(resource in selector.select(candidates) for selector in selectors) else None


class _Forgetful(admission.MemoGetter):
    """kopf's memories, where what is known is found and nothing is added."""

    def __init__(self, memories: admission.MemoGetter) -> None:
        self._memories = memories

    async def recall_memo(self, raw_body: Any, *, memobase: Any = None, ephemeral: bool = False) -> Any:
        return await self._memories.recall_memo(raw_body, memobase=memobase, ephemeral=True)


_OBJECT = {"metadata": dict}
_METADATA = {"name": str, "namespace": str, "uid": str, "labels": dict, "annotations": dict}
_REQUEST = {"uid": str, "kind": dict, "operation": str, "subResource": str, "namespace": str, "userInfo": dict,
            "object": dict, "oldObject": dict}


def _check_shape(review: object) -> None:
    # kopf takes these for granted and would answer 500 without a reason.
    request = review.get("request") if isinstance(review, dict) else None
    resource = request.get("resource") if isinstance(request, dict) else None
    if not isinstance(request, dict) or not isinstance(resource, dict) or not all(
            isinstance(resource.get(name), str) for name in ("group", "version", "resource")):
        raise WebhookError("expected an AdmissionReview with request.resource.group, .version and .resource")
    _check_types(request, "request", _REQUEST)
    _check_types(request.get("kind"), "request.kind", {"kind": str})
    for name in ("object", "oldObject"):
        _check_types(request.get(name), f"request.{name}", _OBJECT)
        _check_types((request.get(name) or {}).get("metadata"), f"request.{name}.metadata", _METADATA)


def _check_types(found: Any, path: str, expected: Mapping[str, type]) -> None:
    for name, kind in expected.items():
        value = (found or {}).get(name)
        if value is not None and not isinstance(value, kind):
            raise WebhookError(f"{path}.{name} is a {type(value).__name__}, expected a {kind.__name__}")


def _resource(request: Mapping[str, Any]) -> references.Resource:
    named = request["resource"]
    kind = (request.get("kind") or {}).get("kind")
    return references.Resource(
        group=named["group"], version=named["version"], plural=named["resource"], kind=kind,
        singular=kind.lower() if kind else None,  # the default of a CustomResourceDefinition
        namespaced=bool(request.get("namespace")), preferred=True)
