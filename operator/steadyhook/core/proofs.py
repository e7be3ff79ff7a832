"""
What several handshakes with one server mean together.

A pod may have several listeners, each with a watch of its own: the old CA may leave only when none of them needs it.
"""
import collections.abc

from steadyhook.core import facts

Address = tuple[str, int]
"""IP address and port."""

Listener = frozenset[Address]
"""
Where one listener is. Of several addresses, one is it and nobody knows which: a Service of several ports, of which no
configuration says which one is the webhook's.
"""

_FROM_THE_WORST = (facts.Proof.WRONG, facts.Proof.UNREACHABLE, facts.Proof.SKIPPED, facts.Proof.GOOD)


def of_server(
    listeners: collections.abc.Iterable[Listener], proofs: collections.abc.Mapping[Address, facts.Proof]
) -> facts.Proof | None:
    """The worst of what all listeners have shown; None as long as one of them has shown nothing."""
    found = [of_listener(one, proofs) for one in listeners]
    known = [proof for proof in found if proof is not None]
    if facts.Proof.WRONG not in known and len(known) < len(found):
        return None
    return min(known, key=_FROM_THE_WORST.index, default=facts.Proof.SKIPPED)  # who is no endpoint is called by nobody


def of_listener(listener: Listener, proofs: collections.abc.Mapping[Address, facts.Proof]) -> facts.Proof | None:
    """A good address is it; that one of the others serves something else means nothing then."""
    found = [proofs.get(address) for address in listener]
    if facts.Proof.GOOD in found:
        return facts.Proof.GOOD
    known = [proof for proof in found if proof is not None]
    return None if len(known) < len(found) else min(known, key=_FROM_THE_WORST.index, default=facts.Proof.SKIPPED)
