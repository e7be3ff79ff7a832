"""What several handshakes with one server mean together."""
import itertools

import pytest

from steadyhook.core import facts, proofs

GOOD, WRONG, UNREACHABLE, SKIPPED = facts.Proof
A, B = ("10.0.0.1", 9501), ("10.0.0.1", 9502)
EACH = (frozenset({A}), frozenset({B}))
EITHER = (frozenset({A, B}),)
ORDER = (WRONG, UNREACHABLE, SKIPPED, GOOD)


@pytest.mark.parametrize(("one", "other"), list(itertools.product(facts.Proof, repeat=2)))
def test_of_two_listeners_the_worst_counts(one: facts.Proof, other: facts.Proof) -> None:
    assert proofs.of_server(EACH, {A: one, B: other}) is min(one, other, key=ORDER.index)


@pytest.mark.parametrize(("one", "other"), list(itertools.product(facts.Proof, repeat=2)))
def test_where_one_of_two_ports_is_the_listener_a_good_one_is_it(one: facts.Proof, other: facts.Proof) -> None:
    expected = GOOD if GOOD in (one, other) else min(one, other, key=ORDER.index)
    assert proofs.of_server(EITHER, {A: one, B: other}) is expected


def test_as_long_as_one_has_shown_nothing_nothing_is_known_but_that_it_is_wrong() -> None:
    assert proofs.of_server(EACH, {A: GOOD}) is None
    assert proofs.of_server(EACH, {A: WRONG}) is WRONG
    assert proofs.of_server(EITHER, {A: WRONG}) is None
    assert proofs.of_server(EITHER, {A: GOOD}) is GOOD


def test_who_is_no_endpoint_is_called_by_nobody() -> None:
    assert proofs.of_server((), {}) is SKIPPED
