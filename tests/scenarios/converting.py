"""A conversion webhook, loaded into the pods by a test: ``spec.size`` of v1 is ``spec.count`` of v2."""
from typing import Any

import aiohttp.web

import steadyhook

NAMES = {"v1": "size", "v2": "count"}


@steadyhook.route("/convert")
async def convert(request: aiohttp.web.Request) -> aiohttp.web.Response:
    """Answer a ConversionReview (apiextensions.k8s.io/v1)."""
    review = await request.json()
    wanted = review["request"]["desiredAPIVersion"]
    return aiohttp.web.json_response({
        "apiVersion": review["apiVersion"], "kind": review["kind"],
        "response": {
            "uid": review["request"]["uid"], "result": {"status": "Success"},
            "convertedObjects": [_convert(item, wanted) for item in review["request"]["objects"]],
        }})


def _convert(item: dict[str, Any], wanted: str) -> dict[str, Any]:
    before, after = (NAMES[version.rpartition("/")[2]] for version in (item["apiVersion"], wanted))
    spec = dict(item["spec"])
    spec[after] = spec.pop(before)
    return {**item, "apiVersion": wanted, "spec": spec}
