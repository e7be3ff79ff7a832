"""The metrics of certificates and of the election, by value."""
import collections.abc
import datetime
import time
from typing import Any

import prometheus_client
import pytest

from steadyhook import metrics

NOW = datetime.datetime(2026, 1, 2, 3, 4, 5, tzinfo=datetime.UTC)
STATUS: dict[str, Any] = {
    "notAfter": "2026-04-01T00:00:00Z", "caNotAfter": "2036-01-01T00:00:00Z", "acknowledged": "18/20",
    "conditions": [
        {"type": "Ready", "status": "True"}, {"type": "Issuing", "status": "False"},
        {"type": "Injected", "status": "True"}, {"type": "Rotating", "status": "True"},
        {"type": "Degraded", "status": "False"}, {"type": "SomebodyElses", "status": "True"}],
    "rotation": {"phase": "Acknowledging"},
}
PREFIX = "steadyhook_webhookcertificate_"


@pytest.fixture(autouse=True)
def _issuing() -> collections.abc.Iterator[None]:
    metrics.set_active(True)
    yield
    metrics.set_active(False)


def value(name: str, namespace: str | None = "ns", certificate: str = "hook", **labels: str) -> float | None:
    of = {"namespace": namespace, "name": certificate} if namespace is not None else {}
    return prometheus_client.REGISTRY.get_sample_value(name, {**of, **labels})


def series() -> set[tuple[str, str]]:
    """The namespace and name of each certificate that any metric knows."""
    return {(sample.labels["namespace"], sample.labels["name"]) for family in prometheus_client.REGISTRY.collect()
            for sample in family.samples if family.name.startswith(PREFIX)}


def test_the_dates_of_a_certificate_are_its_statuses() -> None:
    metrics.observe_certificate("ns", "hook", STATUS)
    assert value(PREFIX + "not_after_timestamp_seconds") == datetime.datetime(
        2026, 4, 1, tzinfo=datetime.UTC).timestamp()
    assert value(PREFIX + "ca_not_after_timestamp_seconds") == datetime.datetime(
        2036, 1, 1, tzinfo=datetime.UTC).timestamp()


def test_each_condition_is_1_while_it_is_true_and_else_0() -> None:
    metrics.observe_certificate("ns", "hook", STATUS)
    assert {kind: value(PREFIX + "condition", type=kind) for kind in metrics.CONDITIONS} == {
        "Ready": 1, "Issuing": 0, "Injected": 1, "Rotating": 1, "Degraded": 0}
    metrics.observe_certificate("ns", "hook", {"conditions": [{"type": "Degraded", "status": "True"}]})
    assert {kind: value(PREFIX + "condition", type=kind) for kind in metrics.CONDITIONS} == {
        "Ready": 0, "Issuing": 0, "Injected": 0, "Rotating": 0, "Degraded": 1}


def test_the_phase_of_a_rotation_is_1_and_the_others_are_0() -> None:
    metrics.observe_certificate("ns", "hook", STATUS)
    assert {phase: value(PREFIX + "rotation_phase", phase=phase) for phase in metrics.PHASES} == {
        "NotRotating": 0, "Distributing": 0, "Acknowledging": 1, "Retiring": 0}
    metrics.observe_certificate("ns", "hook", {})
    assert value(PREFIX + "rotation_phase", phase="NotRotating") == 1
    assert value(PREFIX + "rotation_phase", phase="Acknowledging") == 0


def test_the_instances_and_those_that_serve_the_leaf_are_counted() -> None:
    metrics.observe_certificate("ns", "hook", STATUS)
    assert (value(PREFIX + "instances"), value(PREFIX + "instances_acknowledged")) == (20, 18)
    metrics.observe_certificate("ns", "hook", {})
    assert (value(PREFIX + "instances"), value(PREFIX + "instances_acknowledged")) == (0, 0)


def test_a_date_that_is_no_longer_known_has_no_series() -> None:
    metrics.observe_certificate("ns", "hook", STATUS)
    metrics.observe_certificate("ns", "hook", {})
    assert value(PREFIX + "not_after_timestamp_seconds") is None
    assert value(PREFIX + "ca_not_after_timestamp_seconds") is None


def test_a_look_has_its_time_and_the_earliest_end_in_the_bundle() -> None:
    ends = [NOW + datetime.timedelta(days=days) for days in (300, 20, 100)]
    metrics.observe_look("ns", "hook", bundle=ends, now=NOW)
    assert value(PREFIX + "last_look_timestamp_seconds") == NOW.timestamp()
    assert value(PREFIX + "bundle_not_after_timestamp_seconds") == ends[1].timestamp()
    metrics.observe_look("ns", "hook", bundle=[], now=NOW)
    assert value(PREFIX + "bundle_not_after_timestamp_seconds") is None


def test_a_certificate_that_is_gone_has_no_series_and_others_keep_theirs() -> None:
    for name in ("hook", "other"):
        metrics.observe_certificate("ns", name, STATUS)
        metrics.observe_look("ns", name, bundle=[NOW], now=NOW)
    metrics.forget_certificate("ns", "hook")
    metrics.forget_certificate("ns", "never-there")
    assert series() == {("ns", "other")}


def test_only_the_one_that_issues_tells_of_certificates() -> None:
    metrics.observe_certificate("ns", "hook", STATUS)
    assert value("steadyhook_active", None) == 1
    metrics.set_active(False)
    assert value("steadyhook_active", None) == 0
    assert not series()
    metrics.observe_certificate("ns", "hook", STATUS)  # the look that was under way
    metrics.observe_look("ns", "hook", bundle=[NOW], now=NOW)
    assert not series()


def test_the_peering_tells_how_many_seats_are_taken_and_when_somebody_issued() -> None:
    began = time.time()
    metrics.observe_peering(records=3)
    seen = value("steadyhook_issuer_seen_timestamp_seconds", None)
    assert seen is not None and began <= seen <= time.time()
    assert value("steadyhook_peering_records", None) == 3
    metrics.observe_peering(records=0)
    assert value("steadyhook_issuer_seen_timestamp_seconds", None) == seen
    assert value("steadyhook_peering_records", None) == 0
