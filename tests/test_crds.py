"""The CustomResourceDefinitions against the code that fills them in: every choice and every bound of either."""
import pathlib
from collections.abc import Iterator
from typing import Any

import pytest
import yaml

from core import builders
from steadyhook.cluster import paths
from steadyhook.core import bounds, conditions, election, facts, issuing, policy, rotation, serving

Manifest = dict[str, Any]

CRDS = pathlib.Path(__file__).parent.parent / "manifests" / "crds"
CERTIFICATES, NODES = "webhookcertificates", "managernodes"


def fields(name: str) -> dict[str, Manifest]:
    """The schema of every field of one of our definitions by its path."""
    (version,) = yaml.safe_load((CRDS / f"{name}.yaml").read_text())["spec"]["versions"]

    def walk(node: Manifest, path: str) -> Iterator[tuple[str, Manifest]]:
        yield path, node
        for key, child in node.get("properties", {}).items():
            yield from walk(child, f"{path}.{key}")
        if "items" in node:
            yield from walk(node["items"], f"{path}[]")

    return dict(walk(version["schema"]["openAPIV3Schema"], ""))


OLD, NEW = builders.ca("old"), builders.ca("new")


def states_of_configurations() -> set[str]:
    """Every state that the code can write of a configuration, found by writing it."""
    crowd = tuple(builders.ca(str(number)) for number in range(facts.TAKEOVER_LIMIT + 1))
    damaged = (facts.Entry(name="a", readable=False),)
    return {conditions._configuration(
        facts.Seen(leaf=None, authority=None, configurations=(configuration,)), configuration, (OLD,))["state"]
            for state in facts.ConfigurationState for known in (True, False) for configuration in (
                *(builders.configuration(*held, known=known, state=state) for held in ((), (OLD,), crowd)),
                builders.configuration(known=known, state=state, entries=damaged))}


def phases_of_a_rotation() -> set[str]:
    """Every phase that the code can write, found in each state that a rotation can be in."""
    server = facts.Server(pod_uid="1", name="1", proof=facts.Proof.GOOD)
    return {
        rotation.phase(facts.Seen(
            leaf=builders.leaf(signer=signer), servers=servers,
            authority=builders.authority(OLD, NEW, successor=NEW, switched=switched)))
        for signer in (OLD, NEW) for switched in (False, True) for servers in ((), (server,))}


CHOICES: dict[tuple[str, str], set[str]] = {
    (CERTIFICATES, ".spec.compatibility"): set(policy.Compatibility),
    (CERTIFICATES, ".spec.privateKey.algorithm"): set(policy.KeyAlgorithm),
    (CERTIFICATES, ".status.conditions[].status"): {"True", "False", "Unknown"},
    (CERTIFICATES, ".status.rotation.phase"): phases_of_a_rotation(),
    (CERTIFICATES, ".status.configurations[].kind"): set(paths.CONFIGURATION_KINDS),
    (CERTIFICATES, ".status.configurations[].state"): states_of_configurations(),
    (NODES, ".status.instances[].phase"): set(serving.Phase),
    (NODES, ".status.instances[].role"): set(election.Role),
}


@pytest.mark.parametrize("name", [CERTIFICATES, NODES])
def test_every_choice_is_one_that_the_code_can_write_and_the_other_way_round(name: str) -> None:
    found = {(name, path): set(node["enum"]) for path, node in fields(name).items() if "enum" in node}
    assert found == {key: {str(one) for one in value} for key, value in CHOICES.items() if key[0] == name}


@pytest.mark.parametrize("name", [CERTIFICATES, NODES])
def test_every_field_has_bounds(name: str) -> None:
    unbounded = []
    for path, node in fields(name).items():
        kind = node["type"]
        bounded = (
            kind in ("object", "boolean") or (kind == "array" and "maxItems" in node)
            or (kind == "integer" and "minimum" in node and ("maximum" in node or "format" in node))
            or (kind == "string" and ("maxLength" in node or "enum" in node or node.get("format") == "date-time")))
        if not bounded and path not in (".apiVersion", ".kind"):
            unbounded.append(path)
    assert unbounded == []


def test_no_message_and_no_list_of_the_code_is_longer_than_is_allowed() -> None:
    certificates, nodes = fields(CERTIFICATES), fields(NODES)
    for node in (certificates[".status.conditions[].message"], certificates[".status.rotation.message"],
                 certificates[".status.configurations[].message"], nodes[".status.instances[].message"]):
        assert node["maxLength"] >= bounds.MESSAGE_CHARACTERS
    assert certificates[".status.configurations"]["maxItems"] == bounds.CONFIGURATIONS
    assert certificates[".status.retiredCAs"]["maxItems"] == bounds.RETIRED
    assert certificates[".status.trustedCAs"]["maxItems"] == issuing.BUNDLE_LIMIT
    assert certificates[".spec.secretName"]["maxLength"] == policy.LONGEST_SECRET_NAME
