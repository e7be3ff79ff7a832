"""Who serves a webhook: endpoints and instances, and who is believed about whom."""
import asyncio
import dataclasses
from typing import Any

import pytest

from cluster import objects
from core import builders
from steadyhook.cluster import client, paths, servers
from steadyhook.core import facts, policy

NODES = paths.manager_nodes("ns")
SLICES = paths.endpoint_slices("ns", "hook")
NEW, OLD = "a" * 64, "b" * 64


def entry(uid: str, pod: str, fingerprint: str = NEW) -> dict[str, Any]:
    return {"podUID": uid, "podName": pod, "certificate": "cert", "fingerprint": fingerprint}


def nodes(**entries: list[dict[str, Any]]) -> dict[str, Any]:
    return {"items": [{"metadata": {"name": name}, "status": {"instances": found}} for name, found in entries.items()]}


def pod(uid: str, node: str, phase: str = "Running") -> dict[str, Any]:
    return {"metadata": {"uid": uid}, "spec": {"nodeName": node}, "status": {"phase": phase}}


def endpoints(
    *found: tuple[str, str, str], ports: tuple[tuple[str, int], ...] = (("webhook", 9443),)
) -> dict[str, Any]:
    """Each by address, pod UID and node."""
    return {"items": [{
        "ports": [{"name": name, "port": port, "protocol": "TCP"} for name, port in ports],
        "endpoints": [{"addresses": [address], "nodeName": node, "targetRef": {"uid": uid, "name": f"pod-{uid}"}}
                      for address, uid, node in found]}]}


def find(there: dict[str, Any], wanted: policy.Policy | None = None, *configurations: facts.Configuration
         ) -> servers.Servers:
    cluster = objects.Objects({NODES: nodes(), SLICES: endpoints(), **there})
    return asyncio.run(servers.find(cluster, wanted or builders.wanted(), configurations))


def said(found: servers.Servers) -> dict[str, str | None]:
    return {item.pod_uid: item.fingerprint for item in found.servers}


@pytest.mark.parametrize("is_endpoint", [True, False])
def test_a_node_is_not_believed_about_the_pod_of_another_node(is_endpoint: bool) -> None:
    there = {NODES: nodes(a=[entry("1", "pod-1", OLD)], z=[entry("1", "pod-1", NEW)]),
             paths.pod("ns", "pod-1"): pod("1", "a")}
    found = find(there | ({SLICES: endpoints(("10.0.0.1", "1", "a"))} if is_endpoint else {}))
    assert said(found) == {"1": OLD}
    assert found.foreign_entries == ("ManagerNode z speaks of pod pod-1, which is on node a",)


def test_where_an_endpoint_does_not_say_its_node_the_pod_does() -> None:
    slices = endpoints(("10.0.0.1", "1", "a"))
    del slices["items"][0]["endpoints"][0]["nodeName"]
    found = find({NODES: nodes(z=[entry("1", "pod-1", NEW)]), SLICES: slices, paths.pod("ns", "pod-1"): pod("1", "a")})
    assert said(found) == {"1": None}
    assert len(found.foreign_entries) == 1


@pytest.mark.parametrize("name", ["a/b", "../../other/secrets/x", "..", ""])
def test_a_pod_that_no_object_can_be_is_told_and_nothing_is_asked(name: str) -> None:
    cluster = objects.Objects({NODES: nodes(a=[entry("1", name)]), SLICES: endpoints()})
    found = asyncio.run(servers.find(cluster, builders.wanted()))
    assert set(cluster.asked) == {NODES, SLICES}
    assert found.servers == ()
    assert found.foreign_entries == (f"ManagerNode a speaks of a pod named {name!r}",)


@pytest.mark.parametrize("gone", [pod("1", "a", "Failed"), pod("1", "a", "Succeeded"), pod("2", "a"), None])
def test_an_instance_whose_pod_has_ended_is_not_waited_for(gone: dict[str, Any] | None) -> None:
    assert find({NODES: nodes(a=[entry("1", "pod-1")]), paths.pod("ns", "pod-1"): gone}).servers == ()
    assert said(find({NODES: nodes(a=[entry("1", "pod-1")]), paths.pod("ns", "pod-1"): pod("1", "a")})) == {"1": NEW}


def test_both_listeners_of_a_pod_are_looked_at() -> None:
    wanted = builders.wanted(service=None, dnsNames=["admission.ns.svc", "conversion.ns.svc"])
    found = find({
        paths.endpoint_slices("ns", "admission"): endpoints(("10.0.0.1", "1", "a"), ports=(("a", 9502),)),
        paths.endpoint_slices("ns", "conversion"): endpoints(("10.0.0.1", "1", "a"), ports=(("c", 9501),))}, wanted)
    assert set(found.listeners["1"]) == {frozenset({("10.0.0.1", 9502)}), frozenset({("10.0.0.1", 9501)})}
    assert found.servers[0].address == "10.0.0.1:9501, 10.0.0.1:9502"


def test_of_two_address_families_of_one_process_the_first_will_do() -> None:
    slices = endpoints(("10.0.0.1", "1", "a"))
    slices["items"] += endpoints(("fd00::1", "1", "a"))["items"]
    assert find({SLICES: slices}).listeners == {"1": (frozenset({("10.0.0.1", 9443)}),)}


TWO_PORTS = endpoints(("10.0.0.1", "1", "a"), ports=(("metrics", 8443), ("webhook", 9443)))
SERVICE = {"spec": {"ports": [{"name": "metrics", "port": 8080}, {"name": "webhook", "port": 443}]}}


def caller(port: int) -> facts.Configuration:
    return builders.configuration(entries=(facts.Entry(name="a", service=("ns", "hook"), service_port=port),))


@pytest.mark.parametrize(("port", "expected"), [(443, {9443}), (8080, {8443})])
def test_the_port_that_is_called_is_the_one_that_a_configuration_names(port: int, expected: set[int]) -> None:
    found = find({SLICES: TWO_PORTS, paths.service("ns", "hook"): SERVICE}, None, caller(port))
    assert found.listeners == {"1": tuple(frozenset({("10.0.0.1", one)}) for one in expected)}


@pytest.mark.parametrize("state", [facts.ConfigurationState.FORBIDDEN, facts.ConfigurationState.UNTRIED])
def test_an_object_of_anybodys_names_no_port(state: facts.ConfigurationState) -> None:
    foreign = dataclasses.replace(caller(8080), known=False, state=state)
    found = find({SLICES: TWO_PORTS, paths.service("ns", "hook"): SERVICE}, None, caller(443), foreign)
    assert found.listeners == {"1": (frozenset({("10.0.0.1", 9443)}),)}


@pytest.mark.parametrize(("configurations", "service"), [
    ((), SERVICE), ((caller(443),), objects.error(client.Forbidden)), ((caller(443),), None), ((caller(1),), SERVICE)])
def test_where_nobody_says_which_port_is_the_webhooks_any_of_them_may_be(
    configurations: tuple[facts.Configuration, ...], service: object
) -> None:
    found = find({SLICES: TWO_PORTS, paths.service("ns", "hook"): service}, None, *configurations)
    assert found.listeners == {"1": (frozenset({("10.0.0.1", 8443), ("10.0.0.1", 9443)}),)}
