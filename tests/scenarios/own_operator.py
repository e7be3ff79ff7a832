"""An operator of the user's own: ordinary handlers under kopf's peering, admission handlers served by every replica."""
from typing import Any

import kopf

import steadyhook
from scenarios import counting  # noqa: F401  # its handlers


@kopf.on.startup()
async def configure(settings: kopf.OperatorSettings, **_: Any) -> None:
    settings.scanning.disabled = True  # its account may not list the definitions and namespaces of the cluster
    settings.admission.server = steadyhook.AdmissionServer()
