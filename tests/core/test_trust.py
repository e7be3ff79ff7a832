"""What gets into the trust bundle: what is known to matter, and nothing that anybody else puts in its way."""
import dataclasses

import pytest

from core import builders
from core.builders import NOW
from steadyhook.core import bounds, conditions, facts, issuing, reasons, steps

OLD, NEW, ALIEN = builders.ca("old"), builders.ca("new"), builders.ca("alien")
CROWD = tuple(builders.ca(f"stranger-{number}") for number in range(900))
State = facts.ConfigurationState


def seen(**changes: object) -> facts.Seen:
    return dataclasses.replace(
        facts.Seen(leaf=builders.leaf(signer=OLD), authority=builders.authority(OLD),
                   configurations=(builders.configuration(OLD),), last_generation=100, last_signer=OLD.fingerprint,
                   remembered=frozenset({OLD.fingerprint})),
        **changes)


def bundle(state: facts.Seen) -> set[facts.Certificate]:
    return set(issuing.trust_bundle(state, NOW))


def decide(state: facts.Seen) -> issuing.Decision:
    return issuing.decide(state, builders.wanted(), NOW)


def status(state: facts.Seen) -> dict[str, object]:
    return conditions.status(
        seen=state, wanted=builders.wanted(), decision=decide(state), previous={}, observed_generation=1, now=NOW,
        acknowledged=conditions.Acknowledged(done=0, total=0))


# ---- ca.crt of the leaf Secret ----

def test_strangers_in_the_leaf_secret_are_not_trusted_and_that_is_told() -> None:
    state = seen(leaf=builders.leaf(signer=OLD, trusted=(OLD, *CROWD)))
    assert bundle(state) == {OLD}
    decision = decide(state)
    assert decision.actions == ()
    assert decision.left_out is not None
    assert decision.left_out.startswith("900 CA certificate(s) in ca.crt of Secret tls are not taken")
    assert decide(seen()).left_out is None


def test_who_has_signed_the_leaf_is_trusted_though_the_ca_secret_is_lost() -> None:
    assert bundle(seen(authority=None, configurations=(), last_signer=None, remembered=frozenset())) == {OLD}


def test_what_the_status_remembers_is_taken_back_from_the_leaf_secret() -> None:
    state = seen(leaf=builders.leaf(signer=NEW, trusted=(OLD, NEW, ALIEN)), authority=None, configurations=())
    assert bundle(state) == {OLD, NEW}


def test_many_copies_of_the_signer_are_not_all_taken() -> None:
    copies = frozenset(item.fingerprint for item in CROWD)
    state = seen(leaf=builders.leaf(signer=OLD, trusted=(OLD, *CROWD), signers=copies))
    assert len(bundle(state)) <= facts.TAKEOVER_LIMIT + 1


def test_a_retired_ca_in_the_leaf_secret_is_no_news() -> None:
    state = seen(leaf=builders.leaf(signer=NEW, trusted=(OLD, NEW)), configurations=(builders.configuration(NEW),),
                 authority=builders.authority(NEW, retired=(OLD.fingerprint,)), last_signer=NEW.fingerprint)
    assert decide(state).left_out is None


# ---- configurations ----

@pytest.mark.parametrize("state", [State.UNTRIED, State.FORBIDDEN, State.CONTESTED])
@pytest.mark.parametrize("authority", [builders.authority(OLD), None])
def test_nothing_is_taken_from_an_object_that_may_not_be_written_and_was_never_ours(
    state: State, authority: facts.Authority | None
) -> None:
    foreign = builders.configuration(ALIEN, name="foreign", known=False, state=state)
    world = seen(authority=authority, configurations=(builders.configuration(OLD), foreign))
    assert bundle(world) == {OLD}
    assert not any(isinstance(item, steps.InjectBundle) and item.configuration is foreign
                   for item in decide(world).actions)


@pytest.mark.parametrize("state", [State.UNTRIED, State.FORBIDDEN])
def test_a_rotation_does_not_wait_for_an_object_that_never_relied_on_it(state: State) -> None:
    foreign = builders.configuration(ALIEN, name="foreign", known=False, state=state)
    world = seen(authority=builders.authority(OLD, NEW, successor=NEW), trusted_seconds={NEW.fingerprint: 60.0},
                 configurations=(builders.configuration(OLD, NEW), foreign))
    assert isinstance(decide(world).actions[0], steps.Switch)


def test_an_object_that_was_never_tried_is_not_waited_for_and_not_counted_as_trusting() -> None:
    world = seen(configurations=(builders.configuration(OLD), builders.configuration(
        name="foreign", known=False, state=State.UNTRIED)))
    assert decide(world).reason is reasons.Reason.UP_TO_DATE
    assert OLD.fingerprint in issuing.trusted_everywhere(world)


def test_what_is_known_to_be_ours_gives_back_only_what_the_status_remembers() -> None:
    overwritten = builders.configuration(OLD, ALIEN)
    assert bundle(seen(authority=None, leaf=None, configurations=(overwritten,))) == {OLD}


def test_what_the_status_remembers_is_taken_back_from_whoever_has_kept_it() -> None:
    keeper = builders.configuration(OLD, ALIEN, name="keeper", known=False, state=State.FORBIDDEN)
    assert bundle(seen(authority=None, leaf=None, configurations=(keeper,))) == {OLD}


def test_where_the_status_remembers_nothing_the_leaf_tells_which_ca_of_the_application_matters() -> None:
    lost = seen(authority=None, last_signer=None, remembered=frozenset(), configurations=(
        builders.configuration(OLD, state=State.READ_ONLY), builders.configuration(ALIEN, state=State.READ_ONLY)))
    adopted = builders.leaf(signer=OLD, adopted=True)
    assert bundle(dataclasses.replace(lost, leaf=dataclasses.replace(adopted, trusted=()))) == {OLD}
    assert bundle(dataclasses.replace(lost, leaf=None)) == {OLD, ALIEN}


@pytest.mark.parametrize(("entry", "state"), [
    (facts.Entry(name="a", trusted=(ALIEN,), readable=False), "Unreadable"),
    (facts.Entry(name="a", trusted=CROWD[:65]), "TooManyCertificates"),
])
def test_a_takeover_that_would_cost_trust_is_not_begun_and_that_is_told(entry: facts.Entry, state: str) -> None:
    world = seen(configurations=(builders.configuration(OLD), builders.configuration(
        name="foreign", known=False, entries=(entry,))))
    assert decide(world).actions == ()
    assert bundle(world) == {OLD}
    told = status(world)["configurations"]
    assert isinstance(told, list)
    assert told[1]["state"] == state
    assert told[1]["message"]


def test_many_takeovers_do_not_fill_the_bundle_without_end() -> None:
    many = tuple(builders.configuration(*CROWD[number * 60:(number + 1) * 60], name=f"c{number}", known=False)
                 for number in range(12))
    world = seen(configurations=many)
    assert len(bundle(world)) <= issuing.BUNDLE_LIMIT
    assert len(issuing.writable(world)) == 4
    told = status(dataclasses.replace(world, authority=builders.authority(OLD, *bundle(world))))["configurations"]
    assert isinstance(told, list)
    assert [item["state"] for item in told].count("TooManyCertificates") == 8


def test_one_that_was_ours_stays_known_while_it_is_forbidden() -> None:
    world = seen(configurations=(builders.configuration(ALIEN, state=State.FORBIDDEN),))
    told = status(world)
    assert conditions.known_configurations(told) == {"uid-config"}
    foreign = seen(configurations=(builders.configuration(ALIEN, known=False, state=State.FORBIDDEN),))
    assert conditions.known_configurations(status(foreign)) == frozenset()


def test_one_that_trusts_nobody_does_not_carry_a_bundle_that_is_empty() -> None:
    told = status(facts.Seen(leaf=None, authority=None, configurations=(builders.configuration(known=False),)))
    assert conditions.known_configurations(told) == frozenset()


# ---- what has left ----

def test_a_retired_ca_stays_out_though_the_ca_secret_that_knew_of_it_is_lost() -> None:
    state = seen(authority=None, leaf=builders.leaf(signer=NEW, trusted=(OLD, NEW)), last_signer=NEW.fingerprint,
                 remembered=frozenset({OLD.fingerprint, NEW.fingerprint}), retired=(OLD.fingerprint,))
    (create,) = decide(state).actions
    assert isinstance(create, steps.CreateAuthority)
    assert create.bundle == (NEW,)
    assert create.retired == (OLD.fingerprint,)


def test_the_retired_are_remembered_in_the_status_and_not_without_end() -> None:
    many = tuple(builders.fingerprint(f"retired-{number}") for number in range(500))
    kept = status(seen(authority=builders.authority(OLD, retired=(*many, OLD.fingerprint))))["retiredCAs"]
    assert kept == list(many[-bounds.RETIRED:])


def test_the_status_remembers_the_bundle() -> None:
    assert status(seen())["trustedCAs"] == [OLD.fingerprint]
