"""``kopf run -m steadyhook.issuer --peering=steadyhook -n NAMESPACE``: the issuing half alone."""
import contextlib
from typing import Any

import kopf

from steadyhook import hardening
from steadyhook import settings as process_settings
from steadyhook.cluster import embedding
from steadyhook.issuing import candidacy, handlers
from steadyhook.serving import endpoints, readiness, sockets

process_settings.check_command_line()
kopf.on.login(errors=kopf.ErrorsMode.PERMANENT)(embedding.login)


@kopf.on.startup()
async def start(settings: kopf.OperatorSettings, memo: kopf.Memo, **_: Any) -> None:
    """Stand for election, and serve the health endpoints."""
    hardening.protect()
    try:
        process = process_settings.from_command_line()
    except process_settings.SettingsError as error:
        raise kopf.PermanentError(str(error)) from error
    embedding.configure(settings)
    ready = readiness.Readiness()
    memo.stack = contextlib.AsyncExitStack()
    try:
        await memo.stack.enter_async_context(endpoints.serve(
            process.listen_address, process.health_port, ready, liveness=lambda: memo.candidacy.trouble()))
    except sockets.ListenError as error:
        raise kopf.PermanentError(str(error)) from error
    user_handlers = handlers.take(
        kopf.get_default_registry(), namespace=process.namespace if not process.everywhere else None,
        grace_seconds=process.drain_seconds, without=(__name__,))
    memo.candidacy = candidacy.start(
        process, kopf_settings=settings, on_problem=lambda problem: _set_ready(ready, problem),
        user_handlers=user_handlers)


@kopf.on.cleanup()
async def stop(memo: kopf.Memo, **_: Any) -> None:
    """Give up the seat."""
    await memo.candidacy.stop()
    await memo.stack.aclose()


def _set_ready(ready: readiness.Readiness, problem: str | None) -> None:
    if problem:
        ready.wait(problem)
    else:
        ready.serve()


