"""Carrying out the events of a schedule: each is a process of its own, of a few lines."""
import collections.abc
import dataclasses
import datetime
from typing import TypeVar

from simulator import clockwork, issuer, listener, model, server, world
from simulator.schedule import Event
from steadyhook.core import facts, reasons

Happening = collections.abc.Callable[[world.World, Event], clockwork.Steps[None]]
DAYS = 65.0
PEOPLE = "people"
T = TypeVar("T")


def crash_issuer(where: world.World, event: Event) -> clockwork.Steps[None]:
    one = _issuer(where, event)
    one.crash()
    yield min(event.seconds, 60.0)
    one.crash()
    one.start(0.0)


def crash_at_write(where: world.World, event: Event) -> clockwork.Steps[None]:
    where.trap = "before" if event.pick % 2 else "after"
    yield 0.0


def pause_issuer(where: world.World, event: Event) -> clockwork.Steps[None]:
    one = _issuer(where, event)
    one.keep_alive()
    one.process.paused_until = where.now + event.seconds
    yield 0.0


def cut_off_issuer(where: world.World, event: Event) -> clockwork.Steps[None]:
    one = _issuer(where, event)
    one.keep_alive()
    one.machine.cut_off = True
    yield event.seconds
    one.machine.cut_off = False


def rivals(where: world.World, event: Event) -> clockwork.Steps[None]:
    where.rivals = True
    for one in where.issuers:
        one.changed(0.0)
    yield event.seconds
    where.rivals = False


def crash_server(where: world.World, event: Event) -> clockwork.Steps[None]:
    one = _server(where, event)
    if one is not None and one.legacy is None:
        one.stop()
        one.start(min(event.seconds, 20.0))
    yield 0.0


def pause_server(where: world.World, event: Event) -> clockwork.Steps[None]:
    one = _server(where, event)
    if one is not None:
        one.pause(where.now + event.seconds)
    yield 0.0


def cut_off_server(where: world.World, event: Event) -> clockwork.Steps[None]:
    one = _server(where, event)
    if one is not None:
        one.machine.cut_off = True
        yield event.seconds
        one.machine.cut_off = False
    yield 0.0


def hide_server(where: world.World, event: Event) -> clockwork.Steps[None]:
    one = _server(where, event)
    if one is not None:
        one.dialable = False
        yield event.seconds
        one.dialable = True
    yield 0.0


def outage(where: world.World, event: Event) -> clockwork.Steps[None]:
    for one in where.issuers:
        one.keep_alive()
    where.outage = True
    yield event.seconds
    where.outage = False


def slow_requests(where: world.World, event: Event) -> clockwork.Steps[None]:
    where.slow = 0.3
    yield event.seconds
    where.slow = 0.0


def delete_leaf(where: world.World, event: Event) -> clockwork.Steps[None]:
    if where.store.get(model.LEAF) is not None:
        where.store.delete(model.LEAF, resource_version=None)
    yield 0.0


def delete_ca(where: world.World, event: Event) -> clockwork.Steps[None]:
    if where.store.get(model.AUTHORITY) is not None:
        where.store.delete(model.AUTHORITY, resource_version=None)
    yield 0.0


def damage_leaf(where: world.World, event: Event) -> clockwork.Steps[None]:
    item = where.store.get(model.LEAF)
    if item is not None:
        damaged = _damaged_leaf(where, item.value, event.pick)
        if damaged.recreate and damaged.unreadable:  # the type of a Secret cannot be changed
            where.store.delete(model.LEAF, resource_version=None)
            where.store.create(model.LEAF, damaged, author=PEOPLE)
        else:
            where.store.update(model.LEAF, damaged, resource_version=None, author=PEOPLE)
    yield 0.0


def _damaged_leaf(where: world.World, content: model.LeafContent, pick: int) -> model.LeafContent:
    alien = where.mint.authority(where.wanted, where.utc(), "alien")
    foreign = where.mint.leaf(where.wanted, alien, where.utc())
    signer = next((one for one in content.trusted if one.fingerprint == content.certificate.pem), alien)
    edited = where.mint.leaf(where.wanted, signer, where.utc())
    return (
        dataclasses.replace(content, unreadable=reasons.Reason.NOT_PEM),
        dataclasses.replace(content, unreadable=reasons.Reason.KEY_MISMATCH, trusted=()),
        dataclasses.replace(content, unreadable=reasons.Reason.WRONG_TYPE, recreate=True),
        dataclasses.replace(content, recreate=True),
        dataclasses.replace(content, mark=None),
        dataclasses.replace(content, mark="another"),
        dataclasses.replace(content, generation=None),
        dataclasses.replace(content, generation=1),
        dataclasses.replace(content, trusted=()),
        dataclasses.replace(content, certificate=foreign),
        dataclasses.replace(content, certificate=foreign, mark=foreign.fingerprint),
        dataclasses.replace(content, certificate=foreign, mark=foreign.fingerprint, trusted=(alien,)),
        dataclasses.replace(content, certificate=edited),
        dataclasses.replace(content, certificate=edited, mark=None),
    )[pick % 14]


def replace_own_ca(where: world.World, event: Event) -> clockwork.Steps[None]:
    """The user's own: another one, one that was there before, or none for a while."""
    if where.wanted.authority_name is None:
        return
    if event.pick % 3 == 0 and where.store.get(model.PROVIDED) is not None:
        where.store.delete(model.PROVIDED, resource_version=None)
        yield event.seconds
    before = list(where.own.values())
    chosen = before[event.pick % len(before)] if event.pick % 2 else where.mint.authority(
        where.wanted, where.utc(), "own-CA")
    provide(where, chosen)
    yield 0.0


def provide(where: world.World, chosen: facts.Certificate) -> None:
    where.own[chosen.fingerprint] = chosen
    if where.store.get(model.PROVIDED) is None:
        where.store.create(model.PROVIDED, chosen, author=PEOPLE)
    else:
        where.store.update(model.PROVIDED, chosen, resource_version=None, author=PEOPLE)


def restore_leaf(where: world.World, event: Event) -> clockwork.Steps[None]:
    """From a backup."""
    now = where.store.get(model.LEAF)
    older = [item.value for _, item in where.leaf_history if item is not None and item.author.startswith("issuer")]
    if older and now is not None:
        where.store.update(model.LEAF, older[event.pick % len(older)], resource_version=None, author=PEOPLE)
    elif older:
        where.store.create(model.LEAF, older[event.pick % len(older)], author=PEOPLE)
    yield 0.0


def damage_ca(where: world.World, event: Event) -> clockwork.Steps[None]:
    item = where.store.get(model.AUTHORITY)
    if item is not None:
        where.store.update(
            model.AUTHORITY, _damaged_authority(item.value, event.pick), resource_version=None, author=PEOPLE)
    yield 0.0


def _damaged_authority(content: model.AuthorityContent, pick: int) -> model.AuthorityContent:
    return (
        dataclasses.replace(content, certificate=None),
        dataclasses.replace(content, certificate=None, bundle=()),
        dataclasses.replace(content, successor=None),
        dataclasses.replace(content, certificate=None, successor=None),
        dataclasses.replace(content, bundle=(), bundle_unreadable=True),
        dataclasses.replace(content, bundle=()),
        dataclasses.replace(content, recreate=True),
    )[pick % 7]


def overwrite_configuration(where: world.World, event: Event) -> clockwork.Steps[None]:
    """As a Helm upgrade does, once, or again and again."""
    for _ in range(6 if event.pick % 5 == 0 else 1):
        item = _pick(where.store.list(model.CONFIGURATION), event)
        if item is None:
            return
        alien = where.mint.authority(where.wanted, where.utc(), "alien")
        first, *others = item.value
        entry = (dataclasses.replace(first, trusted=()), dataclasses.replace(first, trusted=(alien,)),
                 dataclasses.replace(first, trusted=(), readable=False))[event.pick % 3]
        where.store.update(item.key, (entry, *others), resource_version=None, author=PEOPLE)
        yield 3.0


def forbid_configuration(where: world.World, event: Event) -> clockwork.Steps[None]:
    item = _pick(where.store.list(model.CONFIGURATION), event)
    if item is not None:
        where.forbidden.add(item.key)
        yield event.seconds
        where.forbidden.discard(item.key)
    yield 0.0


def replace_configuration(where: world.World, event: Event) -> clockwork.Steps[None]:
    """Deleted and created anew, or one more: it trusts nobody yet."""
    key = f"{model.CONFIGURATION}{event.pick % 3}"
    if where.store.get(key) is not None:
        where.store.delete(key, resource_version=None)
        yield min(event.seconds, 10.0)
    if where.store.get(key) is None:
        add_configuration(where, key, ())
    yield 0.0


def add_configuration(where: world.World, key: str, trusted: model.Certificates) -> None:
    where.store.create(key, (facts.Entry(name="a", trusted=trusted), facts.Entry(name="b", trusted=trusted)),
                       author=PEOPLE)


def take_over_configuration(where: world.World, event: Event) -> clockwork.Steps[None]:
    """One more of those that trust somebody else's CA gets the annotation."""
    alien = next((one.legacy for one in where.live_servers() if one.legacy is not None), None)
    key = f"{model.CONFIGURATION}late"
    if alien is not None and where.store.get(key) is None:
        add_configuration(where, key, (where.aliens[alien.pem],))
    yield 0.0


def apply_bundle(where: world.World, event: Event) -> clockwork.Steps[None]:
    """A person writes the bundle into the configurations that the issuer may not write."""
    authority = where.store.get(model.AUTHORITY)
    for key in sorted(where.forbidden):
        item = where.store.get(key)
        if item is not None and authority is not None:
            entries = tuple(dataclasses.replace(entry, trusted=authority.value.bundle) for entry in item.value)
            where.store.update(key, entries, resource_version=None, author=PEOPLE)
    yield 0.0


def start_pod_cut_off(where: world.World, event: Event) -> clockwork.Steps[None]:
    """It has read the Secret, and then hears nothing more."""
    one = add_server(where, machine=world.Machine(f"machine-{len(where.servers)}"), node=f"node-{event.pick % 2}")
    for _ in range(200):
        if one.certificate is None:
            yield 0.005
    one.machine.cut_off = True
    yield event.seconds
    one.machine.cut_off = False


def change_spec(where: world.World, event: Event) -> clockwork.Steps[None]:
    extra = frozenset({f"name-{event.pick}.example"})
    yield from _change_certificate(where, dns_names=where.wanted.dns_names | extra)


def rotate_ca(where: world.World, event: Event) -> clockwork.Steps[None]:
    yield from _change_certificate(where, rotate_authority=f"{event.pick} at {where.now:.0f}")


def rotate_leaf(where: world.World, event: Event) -> clockwork.Steps[None]:
    yield from _change_certificate(where, rotate_leaf=f"{event.pick} at {where.now:.0f}")


def _change_certificate(where: world.World, **changes: object) -> clockwork.Steps[None]:
    item = where.store.objects[model.CERTIFICATE]
    content: model.CertificateContent = item.value
    wanted = dataclasses.replace(content.wanted, **changes)  # type: ignore[arg-type]
    where.store.update(model.CERTIFICATE, dataclasses.replace(
        content, wanted=wanted, generation=content.generation + 1), resource_version=None, author=PEOPLE)
    yield 0.0


def days_pass(where: world.World, event: Event) -> clockwork.Steps[None]:
    """So many that the leaf is due; nobody has anything to do in between."""
    seconds = datetime.timedelta(days=DAYS).total_seconds()
    where.passed_seconds += seconds
    where.clock.now += seconds
    yield 0.0


def start_pod(where: world.World, event: Event) -> clockwork.Steps[None]:
    add_server(where, machine=world.Machine(f"machine-{len(where.servers)}"), node=f"node-{event.pick % 2}")
    yield 0.0


def roll_pod(where: world.World, event: Event) -> clockwork.Steps[None]:
    """A new pod on the same node, then the old one goes."""
    one = _server(where, event)
    if one is not None:
        add_server(where, machine=dataclasses.replace(one.machine, cut_off=False), node=one.node)
        yield min(event.seconds, 30.0)
        remove_server(one)
    yield 0.0


def delete_pod(where: world.World, event: Event) -> clockwork.Steps[None]:
    one = _server(where, event)
    if one is not None and len(where.live_servers()) > 1:
        remove_server(one)
    yield 0.0


def add_server(where: world.World, *, machine: world.Machine, node: str) -> server.Server:
    name = f"pod-{len(where.servers)}"
    kind = server.Server if where.wanted.compatibility is None else listener.Listener
    one = kind(where, name=name, node=node, machine=machine, dialable=True)
    where.servers[name] = one
    one.start(where.latency())
    return one


def remove_server(one: server.Server) -> None:
    one.stop()
    one.legacy = None
    one.exists = False


def heal(where: world.World) -> None:
    """The end of all faults; what was broken stays as it is."""
    where.rivals = where.outage = False
    where.slow = 0.0
    where.trap = None
    where.forbidden.clear()
    for peer in where.issuers:
        peer.machine.cut_off = False
        if not peer.process.alive:
            peer.start(0.0)
        elif peer.process.paused_until > where.now:
            peer.process.paused_until = 0.0
            where.clock.start(peer.process)
    for one in where.live_servers():
        one.machine.cut_off = False
        one.dialable = True
        one.resume()
        if one.legacy is not None:
            remove_server(one)
            add_server(where, machine=one.machine, node=one.node)


def _issuer(where: world.World, event: Event) -> issuer.Issuer:
    return where.issuers[event.pick % len(where.issuers)]


def _server(where: world.World, event: Event) -> server.Server | None:
    return _pick(where.live_servers(), event)


def _pick(items: list[T], event: Event) -> T | None:
    return items[event.pick % len(items)] if items else None


HAPPENINGS: dict[str, Happening] = {
    name.replace("_", "-"): function for name, function in list(globals().items())
    if name in {
        "crash_issuer", "crash_at_write", "pause_issuer", "cut_off_issuer", "rivals", "crash_server", "pause_server",
        "cut_off_server", "hide_server", "outage", "slow_requests", "delete_leaf", "delete_ca", "damage_leaf",
        "damage_ca", "overwrite_configuration", "forbid_configuration", "replace_configuration", "change_spec",
        "rotate_ca", "rotate_leaf", "days_pass", "start_pod", "roll_pod", "delete_pod",
        "take_over_configuration", "replace_own_ca", "apply_bundle", "start_pod_cut_off", "restore_leaf"}}
