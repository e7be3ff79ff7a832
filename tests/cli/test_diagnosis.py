"""What is found in what was looked at."""
import dataclasses
import datetime
from typing import Any

import hypothesis
import pytest
from hypothesis import strategies

from core import builders
from core.builders import NOW
from steadyhook.cli import diagnosis
from steadyhook.cli.diagnosis import Kind
from steadyhook.core import facts, reasons

CA = builders.ca("ca")
SERVICE = ("ns", "hook")
CALLER = diagnosis.Caller(what="ValidatingWebhookConfiguration config (a.hook)", service=SERVICE, verifies=True)
READY = diagnosis.Pod(name="pod-1", ready=True)


def versions(*fingerprints: str, seconds: float = 6.0) -> tuple[diagnosis.Version, ...]:
    return tuple(diagnosis.Version(at=index * seconds / len(fingerprints), fingerprint=one)
                 for index, one in enumerate(fingerprints))


def looked(**changes: Any) -> diagnosis.Looked:
    return diagnosis.Looked(**{
        "namespace": "ns", "name": "tls", "seconds": 6.0, "versions": versions("a"), "callers": (CALLER,),
        "leaf": builders.leaf(signer=CA), "pods": (READY,), **changes})


def kinds(what: diagnosis.Looked) -> list[Kind]:
    return [item.kind for item in diagnosis.diagnose(what, NOW)]


def test_nothing_is_found_where_all_is_well() -> None:
    assert kinds(looked()) == []


def test_many_updates_by_several_certificates_are_the_storm() -> None:
    (storm,) = diagnosis.diagnose(looked(versions=versions(*"abcdefgh"), writers=("longhorn-manager",)), NOW)
    assert storm.kind is Kind.STORM
    assert "7 updates in 6 s (1.2 a second), 8 different certificates" in storm.message
    assert "longhorn-manager" in storm.message
    assert "steadyhook repair adopt tls -n ns" in storm.remedy


def test_on_a_loaded_api_server_few_writes_of_many_writers_are_the_storm_as_well() -> None:
    assert kinds(looked(seconds=9.0, versions=versions("a", "b", "c", "d", seconds=9.0))) == [Kind.STORM]
    assert kinds(looked(seconds=9.0, versions=versions("a", "b", "c", "b", seconds=9.0))) == [Kind.RENEWAL_FLIP]


def test_two_certificates_that_take_turns_slowly_are_the_flip_of_a_renewal() -> None:
    assert kinds(looked(seconds=60.0, versions=versions("a", "b", "a", seconds=60.0))) == [Kind.RENEWAL_FLIP]


@pytest.mark.parametrize("changes", [("a", "b"), ("a", "a", "a", "a"), ("a", "b", "b", "c")])
def test_a_renewal_and_a_write_of_annotations_are_no_contention(changes: tuple[str, ...]) -> None:
    assert kinds(looked(seconds=60.0, versions=versions(*changes, seconds=60.0))) == []


@pytest.mark.parametrize(("change", "kind"), [
    ({"callers": (dataclasses.replace(CALLER, verifies=False),)}, Kind.BUNDLE_REPLACED),
    ({"callers": (dataclasses.replace(CALLER, service=("ns", "other")),)}, Kind.NAMES_MISSING),
    ({"callers": (), "pods": ()}, Kind.NOBODY_CALLS),
    ({"pods": ()}, Kind.NOBODY_SERVES),
    ({"pods": (READY, diagnosis.Pod(name="pod-2", ready=False))}, Kind.NOT_READY),
    ({"instances": (diagnosis.Instance(pod="pod-1", node="node-1", fingerprint="another"),)}, Kind.ANOTHER_LEAF),
    ({"static": True}, Kind.STATIC),
    ({"leaf": builders.leaf(signer=CA, cert=builders.certificate(not_after=NOW))}, Kind.EXPIRED),
    ({"leaf": builders.leaf(signer=CA, cert=builders.certificate(not_after=NOW + datetime.timedelta(days=3)))},
     Kind.EXPIRES_SOON),
    ({"leaf": facts.Leaf(secret=builders.secret(), defect=facts.Defect(
        reason=reasons.Reason.KEY_MISMATCH, message="m"))}, Kind.KEY_MISMATCH),
    ({"leaf": facts.Leaf(secret=builders.secret(), defect=facts.Defect(
        reason=reasons.Reason.NOT_PEM, message="m"))}, Kind.UNREADABLE),
])
def test_each_fault_is_named(change: dict[str, Any], kind: Kind) -> None:
    assert kinds(looked(**change)) == [kind]


@hypothesis.given(strategies.lists(strategies.sampled_from("abc"), min_size=1, max_size=30),
                  strategies.floats(min_value=0.0, max_value=600.0))
def test_whatever_was_seen_diagnosing_never_raises_and_says_each_kind_once(held: list[str], seconds: float) -> None:
    found = kinds(looked(versions=versions(*held), seconds=seconds))
    assert len(found) == len(set(found))
    assert not {Kind.STORM, Kind.RENEWAL_FLIP} <= set(found)
