"""``python -m benchmarks``: how fast all nodes serve, what an instance costs, what an idle server asks."""
import argparse
import pathlib
import statistics
import sys
import time
import uuid

import rich.console
import rich.table

from devcluster import audit, facade
from scenarios import installation

console = rich.console.Console()


def measure_start(cluster: facade.DevCluster, *, layout: str, nodes: int, runs: int) -> list[float]:
    """Seconds from the last pod's start to all nodes serving, for each run; all pods start at once."""
    results = []
    for _ in range(runs):
        with _installed(cluster, layout=layout, nodes=nodes, at_once=True) as installed:
            cluster.wait_for(
                lambda: all(pod.pid for pod in installed.pods()), 60, "every process to run", interval=0.01)
            started = time.monotonic()
            installed.wait_serving(timeout=60 + 3 * nodes)
            results.append(time.monotonic() - started)
    return results


def measure_memory(cluster: facade.DevCluster, *, layout: str) -> dict[str, float]:
    """Resident memory in MiB of one serving instance of each component, and of the one that issues."""
    with _installed(cluster, layout=layout, nodes=3) as installed:
        installed.wait_serving()
        installed.wait_ready()
        for number in range(200):
            installed.admit(name=f"warm-{number}")
        active = cluster.wait_for(installed.active, 30, "an active instance")
        found = {pod.labels["app.kubernetes.io/component"]: _resident_mib(pod) for pod in installed.pods()}
        return {**found, f"{active.labels['app.kubernetes.io/component']} that issues": _resident_mib(active)}


def count_idle_requests(cluster: facade.DevCluster, *, seconds: float) -> dict[str, int]:
    """The requests of one idle server of the split layout, by verb and resource; long-running ones count when begun."""
    with _installed(cluster, layout="split", nodes=1) as installed:
        installed.wait_serving()
        installed.wait_ready()
        time.sleep(30)  # what belongs to the start is not idle
        since = cluster.audit.position()
        time.sleep(seconds)
        user = f"system:serviceaccount:{installed.namespace}:steadyhook-server"
        counts: dict[str, int] = {}
        for event in cluster.audit.events(since, stages=(*audit.COMPLETE, "ResponseStarted")):
            if event["user"]["username"] != user or (event["verb"] == "watch" and event["stage"] in audit.COMPLETE):
                continue
            target = event.get("objectRef") or {}
            key = f"{event['verb']} {target.get('resource', event['requestURI'])}"
            counts[key] = counts.get(key, 0) + 1
        return counts


class _installed:  # noqa: N801  # reads as the word it is, in a with statement
    def __init__(self, cluster: facade.DevCluster, *, layout: str, nodes: int, at_once: bool = False) -> None:
        name = f"bench-{uuid.uuid4().hex[:6]}"
        self._cluster = cluster
        self._at_once = at_once
        self._installation = installation.Installation(cluster, name, layout=layout, nodes=nodes)

    def __enter__(self) -> installation.Installation:
        self._cluster.kubectl("create", "namespace", self._installation.namespace)
        self._installation.install(at_once=self._at_once)
        return self._installation

    def __exit__(self, *_: object) -> None:
        self._installation.uninstall()
        self._cluster.kubectl("delete", "namespace", self._installation.namespace, "--wait=false")


def _resident_mib(pod: facade.PodProcess) -> float:
    status = pathlib.Path(f"/proc/{pod.pid}/status").read_text()
    line = next(line for line in status.splitlines() if line.startswith("VmRSS"))
    return int(line.split()[1]) / 1024


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("--runs", type=int, default=3, help="starts for each size (default: %(default)s)")
    parser.add_argument("--idle-seconds", type=int, default=600, help="the window of the idle count")
    arguments = parser.parse_args()
    table = rich.table.Table("what", "figure", title="steadyhook", title_justify="left")
    with facade.DevCluster(progress=console.log) as cluster:
        cluster.kubectl("apply", "-k", str(installation.MANIFESTS / "crds"))
        cluster.kubectl("wait", "--for=condition=Established", "crd", "--all")
        for layout in ("manager", "split"):
            for nodes in (5, 20):
                console.log(f"starting {nodes} nodes, layout {layout}, {arguments.runs} times")
                seconds = measure_start(cluster, layout=layout, nodes=nodes, runs=arguments.runs)
                table.add_row(f"last pod's start to all {nodes} serving, {layout}",
                              f"median {statistics.median(seconds):.1f} s"
                              f" (min {min(seconds):.1f}, max {max(seconds):.1f}, {len(seconds)} runs)")
        for layout in ("manager", "split"):
            console.log(f"memory, layout {layout}")
            for component, mib in measure_memory(cluster, layout=layout).items():
                table.add_row(f"resident memory, {component}", f"{mib:.0f} MiB")
        console.log(f"counting the requests of an idle server for {arguments.idle_seconds} s")
        counts = count_idle_requests(cluster, seconds=arguments.idle_seconds)
        table.add_row(f"requests of an idle server in {arguments.idle_seconds} s",
                      f"{sum(counts.values())} ({', '.join(f'{k}: {v}' for k, v in sorted(counts.items()))})")
    console.print(table)
    return 0


if __name__ == "__main__":
    sys.exit(main())
