"""Who issues, by what was looked at."""
import datetime
from typing import Any

import hypothesis
import pytest
from hypothesis import strategies

from steadyhook.cli import issuers

NOW = datetime.datetime(2030, 1, 1, 12, 0, tzinfo=datetime.UTC)
JsonObject = dict[str, Any]


def record(*, age_seconds: float = 1, priority: int = -1, lifetime: object = 15, **changes: Any) -> JsonObject:
    lastseen = NOW - datetime.timedelta(seconds=age_seconds)
    return {"priority": priority, "lifetime": lifetime, "lastseen": lastseen.isoformat(), **changes}


def election(*, namespace: str = "steadyhook-system", **records: Any) -> issuers.Election:
    return issuers.read_election({"metadata": {"namespace": namespace, "name": "steadyhook"}, "status": records})


def program(**changes: Any) -> issuers.Program:
    return issuers.Program(**{
        "what": "DaemonSet steadyhook-manager", "namespace": "steadyhook-system", "account": "steadyhook-manager",
        "peering": "steadyhook", "certificate": "steadyhook-webhook", "ready": 2, "wanted": 3, **changes})


OF_ALL = program(what="Deployment steadyhook-issuer", namespace="steadyhook-issuers", certificate=None)


def stand(
    *elections: issuers.Election, programs: tuple[issuers.Program, ...] = (), namespace: str = "steadyhook-system",
    certificate: str = "steadyhook-webhook", hidden: str | None = None,
) -> issuers.Standing:
    return issuers.standing(issuers.Seen(programs=programs, elections=elections, hidden=hidden), namespace=namespace,
                            certificate=certificate, now=NOW)


def test_the_live_record_of_the_highest_priority_issues() -> None:
    found = stand(election(low=record(priority=-9), high=record(priority=-2)), programs=(program(),))
    assert (found.identity, found.namespace, found.account) == (
        "high", "steadyhook-system", "steadyhook-system:steadyhook-manager")
    assert found.problem is None


def test_an_issuer_of_all_certificates_issues_those_of_other_namespaces() -> None:
    everywhere, at_home = election(namespace="steadyhook-issuers", one=record()), election(two=record())
    found = stand(at_home, everywhere, programs=(program(), OF_ALL), namespace="longhorn-system", certificate="hook")
    assert (found.identity, found.namespace) == ("one", "steadyhook-issuers")


def test_an_issuer_of_its_own_certificate_issues_no_other() -> None:
    found = stand(election(one=record()), programs=(program(),), certificate="another")
    assert found.identity is None
    assert found.problem == ("no installation of steadyhook in this cluster issues WebhookCertificate another of"
                             " namespace steadyhook-system")


def test_issuers_outside_of_the_cluster_are_known_by_their_election() -> None:
    assert stand(election(one=record())).identity == "one"


@pytest.mark.parametrize(("namespace", "overlay"), [
    ("longhorn-system", "kubectl apply -k manifests/overlays/longhorn,"),
    ("cattle-system", "kubectl apply -k manifests/overlays/rancher,"),
    ("other", "a Role with its RoleBinding in namespace other"),
])
def test_the_remedy_names_what_is_to_be_applied(namespace: str, overlay: str) -> None:
    assert overlay in stand(namespace=namespace, certificate="hook").remedy


def test_a_record_that_has_expired_does_not_issue_and_tells_for_how_long_nobody_has() -> None:
    found = stand(election(old=record(age_seconds=315), older=record(age_seconds=900)), programs=(program(),))
    assert found.identity is None
    assert found.problem == (
        "nobody issues for 5 minutes: the last record in KopfPeering steadyhook-system/steadyhook ended at"
        " 2030-01-01 11:55:00 UTC (DaemonSet steadyhook-manager: 2 of 3 pods ready)")
    assert "kubectl get pods -n steadyhook-system" in found.remedy


def test_a_record_lives_for_its_lifetime_and_no_longer() -> None:
    assert stand(election(one=record(age_seconds=14.9))).identity == "one"
    assert stand(election(one=record(age_seconds=15))).identity is None
    assert stand(election(one=record(age_seconds=59, lifetime=60))).identity == "one"


def test_an_election_without_any_record_is_told() -> None:
    found = stand(election(), programs=(program(),))
    assert found.problem is not None
    assert "has no record; for how long is not known" in found.problem


def test_a_peering_that_is_not_there_is_told() -> None:
    found = stand(programs=(program(),))
    assert found.problem is not None
    assert "KopfPeering steadyhook-system/steadyhook does not exist" in found.problem


def test_peers_of_one_priority_wait_for_each_other() -> None:
    found = stand(election(one=record(), two=record()))
    assert found.problem is not None
    assert "one, two have the same priority" in found.problem


@pytest.mark.parametrize("broken", [
    {"lastseen": "never"}, {"lastseen": 7}, {}, None, "text", [], {"lastseen": "2030-01-01T12:00:00", "lifetime": "x"},
    record(lifetime=10**12), record(priority="first"),
])
def test_a_record_that_cannot_be_read_takes_no_part_and_is_named(broken: object) -> None:
    assert stand(election(broken=broken, one=record())).identity == "one"
    found = stand(election(broken=broken))
    assert found.problem is not None
    assert "records that cannot be read: broken" in found.problem


def test_a_time_without_an_offset_is_utc() -> None:
    assert stand(election(one=record(lastseen="2030-01-01T11:59:59"))).identity == "one"


def test_what_may_not_be_looked_at_is_said_and_is_no_fault() -> None:
    found = stand(namespace="longhorn-system", certificate="hook", hidden="you may not list kopfpeerings")
    assert (found.identity, found.problem, found.hidden) == (None, None, "you may not list kopfpeerings")


values = strategies.recursive(
    strategies.none() | strategies.booleans() | strategies.integers() | strategies.floats() | strategies.text(),
    lambda inner: strategies.lists(inner, max_size=3) | strategies.dictionaries(
        strategies.sampled_from(["lastseen", "lifetime", "priority", "other"]), inner, max_size=4), max_leaves=8)


@hypothesis.settings(deadline=None, max_examples=50)
@hypothesis.given(strategies.dictionaries(strategies.text(max_size=8), values, max_size=4))
def test_nothing_that_a_peering_holds_is_an_error(records: JsonObject) -> None:
    read = issuers.read_election({"metadata": {"namespace": "ns", "name": "steadyhook"}, "status": records})
    found = issuers.standing(issuers.Seen(elections=(read,)), namespace="ns", certificate="c", now=NOW)
    assert (found.identity is None) != (found.problem is None)


def deployment(*arguments: str, kind: str = "Deployment", **environment: str) -> JsonObject:
    return {"kind": kind, "metadata": {"namespace": "ns", "name": "issuer"}, "status": {"readyReplicas": 1}, "spec": {
        "replicas": 2, "template": {"spec": {"serviceAccountName": "issuing", "containers": [{
            "command": ["kopf", "run"], "args": list(arguments),
            "env": [{"name": name, "value": value} for name, value in environment.items()]}]}}}}


def test_a_program_is_read_from_its_command_line_and_environment() -> None:
    found = issuers.read_program(deployment("--module=steadyhook.issuer", "--peering", "mine",
                                            STEADYHOOK_CERTIFICATES="all", STEADYHOOK_CERTIFICATE="unused"))
    assert found == issuers.Program(what="Deployment issuer", namespace="ns", account="issuing", peering="mine",
                                    certificate=None, ready=1, wanted=2)
    own = issuers.read_program(deployment("--module=steadyhook.manager", "--peering=steadyhook"))
    assert own is not None
    assert own.certificate == "steadyhook-webhook"


@pytest.mark.parametrize("arguments", [
    ("--module=steadyhook.server", "--standalone"), ("--module=steadyhook.issuer", "--standalone"),
    ("--module=mine", "--peering=mine"),
])
def test_a_program_that_issues_nothing_is_none(arguments: tuple[str, ...]) -> None:
    assert issuers.read_program(deployment(*arguments)) is None
