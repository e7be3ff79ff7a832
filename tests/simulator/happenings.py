"""Carrying out the events of a schedule: each is a process of its own, of a few lines."""
import collections.abc
import dataclasses
import datetime
from typing import Any, TypeVar

from simulator import clockwork, issuer, listener, model, server, world
from simulator.schedule import Event
from steadyhook.core import election, facts, reasons

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
    signer = next((one for one in content.trusted if one.pem == content.certificate.pem), alien)
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
        dataclasses.replace(content, generation=10**18 - 1),
        dataclasses.replace(content, trusted=(*content.trusted, *_strangers(where, 70))),
    )[pick % 16]


def _strangers(where: world.World, count: int) -> model.Certificates:
    """CAs that nobody has any reason to trust."""
    made = tuple(where.mint.authority(where.wanted, where.utc(), "stranger") for _ in range(count))
    where.strangers |= {item.fingerprint for item in made}
    return made


def damage_status(where: world.World, event: Event) -> clockwork.Steps[None]:
    """By hand, or from a backup: what the definition lets through, and no more."""
    item = where.store.objects[model.CERTIFICATE]
    status = item.value.status
    changed = ({}, {**status, "generation": 10**18 - 1},
               {key: value for key, value in status.items() if key != "conditions"})[event.pick % 3]
    if event.pick % 3 == 0 and where.store.get(model.AUTHORITY) is None:
        return  # what is retired is remembered in these two
    if event.pick % 3 == 0:
        where.overwritten.clear()  # whose a configuration is, nobody knows now
    where.store.update(model.CERTIFICATE, dataclasses.replace(item.value, status=changed), resource_version=None,
                       author=PEOPLE)
    yield 0.0


def odd_record(where: world.World, event: Event) -> clockwork.Steps[None]:
    """In the peering: one that nobody can read, or one of the future that would be active for ever."""
    name = f"odd-{event.pick % 2}"
    where.odd_records[name] = election.parse({"status": {name: (
        {"lastseen": "never", "priority": 10**9},
        {"lastseen": (where.utc() + datetime.timedelta(days=400)).isoformat(), "lifetime": 10**9, "priority": 10**9},
    )[event.pick % 2]}})[0]
    yield 0.0


def end_part(where: world.World, event: Event) -> clockwork.Steps[None]:
    """Something ends by itself; whoever supervises it starts it again after a back-off."""
    delay = min(event.seconds, 10.0)
    one = _server(where, event)
    if event.pick % 4 == 0:
        _issuer(where, event).ending = True
    elif event.pick % 4 == 1:
        peer = _issuer(where, event)
        peer.crash()
        yield delay
        peer.crash()
        peer.start(0.0)
    elif one is not None and one.legacy is None and where.wanted.compatibility is None:
        one.end_part(reporter=event.pick % 4 == 2, delay=delay)
    yield 0.0


SKEWS = (200.0, 900.0, 4 * 3600.0, 40 * 86400.0, 3 * 365 * 86400.0)


def step_clock(where: world.World, event: Event) -> clockwork.Steps[None]:
    """Set to a wrong time, and some time later to what it was."""
    one = _server(where, event)
    machine = _issuer(where, event).machine if event.pick % 2 or one is None else one.machine
    if machine.usual_skew_seconds is None:
        machine.usual_skew_seconds = machine.skew_seconds
    machine.clock_was_set = True
    machine.skew_seconds = SKEWS[event.pick % 5] * (1 if event.pick % 3 else -1)
    yield event.seconds
    machine.skew_seconds = machine.usual_skew_seconds


def fight_over_leaf(where: world.World, event: Event) -> clockwork.Steps[None]:
    """Another operator wants the same Secret, and writes its own pair into it whenever it finds another."""
    alien = where.mint.authority(where.wanted, where.utc(), "alien")
    pair = where.mint.leaf(where.wanted, alien, where.utc())
    end = where.now + event.seconds
    while where.now < end:
        item = where.store.get(model.LEAF)
        if item is not None and item.value.certificate != pair:
            where.store.update(model.LEAF, dataclasses.replace(item.value, certificate=pair, trusted=(alien,)),
                               resource_version=None, author=PEOPLE)
        yield where.rng.uniform(0.05, 0.4)


def restore_cluster(where: world.World, event: Event) -> clockwork.Steps[None]:
    """etcd is put back to what it held when some earlier leaf was written."""
    if not where.backups:
        return
    backup = where.backups[event.pick % len(where.backups)]
    for key in sorted(where.store.objects.keys() | backup.keys()):
        now, before = where.store.get(key), backup.get(key)
        if before is None:
            where.store.delete(key, resource_version=None)
        elif now is None:
            where.store.create(key, before.value, author=PEOPLE)
        elif now.value != before.value:
            where.store.update(key, before.value, resource_version=None, author=PEOPLE)
    where.overwritten.clear()
    where.was_restored = True
    if where.checker is not None:
        where.checker.restored()
    yield 0.0


def people(where: world.World) -> clockwork.Steps[None]:
    """Once the faults are over: they read the status, and do what it asks of them."""
    held_since: float | None = None
    for _ in range(40):
        yield 30.0
        status = where.store.objects[model.CERTIFICATE].value.status
        for told in status.get("configurations", ()):
            item = where.store.get(model.CONFIGURATION + told["name"])
            if told["state"] == reasons.Reason.UNREADABLE and item is not None:
                where.store.update(item.key, tuple(
                    dataclasses.replace(entry, trusted=(), readable=True) for entry in item.value),
                    resource_version=None, author=PEOPLE)
        degraded: dict[str, str] = next(
            (item for item in status.get("conditions", ()) if item["type"] == "Degraded"), {})
        if degraded.get("reason") == reasons.Reason.NOT_OURS:
            _give_way(where)
        held_since = _end_hold(where, status, held_since)
        behind = any(entry.get("reason") == reasons.Reason.OLDER_GENERATION
                     for item in where.store.list(model.NODE) for entry in item.value)
        unknown = where.was_restored or (where.checker is not None and where.checker.is_unrecorded)
        if unknown and (behind or degraded.get("reason") == reasons.Reason.NOT_SERVED):
            yield from _change_certificate(where, rotate_leaf=f"not served at {where.now:.0f}")
            yield 120.0


def _end_hold(where: world.World, status: dict[str, Any], since: float | None) -> float | None:
    """What holds a rotation is taken away, once that is told and has been looked at for some minutes."""
    told = " ".join(item["message"] for item in status.get("conditions", ()) if item["type"] in ("Rotating", "Issuing"))
    holding = [key for key in sorted(where.never) if (item := where.store.get(key)) is not None
               and f"Configuration {key.removeprefix(model.CONFIGURATION)}" in told
               and _trusts_what_is_served(where, item)]
    if not holding or since is None:
        return where.now if holding else None
    if where.now - since >= 200.0:
        for key in holding:
            where.store.delete(key, resource_version=None)
    return since


def _trusts_what_is_served(where: world.World, item: model.Object) -> bool:
    leaf = where.store.get(model.LEAF)
    return leaf is not None and any(one.pem == leaf.value.certificate.pem for entry in item.value
                                    for one in entry.trusted)


def _give_way(where: world.World) -> None:
    """The Secret of somebody else's makes room, or may be replaced."""
    for key in (model.LEAF, model.AUTHORITY):
        item = where.store.get(key)
        if item is None or item.value.ours:
            continue
        if where.rng.random() < 0.5:
            where.store.delete(key, resource_version=None)
        else:
            where.store.update(key, dataclasses.replace(item.value, ours=True), resource_version=None, author=PEOPLE)


def occupy(where: world.World, pick: int) -> None:
    """Before anything is installed, a Secret of that name is there already: somebody else's."""
    alien = where.mint.authority(where.wanted, where.utc(), "alien")
    if pick % 2:
        where.store.create(model.AUTHORITY, model.AuthorityContent(
            certificate=alien, bundle=(alien,), ours=False, recreate=bool(pick % 3)), author=PEOPLE)
    else:
        where.store.create(model.LEAF, model.LeafContent(
            certificate=where.mint.leaf(where.wanted, alien, where.utc()), trusted=(alien,), mark=None,
            generation=None, ours=False, recreate=bool(pick % 3)), author=PEOPLE)


def intrude(where: world.World) -> None:
    """Somebody's object asks for the bundle, which the issuer may never patch, and brings a CA along."""
    key = f"{model.CONFIGURATION}foreign"
    where.never.add(key)
    if where.rng.random() < 0.5:
        where.rejected.add(key)
    add_configuration(where, key, _strangers(where, 1))


def replace_own_ca(where: world.World, event: Event) -> clockwork.Steps[None]:
    """The user's own: another one, one that was there before, or none for a while."""
    if where.wanted.authority_name is None:
        return
    if event.pick % 3 == 0 and where.store.get(model.PROVIDED) is not None:
        where.store.delete(model.PROVIDED, resource_version=None)
        yield event.seconds
    before = list(where.own.values())
    held = where.store.get(model.PROVIDED)
    if event.pick % 5 == 0 and held is not None:  # renewed with its key, as cert-manager does by default
        provide(where, where.mint.authority(where.wanted, where.utc(), "own-CA", key=held.value.pem))
        return
    if event.pick % 5 == 1:  # prepared: it begins in some minutes
        provide(where, where.mint.authority(
            where.wanted, where.utc() + datetime.timedelta(seconds=300.0 + event.seconds), "own-CA"))
        return
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
        item = _pick(_configurations(where), event)
        if item is None:
            return
        alien = where.mint.authority(where.wanted, where.utc(), "alien")
        if _is_known(where, item):
            where.overwritten.add(alien.fingerprint)
        first, *others = item.value
        entry = (dataclasses.replace(first, trusted=()), dataclasses.replace(first, trusted=(alien,)),
                 dataclasses.replace(first, trusted=(), readable=False))[event.pick % 3]
        where.store.update(item.key, (entry, *others), resource_version=None, author=PEOPLE)
        yield 3.0


def _is_known(where: world.World, item: model.Object) -> bool:
    """Whether the status says that the configuration is ours."""
    told = where.store.objects[model.CERTIFICATE].value.status.get("configurations", ())
    return any(one["uid"] == item.uid and one.get("ours") for one in told)


def overwrite_forbidden(where: world.World, event: Event) -> clockwork.Steps[None]:
    """It is overwritten while the issuer may not write it: whose it is, must not be forgotten meanwhile."""
    item = _pick(_configurations(where), event)
    if item is not None:
        _forbid(where, item, event)
        yield 1.0
        alien = where.mint.authority(where.wanted, where.utc(), "alien")
        now = where.store.get(item.key)
        if now is not None:
            if _is_known(where, now):
                where.overwritten.add(alien.fingerprint)
            where.store.update(item.key, tuple(dataclasses.replace(entry, trusted=(alien,)) for entry in now.value),
                               resource_version=None, author=PEOPLE)
        yield event.seconds
        where.forbidden.discard(item.key)
    yield 0.0


def _forbid(where: world.World, item: model.Object, event: Event) -> None:
    where.forbidden.add(item.key)
    (where.rejected.add if event.pick % 4 > 1 else where.rejected.discard)(item.key)
    if where.wanted.compatibility is not None:
        where.block_views(item.uid)  # the application may not write it either


def copy_ca(where: world.World, event: Event) -> clockwork.Steps[None]:
    """A person lets what the issuer may never patch trust the CAs of now, on purpose."""
    authority = where.store.get(model.AUTHORITY)
    for key in sorted(where.never):
        item = where.store.get(key)
        if item is not None and authority is not None:
            where.store.update(key, tuple(dataclasses.replace(
                entry, trusted=(*authority.value.bundle, *(entry.trusted if event.pick % 2 else ())))
                for entry in item.value[:1]) + item.value[1:], resource_version=None, author=PEOPLE)
    yield 0.0


def forbid_configuration(where: world.World, event: Event) -> clockwork.Steps[None]:
    item = _pick(_configurations(where), event)
    if item is not None:
        _forbid(where, item, event)
        yield event.seconds
        where.forbidden.discard(item.key)
    yield 0.0


def replace_configuration(where: world.World, event: Event) -> clockwork.Steps[None]:
    """Deleted and created anew, or one more: it trusts nobody yet, or what an old manifest says."""
    key = f"{model.CONFIGURATION}{event.pick % 3}"
    if where.store.get(key) is not None:
        where.store.delete(key, resource_version=None)
        yield min(event.seconds, 10.0)
    if where.store.get(key) is None:
        old = [item for backup in where.backups for item in backup.values()
               if item.key.startswith(model.CONFIGURATION) and item.key not in where.never]
        trusted = old[0].value[0].trusted if old and event.pick % 2 else ()
        add_configuration(where, key, trusted)
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
    for machine in (*(peer.machine for peer in where.issuers), *(one.machine for one in where.servers.values())):
        if machine.is_wrong or machine.clock_was_set:
            machine.skew_seconds = machine.usual_skew_seconds = 0.0
            machine.clock_was_set = True
    where.clock.start(clockwork.Process("people", people(where)))
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


def _configurations(where: world.World) -> list[model.Object]:
    """But for those that never are to be ours."""
    return [item for item in where.store.list(model.CONFIGURATION) if item.key not in where.never]


def _pick(items: list[T], event: Event) -> T | None:
    return items[event.pick % len(items)] if items else None


HAPPENINGS: dict[str, Happening] = {
    name.replace("_", "-"): function for name, function in list(globals().items())
    if name in {
        "crash_issuer", "crash_at_write", "pause_issuer", "cut_off_issuer", "rivals", "crash_server", "pause_server",
        "cut_off_server", "hide_server", "outage", "slow_requests", "delete_leaf", "delete_ca", "damage_leaf",
        "damage_ca", "overwrite_configuration", "forbid_configuration", "replace_configuration", "change_spec",
        "rotate_ca", "rotate_leaf", "days_pass", "start_pod", "roll_pod", "delete_pod",
        "take_over_configuration", "replace_own_ca", "apply_bundle", "start_pod_cut_off", "restore_leaf",
        "overwrite_forbidden", "copy_ca", "damage_status",
        "odd_record", "end_part", "step_clock", "fight_over_leaf", "restore_cluster"}}
