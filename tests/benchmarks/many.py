"""``python -m benchmarks.many``: one installation of issuers for many certificates, half of them without any right."""
import argparse
import collections
import contextlib
import sys
import time
import uuid
from collections.abc import Iterator

import rich.console
import rich.table

from devcluster import facade
from scenarios import crowd, installation

console = rich.console.Console()


@contextlib.contextmanager
def _crowd(
    cluster: facade.DevCluster, *, permitted: int, forbidden: int, for_listeners: bool
) -> Iterator[crowd.Crowd]:
    namespace = f"many-{uuid.uuid4().hex[:4]}"
    cluster.kubectl("create", "namespace", namespace)
    installed = installation.Installation(cluster, namespace, layout="issuer", nodes=2)
    with crowd.Crowd(installed, permitted=permitted, forbidden=forbidden, for_listeners=for_listeners) as made:
        try:
            yield made
        finally:
            installed.uninstall()


def measure(cluster: facade.DevCluster, table: rich.table.Table, *, permitted: int, forbidden: int,
            for_listeners: bool, quiet_seconds: float) -> None:
    """A start, then nothing, then one change."""
    with _crowd(cluster, permitted=permitted, forbidden=forbidden, for_listeners=for_listeners) as many:
        console.log(f"{permitted} certificates and {forbidden} forbidden ones: the issuers start")
        many.installed.install()
        began = time.monotonic()
        since = cluster.audit.position()
        active = many.active()
        many.wait_issued(120 + 3.0 * (permitted + forbidden))
        issued = time.monotonic() - began
        started = many.requests(since)
        many.wait_quiet(600)
        since = cluster.audit.position()
        time.sleep(quiet_seconds)
        rest = many.requests(since)
        memory = crowd.resident_mib(active)
        one = many.permitted[0]
        before = many.leaf(*one)
        since = cluster.audit.position()
        many.annotate(*one, "steadyhook.io/rotate-leaf", "once")
        cluster.wait_for(lambda: many.leaf(*one) != before, 60, "a new leaf")
        many.wait_quiet(60)
        changed, looks = many.requests(since), many.looked_at(since)
        rows = {
            "from the issuers' start until all are issued": f"{issued:.0f} s",
            "requests until then": _count(started),
            "resident memory of the active issuer": f"{memory:.0f} MiB",
            f"requests in {quiet_seconds:.0f} s of rest": f"{_count(rest)}: {sum(rest.values()) / quiet_seconds:.1f}/s",
            "one leaf is asked for": f"{_count(changed)}; looked at: "
            f"{sum(name in looks for name in many.permitted)} permitted,"
            f" {sum(name in looks for name in many.forbidden)} forbidden",
        }
        for what, figure in rows.items():
            table.add_row(f"{permitted}+{forbidden}", what, figure)
            console.print(f"{permitted}+{forbidden}: {what}: {figure}", soft_wrap=True)


def _count(counts: collections.Counter[str]) -> str:
    return f"{sum(counts.values())} ({', '.join(f'{key}: {count}' for key, count in counts.most_common(6))})"


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.many", description=__doc__)
    parser.add_argument("--sizes", type=int, nargs="+", default=[100, 500],
                        help="how many certificates; half as many again are forbidden (default: %(default)s)")
    parser.add_argument("--ours", action="store_true", help="for servers of our own: keys are made in no time")
    parser.add_argument("--quiet-seconds", type=float, default=120, help="how long nothing happens")
    arguments = parser.parse_args()
    table = rich.table.Table("certificates", "what", "figure", title="One issuer of all", title_justify="left")
    with facade.DevCluster(progress=console.log) as cluster:
        cluster.kubectl("apply", "-k", str(installation.MANIFESTS / "crds"))
        cluster.kubectl("wait", "--for=condition=Established", "crd", "--all")
        for size in arguments.sizes:
            measure(cluster, table, permitted=size, forbidden=size // 2,
                    for_listeners=not arguments.ours, quiet_seconds=arguments.quiet_seconds)
    console.print(table)
    return 0


if __name__ == "__main__":
    sys.exit(main())
