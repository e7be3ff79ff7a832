"""What is found in what was looked at."""
import dataclasses
import datetime
from typing import Any

import hypothesis
import pytest
from hypothesis import strategies

from core import builders
from core.builders import NOW
from steadyhook.cli import diagnosis, issuers
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
        "leaf": builders.leaf(signer=CA), "pods": (READY,), "listened": True, **changes})


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


# ---- who issues ----

ACTIVE = issuers.Standing(identity="issuer-1", namespace="steadyhook-issuers", account="steadyhook-issuers:issuer")
NOBODY = issuers.Standing(problem="nobody issues for 5 minutes", remedy="look at the pods")
STORM = versions(*"abcdefgh")


def test_a_certificate_that_nobody_issues_is_named_with_what_to_do() -> None:
    (found,) = diagnosis.diagnose(looked(owner="hook", issuing=NOBODY), NOW)
    assert (found.kind, found.wrong, found.remedy) == (Kind.NOBODY_ISSUES, True, "look at the pods")
    assert found.message.startswith("nobody issues for 5 minutes; WebhookCertificate hook is neither renewed")
    assert kinds(looked(owner="hook", issuing=ACTIVE)) == []


def test_what_may_not_be_looked_at_is_a_remark() -> None:
    (found,) = diagnosis.diagnose(looked(owner="hook", issuing=issuers.Standing(hidden="you may not list")), NOW)
    assert (found.kind, found.wrong) == (Kind.NOT_KNOWN, False)
    assert "you may not list" in found.message


def test_adopting_is_told_after_what_has_to_be_there_first() -> None:
    (found,) = diagnosis.diagnose(looked(versions=STORM, issuing=NOBODY), NOW)
    assert found.remedy.startswith("first look at the pods (now nobody issues for 5 minutes); then steadyhook repair"
                                   " adopt tls -n ns")
    (found,) = diagnosis.diagnose(looked(versions=STORM, issuing=ACTIVE, rights_missing=("get tls",)), NOW)
    assert found.remedy.startswith("first kubectl apply -k manifests/overlays/issuer, and a Role")
    assert "steadyhook-issuers:issuer may not: get tls" in found.remedy
    (found,) = diagnosis.diagnose(looked(versions=STORM, issuing=ACTIVE), NOW)
    assert found.remedy.startswith("steadyhook repair adopt tls -n ns")


@pytest.mark.parametrize("changes", [
    {"versions": STORM}, {"versions": versions("a", "b", "a", seconds=60.0), "seconds": 60.0},
    {"leaf": builders.leaf(signer=CA, cert=builders.certificate(not_after=NOW - datetime.timedelta(days=1)))},
])
@pytest.mark.parametrize(("whose", "remedy"), [
    ({"listened": False}, "program"), ({"listened": False, "cert_manager": "cert"}, ""),
    ({"owner": "cert", "issuing": ACTIVE}, "kubectl describe whcert cert -n ns"),
])
def test_adopting_is_told_for_the_secrets_of_listeners_alone(
    changes: dict[str, Any], whose: dict[str, Any], remedy: str
) -> None:
    for found in diagnosis.diagnose(looked(**changes, **whose), NOW):
        assert "repair adopt" not in found.remedy
        assert remedy in found.remedy


def test_cert_managers_secret_is_cert_managers_to_renew() -> None:
    ended = builders.leaf(signer=CA, cert=builders.certificate(not_after=NOW - datetime.timedelta(days=1)))
    (found,) = diagnosis.diagnose(looked(leaf=ended, listened=False, cert_manager="cert"), NOW)
    assert "kubectl describe certificate cert -n ns" in found.remedy


@pytest.mark.parametrize(("ahead", "said"), [(300, "300 s ahead of"), (-61.6, "62 s behind")])
def test_a_clock_that_differs_from_the_api_servers_is_a_remark(ahead: float, said: str) -> None:
    (found,) = diagnosis.diagnose(looked(clock_ahead=datetime.timedelta(seconds=ahead)), NOW)
    assert (found.kind, found.wrong) == (Kind.CLOCK_DIFFERS, False)
    assert said in found.message
