"""Configurations that ask for a bundle: what is read of them, and what they can not do to others."""
import asyncio
from typing import Any

import pytest

from cluster import objects
from core import builders
from steadyhook.cluster import asking, client, paths
from steadyhook.core import bounds, facts

KIND = "ValidatingWebhookConfiguration"
LIST = paths.configurations(KIND)
CERTIFICATE = {"metadata": {"name": "cert", "namespace": "ns"}}


def configuration(name: str, asks: str, *, version: str = "1", calls: str = "hook") -> dict[str, Any]:
    return {"metadata": {"name": name, "uid": f"uid-{name}", "resourceVersion": version,
                         "annotations": {asking.INJECT_FROM: asks}},
            "webhooks": [{"name": "a.hook", "clientConfig": {"service": {"namespace": "ns", "name": calls}}}]}


def server(*found: dict[str, Any], certificates: Any = None) -> objects.Objects:
    return objects.Objects({
        LIST: {"items": list(found)}, **{paths.configuration(KIND, item["metadata"]["name"]): item for item in found},
        paths.certificates("ns"): certificates or {"items": [CERTIFICATE]}})


def find(cluster: objects.Objects, asked: asking.Asking | None = None, status: dict[str, Any] | None = None,
         states: asking.States | None = None) -> asking.Found:
    return asyncio.run((asked or asking.Asking()).find(
        cluster, {**CERTIFICATE, "status": status or {}}, builders.wanted(), states=states or {}))


@pytest.mark.parametrize("annotation", [
    "ns/cert/status", "ns/../../../secrets", "ns/", "ns/x?watch=true", "ns/%2e%2e", "ns/cert,other", "ns/nowhere"])
def test_whatever_an_annotation_holds_it_is_told_and_never_becomes_a_path(annotation: str) -> None:
    cluster = server(configuration("good", "ns/cert"), configuration("bad", annotation))
    found = find(cluster)
    assert [item.name for item in found.configurations] == ["good"]
    assert found.strays == (f"{KIND} bad asks for the bundle of {annotation}",)
    assert set(cluster.asked) == {*map(paths.configurations, paths.CONFIGURATION_KINDS), paths.certificates("ns"),
                                  paths.configuration(KIND, "good")}


def test_one_that_asks_for_another_certificate_that_exists_is_no_stray() -> None:
    other = {"metadata": {"name": "other", "namespace": "ns"}}
    found = find(server(configuration("theirs", "ns/other"), configuration("elsewhere", "far/cert"),
                        certificates={"items": [CERTIFICATE, other]}))
    assert (found.configurations, found.strays) == ((), ())


@pytest.mark.parametrize("kind", [client.Forbidden, client.Unreachable, client.APIError])
def test_that_others_can_not_be_listed_stops_nothing(kind: type[client.APIError]) -> None:
    found = find(server(configuration("good", "ns/cert"), configuration("bad", "ns/x"),
                        certificates=objects.error(kind)))
    assert [item.name for item in found.configurations] == ["good"]
    assert found.strays == ()


def test_what_was_read_is_kept_until_it_changes() -> None:
    asked = asking.Asking()
    cluster = server(configuration("a", "ns/cert"), configuration("b", "ns/cert"))
    first = find(cluster, asked)
    assert find(cluster, asked) == first
    cluster.objects |= server(configuration("a", "ns/cert"), configuration("b", "ns/cert", version="2")).objects
    assert {item.name: item.resource_version for item in find(cluster, asked).configurations} == {"a": "1", "b": "2"}
    assert (cluster.asked[paths.configuration(KIND, "a")], cluster.asked[paths.configuration(KIND, "b")]) == (1, 2)


@pytest.mark.parametrize(("state", "remembered", "expected"), [
    (None, None, facts.ConfigurationState.UNTRIED),
    ("Pending", None, facts.ConfigurationState.UNTRIED),
    ("Forbidden", None, facts.ConfigurationState.UNTRIED),
    ("Injected", None, facts.ConfigurationState.OPEN),
    (None, facts.ConfigurationState.OPEN, facts.ConfigurationState.OPEN),
    ("Injected", facts.ConfigurationState.FORBIDDEN, facts.ConfigurationState.FORBIDDEN),
])
def test_one_that_nobody_has_tried_to_write_and_that_never_was_ours_is_not_believed(
    state: str | None, remembered: facts.ConfigurationState | None, expected: facts.ConfigurationState
) -> None:
    told = {"uid": "uid-a", "state": state, **({"ours": True} if state == "Injected" else {})}
    status = {"configurations": [told] if state else []}
    states = {"uid-a": remembered} if remembered else {}
    (found,) = find(server(configuration("a", "ns/cert")), status=status, states=states).configurations
    assert found.state is expected
    assert found.is_taken_over is (expected is facts.ConfigurationState.OPEN and state != "Injected")


def test_whoever_makes_many_does_not_push_out_those_that_are_looked_after() -> None:
    limit = bounds.CONFIGURATIONS
    many = [configuration(f"{number:04}", "ns/cert") for number in range(limit + 2)]
    for number, item in enumerate(many):  # the newest first
        item["metadata"]["creationTimestamp"] = f"2030-01-01T00:{59 - number // 60:02}:{59 - number % 60:02}Z"
    status = {"configurations": [{"uid": "uid-0000", "ours": True}]}
    found = find(server(*many), status=status)
    names = {item.name for item in found.configurations}
    assert (len(names), found.left_out) == (limit, 2)
    assert names == {item["metadata"]["name"] for item in many} - {"0001", "0002"}  # "0000" is ours


def test_who_calls_by_a_name_that_no_leaf_has_is_told() -> None:
    found = find(server(configuration("good", "ns/cert"), configuration("bad", "ns/cert", calls="former")))
    assert asking.lost_callers(found.configurations, builders.wanted()) == (f"{KIND} bad calls former.ns.svc",)
    by_wildcard = builders.wanted(dnsNames=["*.ns.svc"])
    assert asking.lost_callers(found.configurations, by_wildcard) == ()
