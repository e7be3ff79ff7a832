"""
The first thing in a storm: to make the listeners leave the Secrets alone, before anything else is read.

It depends on nothing but the two Secrets, and whatever they hold will do. Under the load of the storm each request may
take seconds or fail; so these are few, in parallel, short, and tried again at once.
"""
import asyncio
import collections.abc
import functools
import random
from typing import TypeVar

from steadyhook import metrics
from steadyhook.cluster import client, paths
from steadyhook.core import facts, issuing, policy
from steadyhook.pki import secrets

Value = TypeVar("Value")

TRY_SECONDS = 2.0
"""How long one request may take here, before it is sent again."""
ANSWER_SECONDS = 4.0  # the question whether this instance is active may be two requests
URGENT_SECONDS = 15.0
"""How long to try, in all; then it is the matter of the next pass."""


Ask = collections.abc.Callable[[], collections.abc.Awaitable[Value]]


async def freeze(
    cluster: client.Cluster, wanted: policy.Policy, confirm: Ask[bool]
) -> tuple[str, ...] | None:
    """
    Mark those of the two Secrets that are not static yet; their names, or None if this is not the active instance.

    One that is neither a listener's nor ours is left as it is: what becomes of it is decided when all is known.

    ``confirm``, whether it is, is asked at the same time as the Secrets are looked at. Raises
    :class:`client.APIError`.
    """
    names = (wanted.secret_name, wanted.authority_secret_name)
    is_active, *found = await asyncio.gather(
        urgently(confirm), *(urgently(functools.partial(_look, cluster, wanted, name)) for name in names),
        return_exceptions=True)
    for problem in (is_active, *found):
        if isinstance(problem, BaseException):
            raise problem  # of two always the same one, so that a condition does not flap
    if not is_active:
        return None
    free = tuple(item.name for item in issuing.to_freeze(
        item for item in found if isinstance(item, facts.Secret) and item.ours))
    await asyncio.gather(*(urgently(functools.partial(_freeze, cluster, wanted, name)) for name in free))
    return free


async def urgently(ask: Ask[Value]) -> Value:
    """Ask again at once, until there is an answer. Raises :class:`client.APIError`."""
    until = asyncio.get_running_loop().time() + URGENT_SECONDS
    while True:
        try:
            async with asyncio.timeout(ANSWER_SECONDS):
                return await ask()
        except client.Unreachable:
            if asyncio.get_running_loop().time() > until:
                raise
        except TimeoutError as error:
            if asyncio.get_running_loop().time() > until:
                raise client.Unreachable(method="GET", path="what is urgent", status=0, message="no answer") from error
        await asyncio.sleep(random.uniform(0.02, 0.2))


async def _look(cluster: client.Cluster, wanted: policy.Policy, name: str) -> facts.Secret | None:
    """As a whole, since by its content alone a CA is known that a listener has made."""
    found = await cluster.find(paths.secret(wanted.namespace, name), seconds=TRY_SECONDS)
    return secrets.read_secret(found, by_listener=True) if found is not None else None


async def _freeze(cluster: client.Cluster, wanted: policy.Policy, name: str) -> None:
    try:
        await cluster.annotate(paths.secret(wanted.namespace, name), {secrets.STATIC: "true"}, seconds=TRY_SECONDS)
    except client.NotFound:
        return  # gone meanwhile: it is made anew in a moment
    metrics.WRITES.labels(object="Secret", verb="patch").inc()
