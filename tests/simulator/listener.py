"""
Programs with dynamiclistener: pods that look after the Secrets themselves, as long as they are not static, and the
application's own way to trust their CA. Followed closely is what contends; what they negotiate otherwise is left out.
"""
import collections.abc
import dataclasses
from typing import TypeVar

from simulator import clockwork, model, server, world
from steadyhook.core import facts, policy

T = TypeVar("T")


class Listener(server.Server):
    """
    One pod. It says nothing about itself: what it serves is seen on the wire.

    Each wants a name of its own in the leaf, so that all of them write at the start; what is static they take as it
    is. One that is just starting may write back what it has seen before, without looking; one that runs creates
    a Secret that is gone anew, from memory.
    """

    _content: model.LeafContent | None = None

    def start(self, delay: float = 0.0) -> None:
        self._content = None
        self._watch = clockwork.Process(self.name, self._serving())
        self.world.clock.start(self._watch, delay)

    def stop(self) -> None:
        super().stop()
        self._content = None

    @property
    def certificate(self) -> facts.Certificate | None:
        return self._content.certificate if self._content else None

    def _serving(self) -> clockwork.Steps[None]:
        yield from self._write_blindly()
        signer = yield from self._find_authority()
        assert self._watch is not None
        while True:
            position = len(self.world.leaf_history)
            yield from self._look_after(signer)
            self._watch.idle = True
            if position == len(self.world.leaf_history) and not self._is_cut_off():
                yield clockwork.FOREVER
            else:
                yield self.world.rng.uniform(0.01, 0.5)
            self._watch.idle = False

    def _write_blindly(self) -> clockwork.Steps[None]:
        seen = yield from self._insist(lambda: self.world.store.get(model.LEAF))
        yield self.world.rng.uniform(0.0, 1.0)
        now = self.world.store.get(model.LEAF)
        if seen is None or now is None or now == seen or self.world.rng.random() >= self.world.blind:
            return
        yield from self._write(
            self.world.store.update, model.LEAF, seen.value, resource_version=None, author=self.name)

    def _find_authority(self) -> clockwork.Steps[facts.Certificate]:
        """The one that signs now; made if there is none."""
        while True:
            item = yield from self._insist(lambda: self.world.store.get(model.AUTHORITY))
            content: model.AuthorityContent | None = item.value if item else None
            if content is None:
                made = self.world.mint.authority(self.world.wanted, self.world.utc(self.machine), "listener-CA")
                yield from self._write(self.world.store.create, model.AUTHORITY, model.AuthorityContent(
                    certificate=made, bundle=(made,)), author=self.name)
            elif content.certificate is None:
                yield self.world.rng.uniform(1.0, 5.0)
            elif content.successor is not None and content.switched == content.successor.fingerprint:
                return content.successor
            else:
                return content.certificate

    def _look_after(self, signer: facts.Certificate) -> clockwork.Steps[None]:
        """Serve what is in the Secret, once it is as it should be."""
        item = yield from self._insist(lambda: self.world.store.get(model.LEAF))
        if item is None:
            yield from self._write(
                self.world.store.create, model.LEAF, self._content or self._made(signer, frozenset()), author=self.name)
            return
        content: model.LeafContent = item.value
        if content.unreadable is not None:
            return
        if not content.static and not self._is_content_with(content.certificate):
            yield from self._write(
                self.world.store.update, model.LEAF, self._made(signer, content.certificate.dns_names),
                resource_version=item.resource_version, author=self.name)
            return
        if self._content is None or content.certificate != self._content.certificate:
            self.world.note(self.name, "serves", content.certificate.fingerprint)
        self._content = content
        self.planted = content.certificate.fingerprint in self.world.planted
        if self.world.checker is not None:
            self.world.checker.check_trust()

    def _is_content_with(self, certificate: facts.Certificate) -> bool:
        left = certificate.not_after - self.world.utc(self.machine)
        return self.name in certificate.dns_names and left > policy.RENEWED_BY_OTHERS

    def _made(self, signer: facts.Certificate, names: frozenset[str]) -> model.LeafContent:
        wanted = dataclasses.replace(self.world.wanted, dns_names=self.world.wanted.dns_names | names | {self.name})
        return model.LeafContent(
            certificate=self.world.mint.leaf(wanted, signer, self.world.utc(self.machine)), trusted=(), mark=None,
            generation=None)

    def _insist(self, effect: collections.abc.Callable[[], T]) -> clockwork.Steps[T]:
        while True:
            try:
                found = yield from self.world.read(self.machine, effect)
            except model.Unreachable:
                yield self.world.rng.uniform(0.5, 5.0)
            else:
                return found

    def _write(self, effect: collections.abc.Callable[..., object], *arguments: object, **keywords: object
               ) -> clockwork.Steps[None]:
        """Whether it took effect or not: what is there is looked at again afterwards."""
        try:
            yield from self.world.write(self.machine, effect, *arguments, **keywords)
        except (model.Conflict, model.Unreachable):
            yield self.world.rng.uniform(0.0, 0.2)

    def _is_cut_off(self) -> bool:
        return self.machine.cut_off or self.world.outage


def application(where: world.World) -> clockwork.Steps[None]:
    """What copies the CA Secret into the configurations. For one that others have written no issuer has to answer."""
    while True:
        yield where.rng.uniform(0.5, 3.0)
        item = where.store.get(model.AUTHORITY)
        if item is None or item.value.certificate is None or where.outage:
            continue
        author = "application" if item.author.startswith("issuer") else "listener"
        for found in where.store.list(model.CONFIGURATION):
            entries = tuple(dataclasses.replace(entry, trusted=item.value.bundle, readable=True)
                            for entry in found.value)
            if entries != found.value and found.key not in where.forbidden | where.never:
                where.store.update(found.key, entries, resource_version=None, author=author)
