"""``kopf run -m steadyhook.server --standalone -n NAMESPACE``: the serving half alone."""
from typing import Any

import kopf

from steadyhook import settings as process_settings
from steadyhook.cluster import embedding
from steadyhook.serving import half


@kopf.on.startup()
async def start(settings: kopf.OperatorSettings, **_: Any) -> None:
    """Serve the admission handlers of the loaded modules; this half has no part in the peering."""
    try:
        server = half.AdmissionServer()
    except process_settings.SettingsError as error:
        raise kopf.PermanentError(str(error)) from error
    embedding.configure(settings)
    settings.peering.standalone = True
    settings.admission.server = server
