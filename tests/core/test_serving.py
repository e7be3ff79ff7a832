"""What a server serves: the last good certificate, whatever happens to the Secret."""
import dataclasses
import datetime

import pytest

from core import builders
from core.builders import NOW
from steadyhook.core import facts, reasons, serving

SIGNER = builders.ca("signer")
GOOD = builders.leaf(signer=SIGNER)
SERVED = serving.Served(certificate=builders.certificate("served"), generation=100)


def judge(
    leaf: facts.Leaf | None, served: serving.Served | None = SERVED, now: datetime.datetime = NOW
) -> serving.Verdict:
    return serving.judge(leaf, served=served, service_name="hook.ns.svc", now=now)


def test_a_good_leaf_is_served_at_once() -> None:
    verdict = judge(GOOD, served=None)
    assert (verdict.phase, verdict.swap) == (serving.Phase.SERVING, True)
    assert verdict.served is not None
    assert verdict.served.certificate == GOOD.certificate
    assert verdict.wake_at == GOOD.certificate.not_after


def test_the_leaf_that_is_served_already_is_not_swapped() -> None:
    same = serving.Served(certificate=GOOD.certificate, generation=100)
    assert not judge(GOOD, served=same).swap


def test_nothing_is_served_before_there_is_a_secret() -> None:
    verdict = judge(None, served=None)
    assert (verdict.phase, verdict.reason) == (serving.Phase.WAITING, reasons.Reason.WAITING_FOR_SECRET)


DAMAGES = {
    "deleted": (None, reasons.Reason.SECRET_MISSING),
    "unreadable": (facts.Leaf(secret=builders.secret(), defect=facts.Defect(
        reason=reasons.Reason.WRONG_TYPE, message="is of type Opaque")), reasons.Reason.WRONG_TYPE),
    "not marked": (dataclasses.replace(GOOD, ready_mark=None), reasons.Reason.NOT_MARKED_READY),
    "stale mark": (dataclasses.replace(GOOD, ready_mark="00"), reasons.Reason.READY_MARK_STALE),
    "not numbered": (dataclasses.replace(GOOD, generation=None), reasons.Reason.GENERATION_MISSING),
    "older": (dataclasses.replace(GOOD, generation=99), reasons.Reason.OLDER_GENERATION),
    "foreign": (dataclasses.replace(GOOD, signers=frozenset()), reasons.Reason.FOREIGN_SIGNER),
    "expired": (builders.leaf(signer=SIGNER, cert=builders.certificate(not_after=NOW)), reasons.Reason.EXPIRED),
    "for others": (builders.leaf(signer=SIGNER, cert=builders.certificate(dns_names=frozenset({"x.ns.svc"}))),
                   reasons.Reason.WRONG_NAMES),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_each_damage_leaves_the_last_good_certificate_in_service(damage: str) -> None:
    leaf, reason = DAMAGES[damage]
    verdict = judge(leaf)
    assert (verdict.phase, verdict.reason, verdict.swap) == (serving.Phase.DEGRADED, reason, False)
    assert verdict.served == SERVED
    assert "goes on with generation 100" in verdict.message


def test_an_older_generation_is_better_than_an_expired_certificate() -> None:
    expired = serving.Served(certificate=builders.certificate("served", not_after=NOW), generation=200)
    assert judge(GOOD, served=expired).swap


def test_the_expiry_of_what_is_served_is_told() -> None:
    verdict = judge(None, now=SERVED.certificate.not_after)
    assert verdict.phase is serving.Phase.DEGRADED
    assert "has itself expired" in verdict.message
    assert verdict.wake_at is None


@pytest.mark.parametrize(("names", "good"), [
    ({"hook.ns.svc"}, True), ({"*.ns.svc"}, True), ({"*.svc"}, False), ({"hook.other.svc"}, False), (set(), False)])
def test_the_leaf_has_to_be_good_for_the_name_that_the_api_server_calls(names: set[str], good: bool) -> None:
    leaf = builders.leaf(signer=SIGNER, cert=builders.certificate(dns_names=frozenset(names)))
    assert (judge(leaf, served=None).phase is serving.Phase.SERVING) is good


KNOWN = dataclasses.replace(SERVED, signers=frozenset({SIGNER.fingerprint}))
ALIEN = builders.ca("alien")


def test_a_leaf_whose_ca_does_not_know_the_ca_of_the_served_one_is_on_trial_before_it_is_served() -> None:
    alien = builders.leaf(signer=ALIEN)
    fresh = judge(alien, served=KNOWN)
    assert (fresh.phase, fresh.reason) == (serving.Phase.DEGRADED, reasons.Reason.FOREIGN_SIGNER)
    assert fresh.wake_at == NOW + datetime.timedelta(seconds=serving.TRIAL_SECONDS)
    assert serving.judge(alien, served=KNOWN, service_name=None, now=NOW, seen_seconds=serving.TRIAL_SECONDS).swap


def test_a_leaf_by_a_new_ca_is_served_at_once_where_the_old_one_is_still_in_its_bundle() -> None:
    verdict = judge(builders.leaf(signer=ALIEN, trusted=(SIGNER, ALIEN)), served=KNOWN)
    assert verdict.swap
    assert verdict.served is not None
    assert verdict.served.signers == {ALIEN.fingerprint}


def test_any_leaf_is_better_than_an_expired_certificate() -> None:
    expired = dataclasses.replace(KNOWN, certificate=builders.certificate("served", not_after=NOW))
    assert judge(builders.leaf(signer=ALIEN), served=expired).swap


def test_a_verdict_that_only_wakes_at_another_time_is_no_news() -> None:
    alien = builders.leaf(signer=ALIEN)
    later = NOW + datetime.timedelta(seconds=1)
    assert judge(alien, served=KNOWN) == judge(alien, served=KNOWN, now=later)


def test_a_cluster_that_was_restored_from_before_a_ca_change_is_followed_after_a_trial() -> None:
    served = serving.Served(certificate=builders.certificate("by-new"), generation=200,
                            signers=frozenset({builders.ca("new").fingerprint}))
    restored = builders.leaf(signer=SIGNER, generation=100)
    for seconds, followed in ((serving.TRIAL_SECONDS - 1, False), (serving.TRIAL_SECONDS, True)):
        verdict = serving.judge(restored, served=served, service_name=None, now=NOW, seen_seconds=seconds)
        assert verdict.swap is followed
    trusted_together = builders.leaf(signer=SIGNER, trusted=(SIGNER, builders.ca("new")), generation=100)
    kept = serving.judge(trusted_together, served=served, service_name=None, now=NOW,
                         seen_seconds=serving.TRIAL_SECONDS)
    assert (kept.swap, kept.reason) == (False, reasons.Reason.OLDER_GENERATION)


def test_a_server_looks_again_when_a_leaf_that_has_yet_to_begin_does() -> None:
    soon = NOW + datetime.timedelta(minutes=2)
    verdict = judge(builders.leaf(signer=SIGNER, cert=builders.certificate(not_before=soon)))
    assert (verdict.phase, verdict.reason, verdict.wake_at) == (
        serving.Phase.DEGRADED, reasons.Reason.NOT_YET_VALID, soon)
