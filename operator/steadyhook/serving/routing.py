"""Handlers for what the API server sends to a webhook and kopf does not know, such as a ConversionReview."""
from collections.abc import Callable

from steadyhook.serving import admission

ROUTES: dict[str, admission.Handler] = {}


def route(path: str) -> Callable[[admission.Handler], admission.Handler]:
    """
    Serve POST requests for ``path`` by this aiohttp handler, beside kopf's admission handlers.

    Raises ValueError for a path that is taken, or that does not begin with a slash.
    """
    if not path.startswith("/"):
        raise ValueError(f"the path is {path!r}, expected one that begins with '/'; write '/{path}'")

    def register(handler: admission.Handler) -> admission.Handler:
        if path in ROUTES:
            raise ValueError(f"the path {path!r} is served already; choose another one")
        ROUTES[path] = handler
        return handler

    return register
