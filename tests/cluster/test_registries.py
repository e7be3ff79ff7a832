"""kopf's registries, taken apart: what goes to the active instance, and what stays in each."""
from typing import Any

import kopf

from steadyhook.cluster import registries
from steadyhook.issuing import handlers


def registry(*, ordinary: bool) -> kopf.OperatorRegistry:
    """With an index, an admission handler that may look into it, and a startup handler."""
    result = kopf.OperatorRegistry()

    @kopf.index("", "v1", "configmaps", id="names", registry=result)
    async def names(**_: Any) -> None: ...

    @kopf.on.validate("", "v1", "configmaps", id="check", registry=result)
    async def check(**_: Any) -> None: ...

    @kopf.on.startup(id="begin", registry=result)
    async def begin(**_: Any) -> None: ...

    if ordinary:
        @kopf.on.create("", "v1", "configmaps", id="made", registry=result)
        async def made(**_: Any) -> None: ...

    return result


def ids(handlers_of_a_kind: Any) -> list[str]:
    return [str(item.id) for item in handlers_of_a_kind.get_all_handlers()]


def test_an_index_is_filled_for_the_admission_handlers_of_every_instance_and_for_the_ordinary_ones() -> None:
    given = registry(ordinary=True)
    taken = registries.split(given, without=())
    assert (ids(given._indexing), ids(taken._indexing)) == (["names"], ["names"])
    assert (ids(given._changing), ids(taken._changing)) == ([], ["made"])
    assert (ids(given._webhooks), ids(taken._webhooks)) == (["check"], [])
    assert ids(given._activities) == ids(taken._activities) == ["begin"]


def test_handlers_of_activities_of_certain_modules_stay_where_they_are() -> None:
    given = registry(ordinary=True)
    assert ids(registries.split(given, without=(__name__,))._activities) == []


def test_an_index_alone_is_nothing_that_only_one_instance_may_run() -> None:
    assert registries.ordinary_handlers(registry(ordinary=False)) == ()
    assert registries.ordinary_handlers(registry(ordinary=True)) == ("made",)
    handlers.refuse(registry(ordinary=False))
