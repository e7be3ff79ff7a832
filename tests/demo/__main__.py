"""``python -m demo``: start a cluster, install steadyhook on every node at once, watch it come up, try the webhook."""
import argparse
import contextlib
import datetime
import pathlib
import shlex
import signal
import sys
import time
from collections.abc import Callable
from typing import Any

import rich.console
import rich.live
import rich.table

from demo import tally
from devcluster import api, binaries, components, facade, waiting

MANIFESTS = pathlib.Path(__file__).parents[2] / "manifests"
NAMESPACE = "steadyhook-system"
SECRET = "steadyhook-webhook-tls"
SEATS = 3
SHOP = "shop"  # the namespace of the ConfigMaps that are tried
DEFINITIONS = ("kopfpeerings.kopf.dev", "managernodes.steadyhook.io", "webhookcertificates.steadyhook.io")

Instance = dict[str, Any]


class DemoError(Exception):
    """The main job did not do what it promises; the text says what was seen."""


class Demo:
    """The steps of the demonstration, in the order in which they are shown."""

    def __init__(self, cluster: facade.DevCluster, *, layout: str, nodes: int, console: rich.console.Console) -> None:
        self._cluster = cluster
        self._layout = layout
        self._nodes = nodes
        self._console = console

    def run(self) -> None:
        """Raises DemoError."""
        self._install()
        started = self._start_all_at_once()
        self._watch(started)
        self._check_counts()
        if self._layout == "split":
            self._check_refusals()
        self._try_webhook()

    def _install(self) -> None:
        self._kubectl("apply", "-k", "manifests/crds")
        self._kubectl("wait", "--for=condition=Established", *(f"crd/{name}" for name in DEFINITIONS))
        self._cluster.hold_pod_starts()
        self._kubectl("apply", "-k", f"manifests/overlays/{self._layout}")

    def _start_all_at_once(self) -> float:
        """Every pod is bound before the first process starts, which is the worst case. Returns when all had started."""
        expected = self._nodes + (2 if self._layout == "split" else 0)
        try:
            self._cluster.wait_for(lambda: sum(pod.held for pod in self._pods()) == expected, 120,
                                   f"{expected} pods to be bound")
        finally:
            self._cluster.release_pod_starts()
        self._cluster.wait_for(lambda: all(pod.pid for pod in self._pods()), 60, "every process to run")
        self._console.print(f"\n[bold]{expected} pods, all started at once[/bold]")
        return time.monotonic()

    def _watch(self, started: float) -> None:
        deadline = started + 60 + 3 * self._nodes
        with rich.live.Live(console=self._console, refresh_per_second=8) as live:
            while True:
                instances = self._instances()
                elapsed = time.monotonic() - started
                live.update(self._table(instances, elapsed))
                serving = {item["fingerprint"] for item in instances if item["phase"] == "Serving"}
                if len(instances) == self._nodes and len(serving) == 1 and all(
                        item["phase"] == "Serving" for item in instances):
                    break
                if time.monotonic() > deadline:
                    raise DemoError(f"after {elapsed:.0f} s {sum(i['phase'] == 'Serving' for i in instances)} of"
                                    f" {self._nodes} nodes serve; see the pods' logs in {self._cluster.logs}")
                time.sleep(0.2)
        self._console.print(
            f"\nAll {self._nodes} nodes serve one certificate {elapsed:.1f} s after the last pod started.\n")

    def _check_counts(self) -> None:
        active = self._cluster.wait_for(self._active, 30, "an active instance")
        counts = tally.count(self._cluster.audit, namespace=NAMESPACE, secret=SECRET)
        table = rich.table.Table(title="Counted from the API server's audit log", title_justify="left")
        table.add_column("what")
        table.add_column("seen", overflow="fold")
        table.add_column("expected")
        verbs = ", ".join(f"{verb} {code}" for verb, code in counts.leaf_writes)
        checks = [
            (f"writes to Secret {SECRET}", f"{len(counts.leaf_writes)} ({verbs})", "1 (create 201)",
             counts.leaf_writes == (("create", 201),)),
            ("conflicts (409) on it", str(counts.leaf_conflicts), "0", counts.leaf_conflicts == 0),
            ("active instances", f"{len(active)} ({', '.join(active)})", "1", len(active) == 1),
            ("records in KopfPeering, at most", str(counts.most_peers), f"<= {SEATS}", counts.most_peers <= SEATS),
        ]
        for what, seen, expected, good in checks:
            table.add_row(what, f"[{'green' if good else 'red'}]{seen}", expected)
        self._console.print(table)
        failed = [what for what, _, _, good in checks if not good]
        if failed:
            raise DemoError(f"not as expected: {'; '.join(failed)}")

    def _check_refusals(self) -> None:
        """A server's own token is refused the CA key, and every other Secret."""
        server = next(pod for pod in self._pods() if pod.labels["app.kubernetes.io/component"] == "server")
        for what in (("secret", f"{SECRET}-ca"), ("secret", "another"), ("secrets",)):
            arguments = ("--kubeconfig", str(server.kubeconfig), "-n", NAMESPACE, "get", *what)
            with contextlib.suppress(facade.KubectlError):
                self._cluster.kubectl(*arguments)
                raise DemoError(f"a server may read {' '.join(what)}, expected that to be forbidden")
        self._console.print("A server's token is refused the CA Secret, any other Secret, and the list of Secrets.")

    def _try_webhook(self) -> None:
        self._console.print("\n[bold]The webhook, called by the API server through the Service[/bold]")
        self._kubectl("create", "namespace", SHOP)
        self._kubectl("label", "namespace", SHOP, "steadyhook.io/example=enabled")
        self._cluster.wait_for(lambda: self._cluster.kubectl(
            "create", "configmap", "probe", "-n", SHOP, "--dry-run=server"), 60, "the webhook to be reachable")
        self._apply("good", "3")
        try:
            self._apply("bad", "many")
        except facade.KubectlError as refused:
            self._console.print(f"  [green]denied:[/green] {refused.stderr.strip()}", highlight=False, soft_wrap=True)
        else:
            raise DemoError("the ConfigMap with replicas 'many' was admitted, expected it to be denied")
        label = self._cluster.kubectl("get", "configmap", "good", "-n", SHOP, "-o",
                                      r"jsonpath={.metadata.labels.steadyhook\.io/admitted}")
        if label != "true":
            raise DemoError(f"the label steadyhook.io/admitted is {label!r}, expected 'true' from the mutating webhook")

    def _apply(self, name: str, replicas: str) -> None:
        manifest = (f"apiVersion: v1\nkind: ConfigMap\nmetadata: {{name: {name}, namespace: {SHOP}}}\n"
                    f"data: {{replicas: \"{replicas}\"}}\n")
        self._console.print(f"$ kubectl apply -f -   # a ConfigMap with replicas: {replicas}", style="bold",
                            highlight=False)
        said = self._cluster.kubectl("apply", "-f", "-", input=manifest)
        self._console.print(f"  [green]allowed:[/green] {said.strip()}", highlight=False)

    def _kubectl(self, *arguments: str) -> None:
        self._console.print(f"$ kubectl {shlex.join(arguments)}", style="bold", highlight=False, soft_wrap=True)
        absolute = [str(MANIFESTS.parent / item) if item.startswith("manifests/") else item for item in arguments]
        said = self._cluster.kubectl(*absolute).strip().splitlines()
        if len(said) > 4:
            said = [*said[:2], f"... {len(said) - 3} more", said[-1]]
        for line in said:
            self._console.print(f"  {line}", style="dim", highlight=False, soft_wrap=True)

    def _pods(self) -> list[facade.PodProcess]:
        return self._cluster.pods(NAMESPACE)

    def _instances(self) -> list[Instance]:
        path = f"/apis/steadyhook.io/v1alpha1/namespaces/{NAMESPACE}/managernodes"
        try:
            nodes = self._cluster.request("GET", path)["items"]
        except api.ApiError as error:
            if error.status != 429:  # the storage of a definition that was just created begins to work
                raise
            nodes = []
        return [{**item, "node": node["metadata"]["name"]} for node in nodes
                for item in (node.get("status") or {}).get("instances", [])]

    def _active(self) -> list[str]:
        """The live record of the highest priority in the peering, as kopf sees it."""
        path = f"/apis/kopf.dev/v1/namespaces/{NAMESPACE}/kopfpeerings/steadyhook"
        status = self._cluster.request("GET", path).get("status") or {}
        now = datetime.datetime.now(datetime.UTC)
        live = {identity: item["priority"] for identity, item in status.items()
                if datetime.datetime.fromisoformat(item["lastseen"])
                + datetime.timedelta(seconds=item["lifetime"]) > now}
        return [identity for identity, priority in live.items() if priority == max(live.values())]

    def _table(self, instances: list[Instance], elapsed: float) -> rich.table.Table:
        table = rich.table.Table(title=f"{elapsed:5.1f} s", title_justify="left")
        for name in ("node", "role", "phase", "fingerprint", "expires"):
            table.add_column(name)
        known = {item["node"]: item for item in instances}
        for number in range(1, self._nodes + 1):
            node = f"node-{number}"
            item = known.get(node, {})
            phase = item.get("phase", "")
            colour = {"Serving": "green", "Waiting": "yellow", "Degraded": "red"}.get(phase, "white")
            role = item.get("role", "-")
            table.add_row(node, f"[bold]{role}[/bold]" if role == "active" else role, f"[{colour}]{phase}",
                          item.get("fingerprint", "")[:16], item.get("notAfter", ""))
        return table


def show_what_to_try(cluster: facade.DevCluster, console: rich.console.Console) -> None:
    """What a person may do while the cluster stays up."""
    folder = cluster.env()["PATH"].split(":", 1)[0]
    console.print(f"""
The cluster stays up until Ctrl-C. In another shell:

  export KUBECONFIG={cluster.kubeconfig} PATH={folder}:$PATH
  kubectl get whcert,mnode -n {NAMESPACE}
  kubectl delete secret {SECRET} -n {NAMESPACE}     # reissued once; nobody stops serving
  kubectl annotate secret {SECRET} steadyhook.io/ready- -n {NAMESPACE}   # damage it: watch mnode and its events
  kubectl get events -n {NAMESPACE} --sort-by=.lastTimestamp
  kubectl get kopfpeering steadyhook -n {NAMESPACE} -o yaml      # who is active: kill it with its pid
  kubectl rollout restart daemonset -n {NAMESPACE}

Logs of the pods: {cluster.logs}/pods     audit log: {cluster.audit.path}""", highlight=False, soft_wrap=True)


def main() -> int:
    """0 when everything was as promised."""
    parser = argparse.ArgumentParser(prog="python -m demo", description=__doc__)
    parser.add_argument("--nodes", type=int, default=5, help="how many nodes (default: %(default)s)")
    parser.add_argument("--layout", choices=["manager", "split"], default="manager")
    parser.add_argument("--once", action="store_true", help="end after the check")
    arguments = parser.parse_args()
    if not 1 <= arguments.nodes <= 200:
        parser.error(f"--nodes is {arguments.nodes}, expected 1 to 200")
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, _interrupt)
    console = rich.console.Console()
    began = time.monotonic()
    say: Callable[[str], None] = lambda line: console.print(  # noqa: E731
        f"[{time.monotonic() - began:5.1f} s] {line}", style="cyan", markup=False, highlight=False, soft_wrap=True)
    cluster = facade.DevCluster(nodes=arguments.nodes, progress=say)
    try:
        cluster.start()
        Demo(cluster, layout=arguments.layout, nodes=arguments.nodes, console=console).run()
        if not arguments.once:
            show_what_to_try(cluster, console)
            while True:
                signal.pause()
        return 0
    except KeyboardInterrupt:
        say("stopping")
        return 130 if arguments.once else 0
    except (DemoError, waiting.WaitTimeout, facade.KubectlError, api.ApiError, binaries.BinariesError,
            components.ControlPlaneError) as error:
        console.print(f"FAILED: {error}", style="red", markup=False, soft_wrap=True)
        return 1
    finally:
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # a second Ctrl-C must not leave half a cluster behind
        cluster.stop()


def _interrupt(_number: int, _frame: object) -> None:
    raise KeyboardInterrupt


if __name__ == "__main__":
    sys.exit(main())
