"""
steadyhook: one certificate for a Kubernetes admission webhook, issued by one elected instance, served by all.

Run it with kopf (``kopf run -m steadyhook.manager``), or serve the admission handlers of your own
kopf operator from every replica::

    @kopf.on.startup()
    async def configure(settings, **_):
        settings.admission.server = steadyhook.AdmissionServer(namespace="my-namespace")
"""
from typing import Any

__version__ = "0.1.0"
__all__ = ["AdmissionServer", "__version__"]


def __getattr__(name: str) -> Any:
    # Lazily, so that the command line and the pure core load without kopf.
    if name == "AdmissionServer":
        from steadyhook.serving import half

        return half.AdmissionServer
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
