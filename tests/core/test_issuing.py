"""The issuer's decision table, row by row."""
import dataclasses
import datetime

import pytest

from core import builders
from core.builders import NOW
from steadyhook.core import facts, issuing, reasons, steps

OLD, NEW, ALIEN = builders.ca("old", age=datetime.timedelta(days=9)), builders.ca("new"), builders.ca("alien")
HOUR = datetime.timedelta(hours=1)


def steady(**changes: object) -> facts.Seen:
    """A world in which nothing is to be done."""
    return dataclasses.replace(
        facts.Seen(leaf=builders.leaf(signer=OLD), authority=builders.authority(OLD),
                   configurations=(builders.configuration(OLD),), last_generation=100, last_signer=OLD.fingerprint),
        **changes)


def decide(seen: facts.Seen, **spec: object) -> issuing.Decision:
    return issuing.decide(seen, builders.wanted(**spec), NOW)


def only_action(decision: issuing.Decision) -> steps.Step:
    assert len(decision.actions) == 1, decision
    return decision.actions[0]


def test_nothing_is_done_when_all_is_well_and_the_renewal_is_the_next_date() -> None:
    decision = decide(steady())
    assert decision.actions == ()
    assert decision.reason is reasons.Reason.UP_TO_DATE
    certificate = builders.certificate()
    assert decision.wake_at == certificate.not_after - datetime.timedelta(hours=720)


def test_a_fresh_start_goes_ca_then_bundle_then_leaf() -> None:
    empty = builders.configuration(known=False)
    nothing = facts.Seen(leaf=None, authority=None, configurations=(empty,))
    assert isinstance(only_action(decide(nothing)), steps.CreateAuthority)
    with_ca = dataclasses.replace(nothing, authority=builders.authority(NEW))
    inject = only_action(decide(with_ca))
    assert isinstance(inject, steps.InjectBundle)
    assert inject.bundle == (NEW,)
    injected = dataclasses.replace(with_ca, configurations=(builders.configuration(NEW),))
    issue = only_action(decide(injected))
    assert isinstance(issue, steps.IssueLeaf)
    assert (issue.signer, issue.bundle, issue.replaces) == (NEW, (NEW,), None)
    assert issue.generation == int((NOW + issuing.BACKDATE).timestamp())


def test_a_leaf_by_a_new_ca_waits_until_that_ca_has_settled_everywhere() -> None:
    seen = steady(authority=builders.authority(NEW, OLD), configurations=(builders.configuration(OLD, NEW),))
    decision = decide(seen)
    assert decision.actions == ()
    assert decision.reason is reasons.Reason.SETTLING
    assert decision.wake_at == NOW + datetime.timedelta(seconds=10)
    settled = dataclasses.replace(seen, trusted_seconds={NEW.fingerprint: 10.0})
    assert isinstance(only_action(decide(settled)), steps.IssueLeaf)


def test_a_repair_by_the_ca_in_use_does_not_wait() -> None:
    for leaf in (None, builders.leaf(signer=OLD, ready_mark=None)):
        issue = only_action(decide(steady(leaf=leaf)))
        assert isinstance(issue, steps.IssueLeaf)
        assert issue.signer == OLD


def test_a_lost_leaf_and_a_lost_ca_together_wait_for_the_new_ca_to_settle() -> None:
    lost = steady(leaf=None, authority=builders.authority(NEW, OLD),
                  configurations=(builders.configuration(OLD, NEW),))
    assert decide(lost).reason is reasons.Reason.SETTLING


LEAF_DAMAGES = {
    "missing": (None, reasons.Reason.SECRET_MISSING),
    "unreadable": (facts.Leaf(secret=builders.secret(), defect=facts.Defect(
        reason=reasons.Reason.NOT_PEM, message="no PEM")), reasons.Reason.NOT_PEM),
    "not marked": (builders.leaf(signer=OLD, ready_mark=None), reasons.Reason.NOT_MARKED_READY),
    "marked for another": (builders.leaf(signer=OLD, ready_mark="00"), reasons.Reason.READY_MARK_STALE),
    "not numbered": (builders.leaf(signer=OLD, generation=None), reasons.Reason.GENERATION_MISSING),
    "an older one": (builders.leaf(signer=OLD, generation=99), reasons.Reason.OLDER_GENERATION),
    "foreign signer": (builders.leaf(signer=OLD, signers=frozenset()), reasons.Reason.FOREIGN_SIGNER),
    "expired": (builders.leaf(signer=OLD, cert=builders.certificate(not_after=NOW)), reasons.Reason.EXPIRED),
    "not yet valid": (builders.leaf(signer=OLD, cert=builders.certificate(not_before=NOW + HOUR)),
                      reasons.Reason.NOT_YET_VALID),
    "wrong names": (builders.leaf(signer=OLD, cert=builders.certificate(dns_names=frozenset({"other"}))),
                    reasons.Reason.WRONG_NAMES),
    "one name too many": (builders.leaf(signer=OLD, cert=builders.certificate(
        dns_names=builders.NAMES | {"other"})), reasons.Reason.WRONG_NAMES),
    "another algorithm": (builders.leaf(signer=OLD, cert=builders.certificate(key_algorithm="RSA-2048")),
                          reasons.Reason.SPEC_CHANGED),
    "due": (builders.leaf(signer=OLD, cert=builders.certificate(
        not_before=NOW - HOUR * 1440 - builders.BACKDATE, not_after=NOW + HOUR * 720)), reasons.Reason.RENEWAL_DUE),
}


@pytest.mark.parametrize("damage", LEAF_DAMAGES)
def test_each_damage_of_the_leaf_is_repaired_in_one_write(damage: str) -> None:
    leaf, reason = LEAF_DAMAGES[damage]
    issue = only_action(decide(steady(leaf=leaf)))
    assert isinstance(issue, steps.IssueLeaf)
    assert issue.reason is reason
    assert issue.replaces == (leaf.secret if leaf else None)
    assert issue.generation > 100


def test_a_changed_duration_reissues_and_the_result_is_left_alone() -> None:
    issue = only_action(decide(steady(), duration="1000h"))
    assert isinstance(issue, steps.IssueLeaf)
    assert issue.reason is reasons.Reason.SPEC_CHANGED
    renewed = builders.certificate(not_before=NOW - builders.BACKDATE, not_after=NOW + HOUR * 1000)
    assert decide(steady(leaf=builders.leaf(signer=OLD, cert=renewed)), duration="1000h").actions == ()


def test_a_leaf_cut_short_by_the_end_of_its_ca_is_not_reissued_for_that() -> None:
    ending = dataclasses.replace(OLD, not_after=NOW + HOUR * 1500)
    cut = builders.certificate(not_before=NOW - builders.BACKDATE, not_after=ending.not_after)
    seen = steady(leaf=builders.leaf(signer=ending, cert=cut), authority=builders.authority(ending),
                  configurations=(builders.configuration(ending),))
    assert not isinstance(only_action(decide(seen)), steps.IssueLeaf)  # it is the CA that is due


def test_a_leaf_cut_short_by_the_end_of_its_ca_is_not_renewed_as_that_would_change_nothing() -> None:
    ending = dataclasses.replace(OLD, not_after=NOW + datetime.timedelta(seconds=30))
    cut = builders.certificate(not_before=NOW - builders.BACKDATE, not_after=ending.not_after)
    seen = steady(leaf=builders.leaf(signer=ending, cert=cut), authority=builders.authority(ending),
                  configurations=(builders.configuration(ending),))
    decision = decide(seen)
    assert not any(isinstance(item, steps.IssueLeaf) for item in decision.actions)


def test_a_leaf_is_renewed_as_early_as_the_spec_says() -> None:
    certificate = builders.certificate(not_before=NOW - builders.BACKDATE, not_after=NOW + HOUR * 3)
    seen = steady(leaf=builders.leaf(signer=OLD, cert=certificate))
    assert decide(seen, duration="3h", renewBefore="2h").wake_at == NOW + HOUR


AUTHORITY_DAMAGES = {
    "missing": None,
    "damaged": builders.authority(OLD, certificate=None, defect=facts.Defect(
        reason=reasons.Reason.KEY_MISMATCH, message="key of another pair")),
    "expired": builders.authority(dataclasses.replace(OLD, not_after=NOW)),
}


@pytest.mark.parametrize("damage", AUTHORITY_DAMAGES)
def test_a_ca_that_cannot_sign_is_replaced_and_what_it_signed_stays_trusted(damage: str) -> None:
    authority = AUTHORITY_DAMAGES[damage]
    create = only_action(decide(steady(authority=authority)))
    assert isinstance(create, steps.CreateAuthority)
    assert create.replaces == (authority.secret if authority else None)
    assert OLD in create.bundle


def test_the_bundle_keeps_what_only_the_configurations_know_when_both_secrets_are_lost() -> None:
    create = only_action(decide(steady(leaf=None, authority=None)))
    assert isinstance(create, steps.CreateAuthority)
    assert create.bundle == (OLD,)


def test_a_damaged_bundle_is_written_anew_without_a_new_ca() -> None:
    extend = only_action(decide(steady(authority=builders.authority(OLD, bundle_damaged=True))))
    assert isinstance(extend, steps.ExtendBundle)
    assert extend.bundle == (OLD,)


def test_taking_over_a_configuration_keeps_what_it_trusted() -> None:
    seen = steady(configurations=(builders.configuration(ALIEN, known=False),))
    extend = only_action(decide(seen))
    assert isinstance(extend, steps.ExtendBundle)
    assert set(extend.bundle) == {OLD, ALIEN}


def test_a_foreign_overwrite_is_undone_and_not_taken_in() -> None:
    inject = only_action(decide(steady(configurations=(builders.configuration(ALIEN, known=True),))))
    assert isinstance(inject, steps.InjectBundle)
    assert inject.bundle == (OLD,)


@pytest.mark.parametrize("state", [facts.ConfigurationState.FORBIDDEN, facts.ConfigurationState.CONTESTED])
def test_a_configuration_that_cannot_be_written_blocks_nothing(state: facts.ConfigurationState) -> None:
    blocked = builders.configuration(known=False, state=state)
    assert isinstance(only_action(decide(steady(leaf=None, configurations=(blocked,)))), steps.IssueLeaf)
    assert decide(steady(configurations=(blocked,))).actions == ()


def test_one_webhook_of_many_that_lacks_the_bundle_is_enough_to_inject() -> None:
    entries = (facts.Entry(name="a.hook", trusted=(OLD,)), facts.Entry(name="b.hook", trusted=(OLD,), readable=False))
    seen = steady(configurations=(builders.configuration(entries=entries),))
    assert isinstance(only_action(decide(seen)), steps.InjectBundle)


def test_a_configuration_without_webhooks_needs_nothing() -> None:
    assert decide(steady(configurations=(builders.configuration(entries=()),))).actions == ()


def test_expired_ca_certificates_leave_the_bundle() -> None:
    gone = dataclasses.replace(ALIEN, not_after=NOW)
    seen = steady(authority=builders.authority(OLD, gone))
    assert issuing.trust_bundle(seen, NOW) == (OLD,)


def test_the_generation_is_the_time_and_beyond_any_clock_where_the_last_one_may_be_lost() -> None:
    for leaf, expected in ((builders.leaf(signer=OLD), NOW), (None, NOW + issuing.BACKDATE)):
        issue = only_action(decide(steady(leaf=leaf), duration="1000h"))
        assert isinstance(issue, steps.IssueLeaf)
        assert issue.generation == int(expected.timestamp())


def test_the_generation_grows_whatever_the_clock_says() -> None:
    ahead = int(NOW.timestamp()) + 1_000_000
    issue = only_action(decide(steady(leaf=None, last_generation=ahead)))
    assert isinstance(issue, steps.IssueLeaf)
    assert issue.generation > ahead
