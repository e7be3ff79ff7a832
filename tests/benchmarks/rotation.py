"""
``python -m benchmarks.rotation`` (``make bench-rotation``): does anybody notice?

Admission requests through the API server and the Service, and TLS handshakes with every pod, at a steady rate, while
the leaf is renewed, the CA is rotated, the DaemonSet is restarted, and the active instance is killed in the middle of a
rotation. Then the same handshakes against kopf's own webhook server, whose certificate files change.
"""
import argparse
import collections
import contextlib
import json
import os
import pathlib
import signal
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator

import rich.console
import rich.table

from devcluster import api, facade
from scenarios import installation
from steadyhook.pki import certificates, secrets

console = rich.console.Console(width=150)
NAMESPACE = "rotation"
MERGE = "application/merge-patch+json"


class Handshakes:
    """A prober in a process of its own, whose plan is kept up to date by ``look``: (targets, bundle)."""

    def __init__(self, look: Callable[[], tuple[list[tuple[str, int]], str]], *, name: str, per_second: float) -> None:
        self._look = look
        self._name = name
        self._per_second = per_second
        self._folder = tempfile.TemporaryDirectory(prefix="steadyhook-")
        self._plan = pathlib.Path(self._folder.name) / "plan.json"
        self._ended = threading.Event()
        self.sent = 0
        self.failures: collections.Counter[str] = collections.Counter()
        self.seconds: list[float] = []

    def __enter__(self) -> "Handshakes":
        self._write()
        self._process = subprocess.Popen(
            [sys.executable, "-m", "benchmarks.handshakes", str(self._plan)], stdout=subprocess.PIPE, text=True)
        self._thread = threading.Thread(target=self._follow, daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self._ended.set()
        self._thread.join()
        self._process.send_signal(signal.SIGTERM)
        output, _ = self._process.communicate(timeout=60)
        result = json.loads(output)
        self.sent, self.seconds = result["sent"], result["seconds"]
        self.failures.update(result["failures"])
        self._folder.cleanup()

    def _follow(self) -> None:
        while not self._ended.wait(0.1):
            with contextlib.suppress(api.ApiError, LookupError):
                self._write()

    def _write(self) -> None:
        targets, bundle = self._look()
        text = json.dumps({"targets": targets, "bundle": bundle, "name": self._name, "per_second": self._per_second})
        if not self._plan.exists() or self._plan.read_text() != text:
            fresh = self._plan.with_suffix(".new")
            fresh.write_text(text)
            os.replace(fresh, self._plan)


class Admissions:
    """Admission requests from several threads, with their latencies."""

    def __init__(self, installed: installation.Installation, *, per_second: float, threads: int = 4) -> None:
        self._installed = installed
        self._interval = threads / per_second
        self._ended = threading.Event()
        self._threads = [threading.Thread(target=self._send, args=(number,), daemon=True) for number in range(threads)]
        self.failures: collections.Counter[str] = collections.Counter()
        self.seconds: list[float] = []

    def __enter__(self) -> "Admissions":
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        for thread in self._threads:
            thread.join(30)

    @property
    def sent(self) -> int:
        return len(self.seconds) + self.failures.total()

    def _send(self, number: int) -> None:
        due = time.monotonic()
        count = 0
        while not self._ended.wait(max(0.0, due - time.monotonic())):
            due = max(due + self._interval, time.monotonic() - 1)
            count += 1
            began = time.monotonic()
            try:
                self._installed.admit(name=f"load-{number}-{count}")
            except (api.ApiError, OSError) as error:
                self.failures[str(error)[:200]] += 1
            else:
                self.seconds.append(time.monotonic() - began)


class Bench:
    """One installation under load; each ``phase`` is a row of the table."""

    def __init__(self, installed: installation.Installation, *, handshakes: float, admissions: float) -> None:
        self._installed = installed
        self._handshakes = handshakes
        self._admissions = admissions
        self.total: collections.Counter[str] = collections.Counter()
        self.table = rich.table.Table(
            "phase", "seconds", "handshakes", "failed", "p50/p99 ms", "admissions", "failed", "p50/p99 ms",
            title="Under load", title_justify="left")

    @contextlib.contextmanager
    def phase(self, what: str) -> Iterator[None]:
        console.log(what)
        began = time.monotonic()
        shakes = Handshakes(self._look, name=f"steadyhook-webhook.{self._installed.namespace}.svc",
                            per_second=self._handshakes)
        admissions = Admissions(self._installed, per_second=self._admissions)
        with shakes, admissions:
            yield
        self._row(what, time.monotonic() - began, shakes, admissions)

    def _row(self, what: str, seconds: float, shakes: Handshakes, admissions: Admissions) -> None:
        self.table.add_row(what, f"{seconds:.0f}",
                           str(shakes.sent), _failed(shakes.failures), _latency(shakes.seconds),
                           str(admissions.sent), _failed(admissions.failures), _latency(admissions.seconds))
        self.total.update(handshakes=shakes.sent, handshakes_failed=shakes.failures.total(),
                          admissions=admissions.sent, admissions_failed=admissions.failures.total())

    def _look(self) -> tuple[list[tuple[str, int]], str]:
        """The pods that the Service sends requests to, and the bundle that is injected, both as they are now."""
        installed = self._installed
        selector = "labelSelector=kubernetes.io%2Fservice-name%3Dsteadyhook-webhook"
        ready = {address for part in installed.get(f"discovery.k8s.io/v1 endpointslices?{selector}")["items"]
                 for item in part["endpoints"] or [] if item["conditions"].get("ready")
                 for address in item["addresses"]}
        path = ("/apis/admissionregistration.k8s.io/v1/validatingwebhookconfigurations/steadyhook-example-"
                + installed.namespace)
        webhook = installed.cluster.request("GET", path)["webhooks"][0]
        trusted, _ = secrets.read_ca_bundle(webhook["clientConfig"]["caBundle"])
        return ([(pod.loopback, 9443) for pod in installed.pods() if pod.ip in ready],
                certificates.bundle_pem(trusted).decode("ascii"))


def _failed(failures: collections.Counter[str]) -> str:
    return str(failures.total()) if not failures else f"{failures.total()} ({failures.most_common(1)[0][0][:60]})"


def _latency(seconds: list[float]) -> str:
    if len(seconds) < 2:
        return "-"
    return f"{statistics.median(seconds) * 1000:.1f}/{statistics.quantiles(seconds, n=100)[98] * 1000:.1f}"


def _annotate(installed: installation.Installation, key: str) -> str:
    value = str(time.time_ns())
    path = (f"/apis/steadyhook.io/v1alpha1/namespaces/{installed.namespace}/webhookcertificates/"
            f"{installation.CERTIFICATE}")
    installed.cluster.request("PATCH", path, {"metadata": {"annotations": {f"steadyhook.io/{key}": value}}},
                              content_type=MERGE)
    return value


def _authorities(installed: installation.Installation) -> set[str]:
    secret = installed.secret(installation.AUTHORITY)
    return {item.fingerprint for item in secrets.read_authority(secret).bundle} if secret else set()


def _wait_rotated(installed: installation.Installation, before: set[str]) -> None:
    installed.cluster.wait_for(
        lambda: not _authorities(installed) & before and installed.conditions()["Rotating"]["status"] == "False", 300,
        "the rotation to end")


def _wait_rolled_out(installed: installation.Installation) -> None:
    installed.cluster.kubectl("rollout", "status", "daemonset/steadyhook-server", "-n", installed.namespace,
                              timeout=900)


def measure(installed: installation.Installation, bench: Bench, *, quiet_seconds: float) -> None:
    """The phases, in order."""
    with bench.phase("nothing happens"):
        time.sleep(quiet_seconds)
    with bench.phase("leaf renewal"):
        leaf = installed.fingerprint()
        _annotate(installed, "rotate-leaf")
        installed.wait_serving(but_not=leaf)
        time.sleep(quiet_seconds / 4)
    with bench.phase("CA rotation"):
        before = _authorities(installed)
        _annotate(installed, "rotate-ca")
        _wait_rotated(installed, before)
    with bench.phase("rolling restart"):
        installed.cluster.kubectl("rollout", "restart", "daemonset/steadyhook-server", "-n", installed.namespace)
        _wait_rolled_out(installed)
    with bench.phase("CA rotation, active killed"):
        before = _authorities(installed)
        _annotate(installed, "rotate-ca")
        installed.cluster.wait_for(lambda: (installed.certificate()["status"].get("rotation") or {}).get("phase")
                                   == "Distributing", 60, "the rotation to begin")
        installed.cluster.kill(installed.active())
        _wait_rotated(installed, before)


def compare_with_kopf(*, seconds: float, per_second: float) -> rich.table.Table:
    """The same handshakes against kopf.WebhookServer, whose files are replaced twice: same CA, then another."""
    from benchmarks import kopf_server

    table = rich.table.Table("kopf's WebhookServer", "handshakes", "failed", title_justify="left",
                             title="For comparison")
    with kopf_server.Server() as server:
        for what, change in (("nothing happens", None), ("leaf renewal", server.renew),
                             ("CA rotation, both trusted all the time", server.rotate)):
            with Handshakes(server.look, name=kopf_server.NAME, per_second=per_second) as shakes:
                time.sleep(seconds / 2)
                if change is not None:
                    change()
                time.sleep(seconds / 2)
            table.add_row(what, str(shakes.sent), _failed(shakes.failures))
    return table


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.rotation", description=__doc__)
    parser.add_argument("--nodes", type=int, default=20)
    parser.add_argument("--handshakes", type=float, default=200, help="a second (default: %(default)s)")
    parser.add_argument("--admissions", type=float, default=40, help="a second (default: %(default)s)")
    parser.add_argument("--quiet-seconds", type=float, default=360, help="how long nothing happens")
    arguments = parser.parse_args()
    with facade.DevCluster(progress=console.log) as cluster:
        cluster.kubectl("apply", "-k", str(installation.MANIFESTS / "crds"))
        cluster.kubectl("wait", "--for=condition=Established", "crd", "--all")
        cluster.kubectl("create", "namespace", NAMESPACE)
        # The split layout, where the active instance can be killed without killing one that serves.
        installed = installation.Installation(cluster, NAMESPACE, layout="split", nodes=arguments.nodes,
                                              env={"STEADYHOOK_DRAIN_SECONDS": "5"})
        installed.install()
        installed.wait_serving(timeout=60 + 5 * arguments.nodes)
        installed.wait_ready()
        bench = Bench(installed, handshakes=arguments.handshakes, admissions=arguments.admissions)
        measure(installed, bench, quiet_seconds=arguments.quiet_seconds)
    console.print(bench.table)
    console.print(f"in all: {dict(bench.total)}")
    console.print(compare_with_kopf(seconds=20, per_second=arguments.handshakes))
    return 0


if __name__ == "__main__":
    sys.exit(main())
