"""``steadyhook reproduce``: the storm itself, made by writers of our own, and the same without it, in figures."""
import dataclasses
import threading
import time

import click
import rich.table

from steadyhook.cli import cluster, contending, output
from steadyhook.pki import certificates, secrets

MARK = "steadyhook.io/development"
NAMESPACES = "/api/v1/namespaces"
PREFIX = "steadyhook-storm-"
CONTENDING, ISSUED = "each writes", "issued before"
RETRY_SECONDS = 1.0  # after what is neither a success nor a conflict


@dataclasses.dataclass(slots=True)
class Figures:
    """What a number of writers did. The seconds are from the start of all of them."""

    writers: int
    ready: int = 0
    writes: int = 0
    conflicts: int = 0
    errors: int = 0
    first_ready_seconds: float | None = None
    last_ready_seconds: float | None = None
    lock: threading.Lock = dataclasses.field(default_factory=threading.Lock, repr=False)

    def count(self, outcome: contending.Outcome | None, at: float) -> None:
        """None: an error."""
        with self.lock:
            self.writes += outcome is contending.Outcome.WRITTEN
            self.conflicts += outcome is contending.Outcome.CONFLICT
            self.errors += outcome is None
            if outcome is contending.Outcome.READY:
                self.ready += 1
                self.first_ready_seconds = at if self.first_ready_seconds is None else self.first_ready_seconds
                self.last_ready_seconds = at

    def as_json(self) -> dict[str, float | None]:
        return {"ready": self.ready, "writes": self.writes, "conflicts": self.conflicts, "errors": self.errors,
                "firstReadySeconds": self.first_ready_seconds, "lastReadySeconds": self.last_ready_seconds}


@click.command()
@click.option("--writers", type=click.IntRange(2, 500), default=50, show_default=True, metavar="N")
@click.option("--seconds", type=click.FloatRange(1, 600), default=60.0, show_default=True,
              help="How long each of both parts may last.")
@click.option("--any-cluster", is_flag=True, help="Also on a cluster that is not marked for development.")
@output.options
def reproduce(found: cluster.Cluster, form: str, writers: int, seconds: float, any_cluster: bool) -> output.Exit:
    """Make the storm, and show its end, in figures.

    N writers fight over one Secret in a namespace made for it; then the same N find it issued.
    """
    if not any_cluster:
        _check_development(found)
    made = found.create(NAMESPACES, {"metadata": {"generateName": PREFIX}})
    namespace, uid = made["metadata"]["name"], made["metadata"]["uid"]
    try:
        click.echo(f"{writers} writers start at once; in another terminal: steadyhook diagnose {contending.SECRET}"
                   f" -n {namespace}", err=True)
        authority = contending.new_authority(namespace)
        parts = {CONTENDING: _run(found, namespace, writers, seconds, authority)}
        _issue(found.again(namespace), writers, authority)
        parts[ISSUED] = _run(found, namespace, writers, seconds, authority)
    finally:
        found.delete(f"{NAMESPACES}/{namespace}", uid=uid)
    if form == "json":
        output.print_json({"writers": writers, "contending": parts[CONTENDING].as_json(),
                           "issuedBefore": parts[ISSUED].as_json()})
    else:
        output.console().print(_table(parts))
    return output.Exit.FINE


def _check_development(found: cluster.Cluster) -> None:
    labels = found.get(f"{NAMESPACES}/kube-system")["metadata"].get("labels") or {}
    if labels.get(MARK) != "true":
        raise cluster.Failed(
            f"{found.server} is not a development cluster: its Namespace kube-system has {MARK}={labels.get(MARK)!r},"
            " expected 'true'; `make reproduce` starts one, or say --any-cluster if this one may have the load")


def _run(
    found: cluster.Cluster, namespace: str, writers: int, seconds: float, authority: certificates.KeyPair
) -> Figures:
    figures = Figures(writers)
    ended = threading.Event()
    together = threading.Barrier(writers + 1)

    def contend(writer: contending.Writer) -> None:
        together.wait()
        began = time.monotonic()
        while not ended.is_set() and time.monotonic() - began < seconds:
            try:
                outcome = writer.attempt()
            except cluster.Failed:
                outcome = None
                ended.wait(RETRY_SECONDS)
            figures.count(outcome, round(time.monotonic() - began, 2))
            if outcome is contending.Outcome.READY:
                return

    contenders = [contending.Writer(found.again(namespace), f"writer-{number}", authority) for number in range(writers)]
    threads = [threading.Thread(target=contend, args=(writer,), daemon=True) for writer in contenders]
    try:
        for thread in threads:
            thread.start()
        together.wait()
        for thread in threads:
            thread.join()
    finally:
        ended.set()
        together.abort()
    return figures


def _issue(found: cluster.Cluster, writers: int, authority: certificates.KeyPair) -> None:
    """What an issuer does before anybody starts: one Secret for all names, marked as nobody's to write."""
    path = f"/api/v1/namespaces/{found.namespace}/secrets"
    held = found.find(f"{path}/{contending.SECRET}")
    if held is not None:
        found.delete(f"{path}/{contending.SECRET}", uid=held["metadata"]["uid"])
    names = [f"writer-{number}.{found.namespace}.svc" for number in range(writers)]
    content = contending.leaf(names, namespace=found.namespace, authority=authority)
    found.create(path, {**content, "metadata": {"name": contending.SECRET, "annotations": {secrets.STATIC: "true"}}})


def _table(parts: dict[str, Figures]) -> rich.table.Table:
    table = rich.table.Table("", "ready", "writes by them", "conflicts", "first ready", "last ready", box=None)
    for name, item in parts.items():
        table.add_row(name, f"{item.ready} of {item.writers}", str(item.writes), str(item.conflicts),
                      _seconds(item.first_ready_seconds), _seconds(item.last_ready_seconds))
    return table


def _seconds(value: float | None) -> str:
    return "never" if value is None else f"{value:.1f} s"
