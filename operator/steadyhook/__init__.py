"""
steadyhook: one certificate for a Kubernetes admission webhook, issued by one elected instance, served by all.

Run it with kopf (``kopf run -m steadyhook.manager``), or serve the admission handlers of your own
kopf operator from every replica::

    @kopf.on.startup()
    async def configure(settings, **_):
        settings.admission.server = steadyhook.AdmissionServer()
"""
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from steadyhook.serving.half import AdmissionServer as AdmissionServer
    from steadyhook.serving.routing import route as route

__version__ = "0.1.0"
__all__ = ["AdmissionServer", "__version__", "route"]


def __getattr__(name: str) -> Any:
    # Lazily, so that the command line and the pure core load without kopf.
    if name == "AdmissionServer":
        from steadyhook.serving import half

        return half.AdmissionServer
    if name == "route":
        from steadyhook.serving import routing

        return routing.route
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
