"""``steadyhook status``: the certificates, who serves them, and who is active."""
import collections
import datetime
import sys
import threading
import time
from typing import Any, NoReturn

import click
import rich.console
import rich.live

from steadyhook.cli import cluster, issuers, looking, output

GROUP = "/apis/steadyhook.io/v1alpha1"
LOOK_SECONDS = 30.0  # at the latest: what has only grown old is told by no change
SETTLE_SECONDS = 0.3  # changes come in groups
WATCH_SECONDS = 300.0
SHORT = 8  # letters of a fingerprint: enough to tell a few leaves apart, as git's
PODS_SHOWN = 3
KINDS = (f"{GROUP}{{}}/webhookcertificates", f"{GROUP}{{}}/managernodes", "/apis/kopf.dev/v1{}/kopfpeerings")


@click.command()
@click.option("-A", "--all-namespaces", is_flag=True, help="Certificates of every namespace.")
@click.option("-w", "--watch", is_flag=True, help="Go on until Ctrl-C.")
@output.options
def status(found: cluster.Cluster, form: str, all_namespaces: bool, watch: bool) -> output.Exit:
    """Show certificates, who issues them, and what each node serves.

    The role of an instance: active issues; a candidate holds a seat in the election and stands by; one in reserve holds
    none. All of them serve. Equal instances are one line; --output json has each of them.
    """
    namespace = None if all_namespaces else found.namespace
    if not watch:
        seen = look(found, namespace)
        _show(seen, form, found.now())
        if form != "json" and found.clock_ahead is not None and abs(found.clock_ahead) >= cluster.CLOCK_DIFFERS:
            seconds = round(found.clock_ahead.total_seconds())
            output.say(f"The clock of this machine is {abs(seconds)} s {'ahead of' if seconds > 0 else 'behind'} that"
                       " of the API server, by which everything here is judged.")
        return _judge(seen)
    changes = _Changes(found, namespace)
    console = output.console()
    if form == "json" or not console.is_terminal:
        _follow(found, namespace, form, changes)
    with rich.live.Live(console=console, auto_refresh=False) as live:
        while True:
            live.update(_tables(look(found, namespace), found.now()), refresh=True)
            changes.wait()


def _follow(found: cluster.Cluster, namespace: str | None, form: str, changes: "_Changes") -> NoReturn:
    """For what is no terminal: all of it again, whenever anything has changed."""
    shown = None
    while True:
        seen = look(found, namespace)
        told = [{**item, "nobodyIssues": item["nobodyIssues"] is not None} for item in seen]  # it counts the time
        if told != shown:
            _show(seen, form, found.now())
            sys.stdout.flush()
            shown = told
        changes.wait()


class _Changes:
    """Watches, in threads of their own, all that a status is made from."""

    def __init__(self, found: cluster.Cluster, namespace: str | None) -> None:
        self._seen = threading.Event()
        where = f"/namespaces/{namespace}" if namespace is not None else ""
        for kind in KINDS:
            watching = found.again(found.namespace)
            threading.Thread(target=self._watch, args=(watching, kind.format(where)), daemon=True).start()

    def wait(self) -> None:
        """Until something has changed, or may have."""
        self._seen.wait(LOOK_SECONDS)
        time.sleep(SETTLE_SECONDS)
        self._seen.clear()

    def _watch(self, found: cluster.Cluster, path: str) -> None:
        while True:
            try:
                for _ in found.watch(path, seconds=WATCH_SECONDS):
                    self._seen.set()
            except cluster.Failed:  # the next look tells why, if it matters
                time.sleep(LOOK_SECONDS)
            self._seen.set()


def look(found: cluster.Cluster, namespace: str | None) -> list[dict[str, Any]]:
    """One dictionary for each certificate; what ``--output json`` prints."""
    where = f"/namespaces/{namespace}" if namespace is not None else ""
    try:
        certificates = found.list(f"{GROUP}{where}/webhookcertificates")
    except cluster.NotFound as error:
        raise cluster.Failed("the definition of WebhookCertificate is not in this cluster; kubectl apply -k"
                             " manifests/crds") from error
    if namespace is not None and not certificates and found.find(f"/api/v1/namespaces/{namespace}") is None:
        raise cluster.NotFound(f"namespace {namespace} does not exist; give another one by -n, or -A for all")
    instances = [
        {**item, "namespace": node["metadata"]["namespace"], "node": node["metadata"]["name"]}
        for node in found.list(f"{GROUP}{where}/managernodes")
        for item in (node.get("status") or {}).get("instances", [])]
    if not certificates:
        return []
    seen = looking.installations(found)
    result = []
    for item in certificates:
        standing = issuers.standing(seen, namespace=item["metadata"]["namespace"],
                                    certificate=item["metadata"]["name"], now=found.now())
        issuer = looking.where(found, standing) if standing.problem is None else None
        result.append(_certificate(item, instances, standing, issuer))
    return result


def _certificate(
    manifest: cluster.Manifest, instances: list[dict[str, Any]], standing: issuers.Standing, issuer: str | None
) -> dict[str, Any]:
    metadata, state = manifest["metadata"], manifest.get("status") or {}
    conditions = {item["type"]: item for item in state.get("conditions", [])}
    mine = [item for item in instances
            if (item["namespace"], item.get("certificate")) == (metadata["namespace"], metadata["name"])]
    degraded = conditions.get("Degraded", {})
    return {
        "namespace": metadata["namespace"], "name": metadata["name"],
        "secret": manifest.get("spec", {}).get("secretName"),
        "ready": conditions.get("Ready", {}).get("status") == "True",
        "reason": conditions.get("Ready", {}).get("reason", "NotLookedAt"),
        "message": conditions.get("Ready", {}).get("message", "no issuer has looked at it yet; is one running?"),
        "degraded": degraded.get("message") if degraded.get("status") == "True" else None,
        "injected": conditions.get("Injected", {}).get("message"),
        "rotation": state.get("rotation"),
        "fingerprint": state.get("fingerprint"),
        "notAfter": state.get("notAfter"), "caNotAfter": state.get("caNotAfter"),
        "active": standing.identity, "issuer": issuer,
        "nobodyIssues": f"{standing.problem}; {standing.remedy}" if standing.problem is not None else None,
        "instances": [{key: item.get(key) for key in ("node", "podName", "phase", "fingerprint", "role", "message")}
                      for item in sorted(mine, key=lambda one: (one["node"], one["podName"]))],
    }


def _judge(seen: list[dict[str, Any]]) -> output.Exit:
    wrong = [item for item in seen if not item["ready"] or item["degraded"] or item["nobodyIssues"]]
    return output.Exit.WRONG if wrong or not seen else output.Exit.FINE


def _show(seen: list[dict[str, Any]], form: str, now: datetime.datetime) -> None:
    if form == "json":
        output.print_json(seen)
    elif not seen:
        click.echo("There is no WebhookCertificate here; -A looks in all namespaces.")
    else:
        console = output.console()
        # Without a terminal nothing is broken or cut: whoever reads it searches for whole words.
        console.print(_tables(seen, now), soft_wrap=not console.is_terminal)


def _tables(seen: list[dict[str, Any]], now: datetime.datetime) -> rich.console.Group:
    text = output.plain
    parts: list[str] = []
    for item in seen:
        colour = "green" if item["ready"] and not item["degraded"] and not item["nobodyIssues"] else "red"
        parts.append(f"[bold]{text(item['namespace'])}/{text(item['name'])}[/]"
                     f" [{colour}]{'Ready' if item['ready'] else text(item['reason'])}[/]: {text(item['message'])}")
        if item["degraded"]:
            parts.append(f"  degraded: [red]{text(item['degraded'])}[/]")
        if item["rotation"]:
            parts.append(f"  rotation: {text(item['rotation']['phase'])} since {text(item['rotation']['since'])}:"
                         f" {text(item['rotation']['message'])}")
        parts.append(f"  leaf:     {_remaining(item['notAfter'], now)}, {text((item['fingerprint'] or '')[:SHORT])}")
        parts.append(f"  CA:       {_remaining(item['caNotAfter'], now)}")
        parts.append(f"  issuer:   [red]{text(item['nobodyIssues'])}[/]" if item["nobodyIssues"]
                     else f"  issuer:   {text(item['issuer'])}")
        parts.extend(f"  {line}" for line in _instances(item))
        parts.append("")
    return rich.console.Group(*parts[:-1])


def _instances(item: dict[str, Any]) -> list[str]:
    """The instances, equal ones in one line; those that are as they should be come last."""
    groups: dict[tuple[bool, str, str, str], list[dict[str, Any]]] = {}
    for one in item["instances"]:
        good = one["phase"] == "Serving" and one["fingerprint"] == item["fingerprint"]
        message = "" if good else str(one["message"] or "")  # that of a good one says what its line says
        groups.setdefault((good, str(one["phase"] or ""), str(one["fingerprint"] or ""), message), []).append(one)
    return [_group(key, groups[key], leaf=item["fingerprint"]) for key in sorted(groups)]


def _group(key: tuple[bool, str, str, str], members: list[dict[str, Any]], *, leaf: str | None) -> str:
    text = output.plain
    good, phase, fingerprint, message = key
    roles = collections.Counter(str(one["role"] or "no role") for one in members)
    counted = ", ".join(f"{count} {'in reserve' if role == 'reserve' else role}"
                        for role, count in sorted(roles.items()))
    serves = f" {fingerprint[:SHORT]}" if fingerprint else ""
    if good:
        return f"[green]{_pods(len(members))}[/] {text(phase)}{text(serves)} ({text(counted)})"
    shown = ", ".join(f"{one['podName']} on {one['node']}" for one in members[:PODS_SHOWN])
    more = f" and {len(members) - PODS_SHOWN} more" if len(members) > PODS_SHOWN else ""
    other = " (another leaf)" if fingerprint and fingerprint != leaf else ""
    said = f": {message}" if message else ""
    return f"[yellow]{_pods(len(members))}[/] {text(phase + serves + other)}, {text(shown + more + said)}"


def _pods(count: int) -> str:
    return f"{count} {'pod' if count == 1 else 'pods'}"


def _remaining(date: str | None, now: datetime.datetime) -> str:
    try:
        days = (datetime.datetime.fromisoformat(date or "") - now).days
    except (ValueError, TypeError):
        return "not known"
    day = output.plain(str(date)[:10])
    return f"ends in {days} days ({day})" if days >= 0 else f"[red]ended {-days} days ago ({day})[/]"
