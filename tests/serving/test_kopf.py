"""What is changed in kopf's review function, with kopf's own objects."""
import asyncio
import base64
import json
from typing import Any

import kopf
import pytest
from kopf._cogs.structs import references

from serving import support
from steadyhook.serving import _kopf

LATE = references.Resource(group="example.com", version="v1", plural="widgets", kind="Widget", namespaced=True)


def review(engine: support.Kopf, data: dict[str, Any], webhook: str | None = None) -> Any:
    return asyncio.run(_kopf.Reviewer(engine.fn)(data, webhook=webhook, sslpeer=None, headers={}))


def accept(engine: support.Kopf, *selector: Any, **options: Any) -> list[Any]:
    """Register a handler; gives the list of the objects that it is called with."""
    bodies: list[Any] = []

    @kopf.on.validate(*selector, id="check", registry=engine.registry, **options)
    async def check(body: kopf.Body, **_: Any) -> None:
        bodies.append(body)

    return bodies


def test_objects_that_pass_through_admission_are_not_remembered() -> None:
    engine = support.Kopf()
    bodies = accept(engine, "configmaps")

    async def main() -> None:
        reviewer = _kopf.Reviewer(engine.fn)
        for number in range(2000):
            operation = ["CREATE", "UPDATE"][number % 2]
            await reviewer(support.review(uid=str(number), operation=operation), webhook="check", sslpeer=None,
                           headers={})

    asyncio.run(main())
    assert len(bodies) == 2000
    assert not list(engine.memories.iter_all_memories())


def test_kopf_itself_remembers_them_or_else_this_could_go() -> None:
    engine = support.Kopf()
    asyncio.run(engine.fn(support.review(operation="UPDATE")))
    assert len(list(engine.memories.iter_all_memories())) == 1


def test_the_memory_of_an_object_that_the_operator_handles_is_found() -> None:
    engine = support.Kopf()
    memos: list[Any] = []

    @kopf.on.validate("configmaps", registry=engine.registry)
    async def check(memo: Any, **_: Any) -> None:
        memos.append(memo)

    data = support.review(operation="UPDATE")
    memory = asyncio.run(engine.memories.recall(data["request"]["object"]))
    memory.memo["handled"] = True
    review(engine, data)
    assert memos == [memory.memo]


def test_a_resource_that_came_after_the_start_is_served_by_the_handler_that_wants_it() -> None:
    for selector in [("widgets",), ("example.com", "widgets"), ("example.com", "v1", "widgets"), ("Widget",),
                     ("widget",), (kopf.EVERYTHING,)]:
        engine = support.Kopf()
        bodies = accept(engine, *selector)
        assert review(engine, support.review(LATE), "check")["response"]["allowed"] is True
        assert len(bodies) == 1, selector


def test_a_late_resource_is_not_added_to_what_kopf_knows() -> None:
    engine = support.Kopf()
    accept(engine, kopf.EVERYTHING)
    review(engine, support.review(LATE))
    assert engine.insights.webhook_resources == {support.CONFIGMAPS}


def test_a_resource_that_no_handler_wants_is_unknown_as_before() -> None:
    engine = support.Kopf()
    bodies = accept(engine, "example.com", "gadgets")
    with pytest.raises(_kopf.UnknownResourceError):
        review(engine, support.review(LATE), "check")
    assert not bodies


def test_a_namesake_in_another_group_does_not_get_the_handler_of_a_core_resource() -> None:
    engine = support.Kopf()
    accept(engine, "configmaps")
    namesake = references.Resource(group="example.com", version="v1", plural="configmaps", kind="ConfigMap")
    with pytest.raises(_kopf.UnknownResourceError):
        review(engine, support.review(namesake))


def test_a_handler_that_is_not_loaded_is_an_error_and_not_a_yes() -> None:
    engine = support.Kopf()
    accept(engine, "configmaps")
    with pytest.raises(_kopf.UnknownHandlerError, match="no admission handler 'chekc', expected one of check;"):
        review(engine, support.review(), "chekc")


class Uncopyable(dict[str, Any]):
    def __deepcopy__(self, memo: object) -> Any:
        raise AssertionError("copied")


def test_an_object_that_no_handler_changes_is_not_copied() -> None:
    engine = support.Kopf()
    accept(engine, "configmaps")
    assert review(engine, support.review(data=Uncopyable()), "check")["response"]["allowed"] is True


def test_an_object_that_a_handler_changes_is_patched_as_before() -> None:
    engine = support.Kopf()

    @kopf.on.mutate("configmaps", id="change", registry=engine.registry)
    async def change(patch: kopf.Patch, **_: Any) -> None:
        patch["data"] = {"added": "1"}

    answer = review(engine, support.review(data={"kept": "1"}), "change")
    assert json.loads(base64.b64decode(answer["response"]["patch"])) == [
        {"op": "add", "path": "/data/added", "value": "1"}]


def test_kopf_itself_copies_it_or_else_this_could_go() -> None:
    with pytest.raises(AssertionError, match="copied"):
        _kopf._as_json_patch(kopf.Patch(body=kopf.Body({"data": Uncopyable()})))


@pytest.mark.parametrize("wrong", [
    {"resource": {"group": [], "version": "v1", "resource": "configmaps"}}, {"kind": "ConfigMap"},
    {"kind": {"kind": ["ConfigMap"]}}, {"userInfo": "someone"}, {"object": [1]}, {"object": {"metadata": "a"}},
    {"object": {"metadata": {"labels": ["a"]}}}, {"oldObject": {"metadata": {"name": {}}}}, {"operation": {}},
    {"namespace": ["a"]}, {"subResource": {}},
], ids=str)
def test_a_review_with_fields_of_a_wrong_type_is_an_error_with_a_reason(wrong: dict[str, Any]) -> None:
    engine = support.Kopf()
    accept(engine, "configmaps", labels={"a": "b"})
    data = support.review()
    data["request"] |= wrong
    with pytest.raises(_kopf.WebhookError, match="expected a"):
        review(engine, data, "check")
