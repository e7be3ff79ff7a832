"""The example handlers, called through kopf as the API server calls them."""
import asyncio
import base64
import json
from typing import Any

import kopf
import pytest

from serving import support
from steadyhook.serving import _kopf


def ask(handler: str, **content: Any) -> Any:
    from steadyhook import example  # noqa: F401  # registers its handlers

    engine = support.Kopf(registry=kopf.get_default_registry())
    reviewer = _kopf.Reviewer(engine.fn)
    return asyncio.run(reviewer(support.review(**content), webhook=handler, sslpeer=None, headers={}))["response"]


@pytest.mark.parametrize("content", [{}, {"data": None}, {"data": {}}, {"data": {"other": "x"}},
                                     {"data": {"replicas": "1"}}, {"data": {"replicas": "250"}}])
def test_a_configmap_without_replicas_or_with_a_positive_number_is_allowed(content: dict[str, Any]) -> None:
    assert ask("validate-configmap", **content)["allowed"] is True


@pytest.mark.parametrize("value", ["0", "-1", "1.5", "", "many", "²", " 3"])
def test_replicas_that_are_no_positive_number_are_denied_with_key_value_and_remedy(value: str) -> None:
    response = ask("validate-configmap", data={"replicas": value})
    assert response["allowed"] is False
    assert response["status"] == {
        "message": f'data.replicas is "{value}", expected a positive whole number such as "3";'
                   " correct the value or leave the key out",
        "code": 422}


@pytest.mark.parametrize("metadata", [{}, {"labels": {}}, {"labels": {"mine": "1"}}])
def test_the_label_is_added_by_a_patch_that_fits_the_object(metadata: dict[str, Any]) -> None:
    response = ask("default-configmap", metadata={"name": "one", "namespace": "default", "uid": "1", **metadata})
    assert response["allowed"] is True
    patch = json.loads(base64.b64decode(response["patch"]))
    if metadata.get("labels") is None:
        assert patch == [{"op": "add", "path": "/metadata/labels", "value": {"steadyhook.io/admitted": "true"}}]
    else:
        assert patch == [{"op": "add", "path": "/metadata/labels/steadyhook.io~1admitted", "value": "true"}]


def test_an_object_that_already_carries_the_label_is_left_alone() -> None:
    labels = {"steadyhook.io/admitted": "true"}
    response = ask("default-configmap", metadata={"name": "one", "namespace": "default", "labels": labels})
    assert json.loads(base64.b64decode(response.get("patch", ""))  or "[]") == []
