"""``kopf run -m steadyhook.manager --peering=steadyhook -n NAMESPACE``: both halves, each instance may be elected."""
from typing import Any

import kopf

from steadyhook import hardening
from steadyhook import settings as process_settings
from steadyhook.cluster import embedding
from steadyhook.issuing import candidacy, handlers
from steadyhook.serving import half, sockets

process_settings.check_command_line()
kopf.on.login(errors=kopf.ErrorsMode.PERMANENT)(embedding.login)


@kopf.on.startup()
async def start(settings: kopf.OperatorSettings, memo: kopf.Memo, **_: Any) -> None:
    """Serve, and stand for election; a shutdown hands over the issuing before it drains the listener."""
    hardening.protect()
    try:
        process = process_settings.from_command_line()
        memo.server = server = half.AdmissionServer(settings=process, on_drain=lambda: memo.candidacy.stop())
        await server.open()
    except (process_settings.SettingsError, sockets.ListenError) as error:
        raise kopf.PermanentError(str(error)) from error
    embedding.configure(settings)
    user_handlers = handlers.take(
        kopf.get_default_registry(), namespace=process.namespace if not process.everywhere else None,
        grace_seconds=process.drain_seconds, without=(__name__,))
    memo.candidacy = candidacy.start(
        process, kopf_settings=settings, on_role=server.set_role, on_problem=server.set_problem,
        work_due=lambda: not server.certified, user_handlers=user_handlers)
    settings.admission.server = server


@kopf.on.cleanup()
async def stop(memo: kopf.Memo, **_: Any) -> None:
    """Give up the seat, if the listener ended before it could be drained."""
    await memo.candidacy.stop()
    await memo.server.close()
