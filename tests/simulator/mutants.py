"""
Broken variants of the core, each of a few lines: the simulator is worth as much as it catches of these.

A mutant patches functions of the core in place, for as long as its context lasts.
"""
import collections.abc
import contextlib
import dataclasses
import datetime
import functools
from typing import Any
from unittest import mock

from simulator import clockwork, issuer, model, server, world
from steadyhook.core import conditions, election, facts, issuing, leaf, memory, reasons, rotation, serving, steps

Mutant = collections.abc.Callable[[], contextlib.AbstractContextManager[Any]]
MUTANTS: dict[str, Mutant] = {}


def mutant(build: collections.abc.Callable[[], contextlib.AbstractContextManager[Any]]) -> Mutant:
    MUTANTS[build.__name__] = build
    return build


def _seen(change: collections.abc.Callable[[facts.Seen], facts.Seen]) -> contextlib.AbstractContextManager[Any]:
    """The decision is made from something else than what was seen."""
    real = issuing.decide
    return mock.patch.object(issuing, "decide", lambda seen, wanted, now: real(change(seen), wanted, now))


def _decided(
    change: collections.abc.Callable[[facts.Seen, issuing.Decision], issuing.Decision],
) -> contextlib.AbstractContextManager[Any]:
    """Something else is decided."""
    real = issuing.decide
    return mock.patch.object(issuing, "decide", lambda seen, wanted, now: change(seen, real(seen, wanted, now)))


def _actions(change: collections.abc.Callable[[steps.Step], steps.Step]) -> contextlib.AbstractContextManager[Any]:
    return _decided(lambda seen, decision: dataclasses.replace(
        decision, actions=tuple(change(item) for item in decision.actions)))


def _found(
    counts: collections.abc.Callable[[world.World, facts.Server], bool],
) -> contextlib.AbstractContextManager[Any]:
    """Not everyone is waited for."""
    real = server.find
    return mock.patch.object(server, "find", lambda where: tuple(
        one for one in real(where) if counts(where, one)))


@mutant
def leaf_before_bundle() -> contextlib.AbstractContextManager[Any]:
    """Row 3 comes before row 2, and waits for nothing."""
    stack = contextlib.ExitStack()
    stack.enter_context(mock.patch.object(issuing, "_injection", issuing._leaf))
    stack.enter_context(mock.patch.object(issuing, "_leaf", issuing._injection))
    stack.enter_context(mock.patch.object(issuing, "_unsettled_seconds", return_value=0.0))
    return stack


@mutant
def no_settling_before_use() -> contextlib.AbstractContextManager[Any]:
    return mock.patch.object(memory.Memory, "trusted_seconds", lambda self, now: dict.fromkeys(
        {one for one, _ in self._trusted_since}, 1e9))


@mutant
def no_settling_when_a_webhook_is_taken_over() -> contextlib.AbstractContextManager[Any]:
    real = issuing._unsettled_seconds
    return mock.patch.object(issuing, "_unsettled_seconds", lambda seen, wanted, signer, bundle: (
        0.0 if seen.leaf is None and seen.last_generation == 0 else real(seen, wanted, signer, bundle)))


@mutant
def settling_is_measured_only_where_it_can_be_written() -> contextlib.AbstractContextManager[Any]:
    return mock.patch.object(memory.Memory, "trusted_seconds", lambda self, now: {
        one: now - since for (one, uid), since in self._trusted_since.items() if not uid})


@mutant
def settling_is_measured_with_another_nodes_clock() -> contextlib.AbstractContextManager[Any]:
    """The CA's own not_before, written by whoever has made it, instead of one's own monotonic clock."""
    real = issuing.decide

    def decide(seen: facts.Seen, wanted: Any, now: datetime.datetime) -> issuing.Decision:
        made = seen.authority.bundle if seen.authority else ()
        elapsed = {item.fingerprint: (now - item.not_before - issuing.BACKDATE).total_seconds() for item in made}
        trusted = {one: elapsed.get(one, 0.0) for one in seen.trusted_seconds}
        return real(dataclasses.replace(seen, trusted_seconds=trusted), wanted, now)

    return mock.patch.object(issuing, "decide", decide)


@mutant
def the_switch_forgets_configurations_that_cannot_be_written() -> contextlib.AbstractContextManager[Any]:
    real = rotation.untrusting
    return mock.patch.object(rotation, "untrusting", lambda seen, certificate: tuple(
        item for item in real(seen, certificate) if item.state is facts.ConfigurationState.OPEN))


@mutant
def the_old_ca_leaves_before_the_acknowledgements() -> contextlib.AbstractContextManager[Any]:
    stack = contextlib.ExitStack()
    stack.enter_context(mock.patch.object(rotation, "unacknowledged", return_value=()))
    stack.enter_context(mock.patch.object(rotation, "wrong", return_value=()))
    return stack


@mutant
def the_old_ca_leaves_at_the_first_acknowledgement() -> contextlib.AbstractContextManager[Any]:
    """No settling after it: whoever has started a moment ago is no endpoint yet."""
    return mock.patch.object(memory.Memory, "acknowledged_seconds", return_value=1e9)


@mutant
def an_acknowledgement_counts_for_the_node() -> contextlib.AbstractContextManager[Any]:
    real = rotation.unacknowledged

    def unacknowledged(seen: facts.Seen) -> tuple[facts.Server, ...]:
        missing = real(seen)
        nodes = {item.name for item in seen.servers} - {item.name for item in missing}
        done = {item.name for item in seen.servers if item not in missing} | nodes
        return tuple(item for item in missing if item.name not in done)

    stack = contextlib.ExitStack()
    stack.enter_context(mock.patch.object(rotation, "unacknowledged", unacknowledged))
    stack.enter_context(mock.patch.object(rotation, "wrong", return_value=()))
    return stack


@mutant
def only_endpoints_that_can_be_reached_count() -> contextlib.AbstractContextManager[Any]:
    """Whoever is stopped or cut off is taken for gone."""
    return _found(lambda where, one: not (where.servers[one.pod_uid].is_paused
                                          or where.servers[one.pod_uid].machine.cut_off))


@mutant
def the_wire_and_the_silent_are_ignored() -> contextlib.AbstractContextManager[Any]:
    """Pods of somebody else, which say nothing, are not waited for."""
    return _found(lambda where, one: one.fingerprint is not None)


@mutant
def a_refused_write_is_tried_again_blindly() -> contextlib.AbstractContextManager[Any]:
    real = issuer.Issuer._replace

    def replace(self: issuer.Issuer, key: str, secret: facts.Secret, *arguments: Any) -> None:
        try:
            real(self, key, secret, *arguments)
        except model.Conflict:
            item = self.world.store.get(key)
            if item is None:
                raise
            real(self, key, dataclasses.replace(secret, resource_version=str(item.resource_version)), *arguments)

    return mock.patch.object(issuer.Issuer, "_replace", replace)


@mutant
def writes_are_unconditional() -> contextlib.AbstractContextManager[Any]:
    """The resourceVersion is taken from the object just before the write, not from what the decision was made from."""
    real = issuer.Issuer._replace

    def replace(self: issuer.Issuer, key: str, secret: facts.Secret, *arguments: Any) -> None:
        item = self.world.store.get(key)
        version = str(item.resource_version) if item else secret.resource_version
        real(self, key, dataclasses.replace(secret, resource_version=version), *arguments)

    return mock.patch.object(issuer.Issuer, "_replace", replace)


@mutant
def decisions_are_made_from_a_stale_read() -> contextlib.AbstractContextManager[Any]:
    """Of the leaf Secret, as from a cache that lags: the look before is used, with the resourceVersion of this one."""
    real = issuing.decide
    last: dict[str, facts.Leaf | None] = {}

    def decide(seen: facts.Seen, wanted: Any, now: datetime.datetime) -> issuing.Decision:
        before, last["leaf"] = last.get("leaf", seen.leaf), seen.leaf
        if before is not None and seen.leaf is not None:
            before = dataclasses.replace(before, secret=seen.leaf.secret)
        return real(dataclasses.replace(seen, leaf=before), wanted, now)

    return mock.patch.object(issuing, "decide", decide)


@mutant
def the_bundle_shrinks_when_the_ca_secret_is_lost() -> contextlib.AbstractContextManager[Any]:
    return _actions(lambda item: dataclasses.replace(item, bundle=())
                    if isinstance(item, steps.CreateAuthority) else item)


@mutant
def the_bundle_is_not_taken_from_the_leaf_secret() -> contextlib.AbstractContextManager[Any]:
    real = issuing.trust_bundle
    return mock.patch.object(issuing, "trust_bundle", lambda seen, now: real(dataclasses.replace(
        seen, leaf=dataclasses.replace(seen.leaf, trusted=()) if seen.leaf else None,
        configurations=()), now))


@mutant
def what_a_taken_over_configuration_trusted_is_dropped() -> contextlib.AbstractContextManager[Any]:
    return mock.patch.object(facts.Configuration, "is_taken_over", property(lambda self: False))


@mutant
def the_bundle_holds_only_the_signer() -> contextlib.AbstractContextManager[Any]:
    """As cert-controller and Knative do it."""
    return _actions(lambda item: dataclasses.replace(item, bundle=item.bundle[-1:])
                    if isinstance(item, steps.InjectBundle) else item)


@mutant
def what_was_retired_comes_back() -> contextlib.AbstractContextManager[Any]:
    return _actions(lambda item: dataclasses.replace(item, retired=())
                    if isinstance(item, steps.Promote) else item)


@mutant
def a_repair_goes_back_to_the_old_ca() -> contextlib.AbstractContextManager[Any]:
    return _decided(lambda seen, decision: dataclasses.replace(decision, actions=tuple(
        dataclasses.replace(item, signer=seen.authority.certificate)
        if isinstance(item, steps.IssueLeaf) and item.reason is reasons.Reason.SECRET_MISSING and seen.authority
        and seen.authority.certificate else item for item in decision.actions)))


@mutant
def the_switch_is_remembered_by_the_status_alone() -> contextlib.AbstractContextManager[Any]:
    return _seen(lambda seen: dataclasses.replace(seen, authority=dataclasses.replace(seen.authority, switched=False))
                 if seen.authority and seen.leaf is None else seen)


@mutant
def a_takeover_drops_the_successor() -> contextlib.AbstractContextManager[Any]:
    """Whoever becomes active in the middle of a rotation begins it anew."""

    def change(seen: facts.Seen) -> facts.Seen:
        if seen.authority is None or seen.authority.successor is None or seen.trusted_seconds:
            return seen
        return dataclasses.replace(seen, authority=dataclasses.replace(
            seen.authority, successor=None, successor_damaged=True))

    return _seen(change)


@mutant
def the_generation_is_the_time_alone() -> contextlib.AbstractContextManager[Any]:
    return mock.patch.object(issuing, "_next_generation", lambda seen, now: int(now.timestamp()))


@mutant
def the_generation_does_not_grow_after_a_deletion() -> contextlib.AbstractContextManager[Any]:
    return mock.patch.object(issuing, "_next_generation", lambda seen, now: (
        seen.leaf.generation + 1 if seen.leaf and seen.leaf.generation else 1))


@mutant
def the_ready_mark_is_not_bound_to_the_leaf() -> contextlib.AbstractContextManager[Any]:
    def marked(one: facts.Leaf, now: datetime.datetime) -> facts.Defect | None:
        return leaf.marked_ready(dataclasses.replace(
            one, ready_mark=one.certificate.fingerprint if one.certificate and one.ready_mark else None), now)

    return _checks(marked_ready=marked)


@mutant
def unmarked_content_is_served() -> contextlib.AbstractContextManager[Any]:
    return _checks(marked_ready=lambda one, now: None)


@mutant
def a_foreign_leaf_is_served() -> contextlib.AbstractContextManager[Any]:
    return _checks(signed_by_its_bundle=lambda one, now: None)


def _checks(**changed: Any) -> contextlib.AbstractContextManager[Any]:
    checks = tuple(changed.get(check.__name__, check) for check in leaf.CHECKS)
    return mock.patch.object(leaf, "CHECKS", checks)


@mutant
def a_server_takes_an_older_generation() -> contextlib.AbstractContextManager[Any]:
    real = serving._defect

    def defect(seen: facts.Leaf | None, **keywords: Any) -> facts.Defect | None:
        found = real(seen, **keywords)
        return None if found and found.reason is reasons.Reason.OLDER_GENERATION else found

    return mock.patch.object(serving, "_defect", defect)


@mutant
def a_server_drops_its_certificate_with_the_secret() -> contextlib.AbstractContextManager[Any]:
    real = serving.judge
    return mock.patch.object(serving, "judge", lambda seen, **keywords: (
        dataclasses.replace(real(seen, **keywords), served=None) if seen is None else real(seen, **keywords)))


@mutant
def a_fight_is_joined_for_ever() -> contextlib.AbstractContextManager[Any]:
    """A configuration that may not be patched is tried again at once."""
    return mock.patch.object(memory.Memory, "states", return_value={})


@mutant
def a_forbidden_configuration_blocks_the_rest() -> contextlib.AbstractContextManager[Any]:
    return mock.patch.object(issuing, "writable", lambda seen: seen.configurations)


@mutant
def the_leaf_is_never_renewed() -> contextlib.AbstractContextManager[Any]:
    return mock.patch.object(issuing, "_LEAF_CHECKS", tuple(
        check for check in issuing._LEAF_CHECKS if check is not issuing._not_due))


@mutant
def a_request_is_fulfilled_again_and_again() -> contextlib.AbstractContextManager[Any]:
    return _actions(lambda item: dataclasses.replace(item, request=None) if isinstance(item, steps.IssueLeaf) else item)


@mutant
def an_older_leaf_that_was_restored_is_kept() -> contextlib.AbstractContextManager[Any]:
    return mock.patch.object(issuing, "_LEAF_CHECKS", tuple(
        check for check in issuing._LEAF_CHECKS if check is not issuing._latest))


@mutant
def waits_are_those_of_the_look_before() -> contextlib.AbstractContextManager[Any]:
    real = memory.Memory.note

    def note(self: memory.Memory, seen: facts.Seen, now: float) -> facts.Seen:
        before = self.trusted_seconds(now)
        return dataclasses.replace(real(self, seen, now), trusted_seconds=before)

    return mock.patch.object(memory.Memory, "note", note)


@mutant
def the_users_ca_is_not_rotated_in() -> contextlib.AbstractContextManager[Any]:
    real = rotation.is_due
    return mock.patch.object(rotation, "is_due", lambda seen, wanted, now: (
        None if seen.provided is not None else real(seen, wanted, now)))


@mutant
def the_users_ca_is_trusted_and_used_at_once() -> contextlib.AbstractContextManager[Any]:
    """It takes the place of the CA that it replaces."""
    def authority(seen: facts.Seen, *rest: Any) -> issuing.Decision | None:
        held = seen.authority
        if held is None or seen.provided is None or held.certificate == seen.provided:
            return real(seen, *rest)
        return issuing.Decision(reason=reasons.Reason.CREATING_AUTHORITY, message="", actions=(steps.CreateAuthority(
            replaces=held.secret, bundle=(), reason=reasons.Reason.PROVIDED_CHANGED, provided=seen.provided,
            retired=held.retired, request=None),))

    real = issuing._authority
    return mock.patch.object(issuing, "_authority", authority)


@mutant
def listeners_are_not_stopped_from_writing() -> contextlib.AbstractContextManager[Any]:
    return mock.patch.object(issuing, "to_freeze", return_value=())


@mutant
def only_the_leaf_is_frozen() -> contextlib.AbstractContextManager[Any]:
    real = issuing.to_freeze
    return mock.patch.object(issuing, "to_freeze", lambda secrets: tuple(
        one for one in real(secrets) if one.name == model.LEAF))


@mutant
def what_listeners_have_made_is_issued_anew() -> contextlib.AbstractContextManager[Any]:
    return _seen(lambda seen: seen if seen.leaf is None else dataclasses.replace(
        seen, leaf=dataclasses.replace(seen.leaf, adopted=False)))


@mutant
def what_the_application_writes_is_injected() -> contextlib.AbstractContextManager[Any]:
    return _seen(lambda seen: dataclasses.replace(seen, configurations=tuple(
        dataclasses.replace(one, state=facts.ConfigurationState.OPEN) for one in seen.configurations)))


@mutant
def what_the_application_writes_is_not_waited_for() -> contextlib.AbstractContextManager[Any]:
    real = rotation.untrusting
    return mock.patch.object(rotation, "untrusting", lambda seen, certificate: tuple(
        one for one in real(seen, certificate) if one.state is not facts.ConfigurationState.READ_ONLY))


@mutant
def who_says_nothing_has_acknowledged() -> contextlib.AbstractContextManager[Any]:
    real = rotation.unacknowledged
    stack = contextlib.ExitStack()
    stack.enter_context(mock.patch.object(rotation, "unacknowledged", lambda seen: tuple(
        one for one in real(seen) if one.fingerprint is not None)))
    stack.enter_context(mock.patch.object(rotation, "wrong", return_value=()))
    return stack


# ---- what was mended after a reading by somebody who looked for holes ----

@mutant
def a_ca_that_has_yet_to_begin_is_used() -> contextlib.AbstractContextManager[Any]:
    return mock.patch.object(facts.Certificate, "has_begun", return_value=True)


@mutant
def a_server_does_not_look_whether_the_ca_has_begun() -> contextlib.AbstractContextManager[Any]:
    """And the leaf begins as early as any other."""
    begun = datetime.datetime(2000, 1, 1, tzinfo=datetime.UTC)
    real = model.Mint.leaf

    def signed(one: facts.Leaf, now: datetime.datetime) -> facts.Defect | None:
        return leaf.signed_by_its_bundle(dataclasses.replace(one, trusted=tuple(
            dataclasses.replace(item, not_before=begun) for item in one.trusted)), now)

    def mint(self: model.Mint, wanted: Any, signer: facts.Certificate, now: datetime.datetime) -> facts.Certificate:
        return real(self, wanted, dataclasses.replace(signer, not_before=begun), now)

    stack = contextlib.ExitStack()
    stack.enter_context(_checks(signed_by_its_bundle=signed))
    stack.enter_context(mock.patch.object(model.Mint, "leaf", mint))
    return stack


@mutant
def a_leaf_that_could_not_be_backdated_is_written_anew() -> contextlib.AbstractContextManager[Any]:
    return mock.patch.object(issuing, "_begins_with_its_signer", return_value=False)


@mutant
def an_instance_acts_whatever_its_clock_says() -> contextlib.AbstractContextManager[Any]:
    stack = contextlib.ExitStack()
    stack.enter_context(mock.patch.object(election, "clock_problem", return_value=None))
    stack.enter_context(mock.patch.object(world.World, "api_time", world.World.utc))
    return stack


@mutant
def a_record_of_the_future_is_believed() -> contextlib.AbstractContextManager[Any]:
    return mock.patch.object(election.Record, "is_live", lambda self, now: self.expires_at > now)


@mutant
def an_absurd_generation_is_believed() -> contextlib.AbstractContextManager[Any]:
    return mock.patch.object(leaf, "sane_generation", lambda value, now: (
        value if isinstance(value, int) and len(str(value)) <= 18 else None))


@mutant
def whatever_is_in_the_leaf_secret_is_trusted() -> contextlib.AbstractContextManager[Any]:
    return mock.patch.object(issuing, "_from_leaf", lambda seen: seen.leaf.trusted if seen.leaf else ())


def _not_tried(self: issuer.Issuer, seen: facts.Seen) -> clockwork.Steps[facts.Seen]:
    yield self.world.latency()
    return seen


@mutant
def a_configuration_that_was_never_tried_is_taken_over() -> contextlib.AbstractContextManager[Any]:
    """And so is one that may not be written."""
    stack = contextlib.ExitStack()
    stack.enter_context(mock.patch.object(facts.Configuration, "is_taken_over", property(lambda self: not self.known)))
    stack.enter_context(mock.patch.object(issuer.Issuer, "_try", _not_tried))
    return stack


@mutant
def a_configuration_that_never_relied_on_us_is_waited_for() -> contextlib.AbstractContextManager[Any]:
    return mock.patch.object(
        rotation, "_breaks", lambda entry, certificate, used: certificate not in entry.trusted)


@mutant
def what_cannot_be_read_of_a_configuration_is_lost() -> contextlib.AbstractContextManager[Any]:
    return mock.patch.object(facts.Configuration, "standing", property(lambda self: self.state))


@mutant
def a_secret_of_somebody_elses_is_written_over() -> contextlib.AbstractContextManager[Any]:
    return mock.patch.object(issuing, "foreign_secrets", return_value=())


@mutant
def a_fight_over_a_secret_is_fought_for_ever() -> contextlib.AbstractContextManager[Any]:
    return mock.patch.object(memory.Memory, "note_repair", return_value=None)


@mutant
def a_server_never_follows_a_cluster_that_was_restored() -> contextlib.AbstractContextManager[Any]:
    """The generation is looked at whatever the CA is, and nobody is told that the leaf is not served."""
    stack = contextlib.ExitStack()
    stack.enter_context(mock.patch.object(serving, "TRIAL_SECONDS", 1e9))
    stack.enter_context(mock.patch.object(memory.Memory, "unserved_seconds", return_value=0.0))
    return stack


@mutant
def a_server_takes_a_restored_leaf_without_a_trial() -> contextlib.AbstractContextManager[Any]:
    real = serving.judge
    return mock.patch.object(serving, "judge", lambda seen, **keywords: real(
        seen, **{**keywords, "seen_seconds": serving.TRIAL_SECONDS}))


@mutant
def one_that_is_forbidden_is_forgotten_to_be_ours() -> contextlib.AbstractContextManager[Any]:
    """What a status says of a configuration is its state alone."""
    return mock.patch.object(conditions, "known_configurations", lambda status: frozenset(
        item["uid"] for item in status.get("configurations", ())
        if item["state"] in (reasons.Reason.INJECTED, reasons.Reason.OVERWRITTEN, reasons.Reason.CONTESTED)))


@mutant
def the_status_does_not_remember_what_was_retired() -> contextlib.AbstractContextManager[Any]:
    return _seen(lambda seen: dataclasses.replace(seen, retired=()))


@mutant
def a_server_does_not_look_again_when_a_leaf_begins() -> contextlib.AbstractContextManager[Any]:
    return mock.patch.object(leaf, "begins", return_value=None)


@mutant
def a_ca_renewed_with_its_key_is_taken_for_switched() -> contextlib.AbstractContextManager[Any]:
    return mock.patch.object(rotation, "_is_by_present", return_value=False)


# ---- what holds a rotation ----

@mutant
def a_copy_of_the_ca_in_use_is_not_waited_for() -> contextlib.AbstractContextManager[Any]:
    """Only what was ever ours is."""
    real = rotation.untrusting
    return mock.patch.object(rotation, "untrusting", lambda seen, certificate: tuple(
        one for one in real(seen, certificate) if one.known))


@mutant
def who_holds_a_rotation_is_not_told() -> contextlib.AbstractContextManager[Any]:
    return mock.patch.object(rotation, "holding", return_value="some")


@mutant
def one_entry_that_trusts_is_enough() -> contextlib.AbstractContextManager[Any]:
    return mock.patch.object(rotation, "untrusting", lambda seen, certificate: tuple(
        one for one in seen.configurations if one.entries and all(
            rotation._breaks(entry, certificate, rotation.in_use(seen)) for entry in one.entries)))


@mutant
def a_rejection_is_no_refusal() -> contextlib.AbstractContextManager[Any]:
    """What an admission policy refuses ends the pass, as any other error does."""
    real = memory.Memory.note_refusal

    def note(self: memory.Memory, uid: str, now: float, state: Any = facts.ConfigurationState.FORBIDDEN) -> None:
        if state is not facts.ConfigurationState.REJECTED:
            real(self, uid, now, state)

    return mock.patch.object(memory.Memory, "note_refusal", note)


@functools.cache
def names() -> tuple[str, ...]:
    return tuple(MUTANTS)
