"""``steadyhook status``: the certificates, who serves them, and who is active."""
import datetime
import sys
import threading
import time
from typing import Any, NoReturn

import click
import rich.console
import rich.live
import rich.padding
import rich.table

from steadyhook.cli import cluster, output
from steadyhook.core import election

GROUP = "/apis/steadyhook.io/v1alpha1"
LOOK_SECONDS = 30.0  # at the latest: what has only grown old is told by no change
SETTLE_SECONDS = 0.3  # changes come in groups
WATCH_SECONDS = 300.0
KINDS = (f"{GROUP}{{}}/webhookcertificates", f"{GROUP}{{}}/managernodes", "/apis/kopf.dev/v1{}/kopfpeerings")


@click.command()
@click.option("-A", "--all-namespaces", is_flag=True, help="Certificates of every namespace.")
@click.option("-w", "--watch", is_flag=True, help="Go on until Ctrl-C.")
@output.options
def status(found: cluster.Cluster, form: str, all_namespaces: bool, watch: bool) -> output.Exit:
    """Show certificates, who is active, and what each node serves."""
    namespace = None if all_namespaces else found.namespace
    if not watch:
        seen = look(found, namespace)
        _show(seen, form)
        return _judge(seen)
    changes = _Changes(found, namespace)
    console = output.console()
    if form == "json" or not console.is_terminal:
        _follow(found, namespace, form, changes)
    with rich.live.Live(console=console, auto_refresh=False) as live:
        while True:
            live.update(_tables(look(found, namespace)), refresh=True)
            changes.wait()


def _follow(found: cluster.Cluster, namespace: str | None, form: str, changes: "_Changes") -> NoReturn:
    """For what is no terminal: all of it again, whenever anything has changed."""
    shown = None
    while True:
        seen = look(found, namespace)
        if seen != shown:
            _show(seen, form)
            sys.stdout.flush()
            shown = seen
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
    active = {item["metadata"]["namespace"]: _active(item) for item in _peerings(found, where)}
    return [_certificate(item, instances, active.get(item["metadata"]["namespace"])) for item in certificates]


def _peerings(found: cluster.Cluster, where: str) -> list[cluster.Manifest]:
    try:
        return [item for item in found.list(f"/apis/kopf.dev/v1{where}/kopfpeerings")
                if item["metadata"]["name"] == "steadyhook"]
    except (cluster.NotFound, cluster.Forbidden):
        return []


def _active(peering: cluster.Manifest) -> str | None:
    """The identity of the active instance of an election."""
    now = datetime.datetime.now(datetime.UTC)
    records = election.parse(peering)
    return next((item.identity for item in records
                 if election.role(records, identity=item.identity, now=now) is election.Role.ACTIVE), None)


def _certificate(
    manifest: cluster.Manifest, instances: list[dict[str, Any]], active: str | None
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
        "active": active,
        "instances": [{key: item.get(key) for key in ("node", "podName", "phase", "fingerprint", "role", "message")}
                      for item in sorted(mine, key=lambda one: (one["node"], one["podName"]))],
    }


def _judge(seen: list[dict[str, Any]]) -> output.Exit:
    wrong = [item for item in seen if not item["ready"] or item["degraded"]]
    return output.Exit.WRONG if wrong or not seen else output.Exit.FINE


def _show(seen: list[dict[str, Any]], form: str) -> None:
    if form == "json":
        output.print_json(seen)
    elif not seen:
        click.echo("There is no WebhookCertificate here; -A looks in all namespaces.")
    else:
        output.console().print(_tables(seen))


def _tables(seen: list[dict[str, Any]]) -> rich.console.Group:
    text = output.plain
    parts: list[rich.console.RenderableType] = []
    for item in seen:
        colour = "green" if item["ready"] and not item["degraded"] else "red"
        parts.append(f"[bold]{text(item['namespace'])}/{text(item['name'])}[/]"
                     f" [{colour}]{'Ready' if item['ready'] else text(item['reason'])}[/]: {text(item['message'])}")
        lines = rich.table.Table.grid(padding=(0, 2))
        if item["degraded"]:
            lines.add_row("degraded", f"[red]{text(item['degraded'])}[/]")
        if item["rotation"]:
            lines.add_row("rotation", text(f"{item['rotation']['phase']} since {item['rotation']['since']}:"
                                           f" {item['rotation']['message']}"))
        lines.add_row("leaf", _remaining(item["notAfter"]))
        lines.add_row("CA", _remaining(item["caNotAfter"]))
        lines.add_row("active", text(item["active"] or "nobody whose election is in this namespace"))
        parts.append(rich.padding.Padding(lines, (0, 0, 0, 2)))
        if item["instances"]:
            parts.append(rich.padding.Padding(_instances(item), (1, 0, 0, 1)))
        parts.append("")
    return rich.console.Group(*parts[:-1])


def _instances(item: dict[str, Any]) -> rich.table.Table:
    table = rich.table.Table("node", "pod", "phase", "serves", "role", "message", box=None)
    for one in item["instances"]:
        serves = output.plain((one["fingerprint"] or "")[:16])
        if serves and one["fingerprint"] != item["fingerprint"]:
            serves = f"[yellow]{serves} (another leaf)[/]"
        node, pod, phase, role, message = (output.plain(one[key] or "") for key in (
            "node", "podName", "phase", "role", "message"))
        table.add_row(node, pod, phase, serves, role, message)
    return table


def _remaining(date: str | None) -> str:
    if date is None:
        return "not known"
    days = (datetime.datetime.fromisoformat(date) - datetime.datetime.now(datetime.UTC)).days
    return f"ends in {days} days ({date})" if days >= 0 else f"[red]ended {-days} days ago ({date})[/]"
