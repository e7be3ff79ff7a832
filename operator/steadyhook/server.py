"""``kopf run -m steadyhook.server --standalone -n NAMESPACE``: the serving half alone."""
from typing import Any

import kopf

from steadyhook import hardening
from steadyhook import settings as process_settings
from steadyhook.cluster import embedding
from steadyhook.issuing import handlers
from steadyhook.serving import half, sockets

process_settings.check_command_line()
kopf.on.login(errors=kopf.ErrorsMode.PERMANENT)(embedding.login)


@kopf.on.startup()
async def start(settings: kopf.OperatorSettings, memo: kopf.Memo, **_: Any) -> None:
    """Serve the admission handlers of the loaded modules; this half has no part in the peering."""
    hardening.protect()
    try:
        handlers.refuse(kopf.get_default_registry())
        memo.server = server = half.AdmissionServer(settings=process_settings.from_command_line())
        await server.open()
    except (process_settings.SettingsError, sockets.ListenError, handlers.RefusedHandlers) as error:
        raise kopf.PermanentError(str(error)) from error
    embedding.configure(settings)
    settings.peering.standalone = True
    settings.peering.mandatory = False
    settings.admission.server = server


@kopf.on.cleanup()
async def stop(memo: kopf.Memo, **_: Any) -> None:
    """Close the health endpoints, if the listener never came to it."""
    await memo.server.close()
