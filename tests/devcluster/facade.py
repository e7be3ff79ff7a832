"""The development cluster as a synchronous object, for tests, benchmarks and the command line.

Kubelet and proxies run in one event loop, in a thread of its own; each method here may be called from any other thread.
"""

import asyncio
import atexit
import contextlib
import dataclasses
import logging
import os
import pathlib
import signal
import ssl
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Coroutine, Iterable, Iterator
from typing import Any, TypeVar

from devcluster import (
    addresses,
    api,
    audit,
    binaries,
    components,
    kubelet,
    lifecycle,
    probing,
    processes,
    proxies,
    waiting,
)

JsonObject = dict[str, Any]
Value = TypeVar("Value")

# What tells this cluster from one that matters, on its Namespace kube-system.
DEVELOPMENT = "steadyhook.io/development"

_CALL_SECONDS = 60.0
# Unix sockets cannot have longer paths (man 7 unix).
_SOCKET_PATH_BYTES = 107


class KubectlError(RuntimeError):
    """kubectl failed. `stderr` is what it said."""

    def __init__(self, arguments: tuple[str, ...], code: int, stderr: str) -> None:
        super().__init__(f"`kubectl {' '.join(arguments)}` exited with {code}: {stderr.strip()}")
        self.code = code
        self.stderr = stderr


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class PodProcess:
    """A pod as it was at one moment. `pid` is the process of its first container, None while it does not run."""

    namespace: str
    name: str
    uid: str
    node: str
    labels: dict[str, str]
    ip: str
    loopback: str
    pid: int | None
    ready: bool
    held: bool
    restarts: int
    log_path: pathlib.Path
    kubeconfig: pathlib.Path

    def log(self) -> str:
        """What its first container has written, over all restarts."""
        return self.log_path.read_text(errors="replace") if self.log_path.exists() else ""


class DevCluster:
    """A real control plane with `nodes` nodes named node-1, node-2, … whose pods are processes.

    Everything is in a new folder in `base_dir` (the system's temporary folder by default), which is removed at the end.
    `progress` gets a line at each step. Use it as a context manager, or call `start` and `stop`.
    """

    def __init__(
        self,
        nodes: int = 0,
        base_dir: pathlib.Path | None = None,
        progress: Callable[[str], None] | None = None,
    ) -> None:
        self._initial_nodes = nodes
        self._base_dir = base_dir
        self._progress = progress or (lambda line: None)
        self._stack = contextlib.ExitStack()
        self._loop: asyncio.AbstractEventLoop
        self._plane: components.ControlPlane
        self._kubelet: kubelet.Kubelet
        self._egress: proxies.EgressProxy
        self._api: api.Api
        self._around: lifecycle.Surroundings
        self._watchdog: processes.Watchdog
        self._binaries: dict[str, pathlib.Path] = {}
        self.folder: pathlib.Path
        self.audit: audit.AuditLog
        self.http_proxy: str = ""

    def __enter__(self) -> "DevCluster":
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    # ---- life ----

    def start(self) -> None:
        """Start the control plane and the nodes. Raises `BinariesError` or `ControlPlaneError`, and leaves nothing."""
        if sys.platform != "linux":
            raise components.ControlPlaneError(f"the development cluster needs Linux, not {sys.platform!r}")
        with contextlib.ExitStack() as stack:
            self._binaries = binaries.find(self._progress)
            self._make_folder(stack)
            self._start_plane(stack)
            self._start_nodes(stack)
            self.kubectl("label", "namespace", "kube-system", f"{DEVELOPMENT}=true")
            # Without this, the end of a program that forgot `stop` would be left to the watchdog alone.
            atexit.register(self.stop)
            stack.callback(atexit.unregister, self.stop)
            self._stack = stack.pop_all()

    def stop(self) -> None:
        """End every process and remove the folder. May be called again."""
        self._stack.close()

    def _make_folder(self, stack: contextlib.ExitStack) -> None:
        if self._base_dir is not None:
            self._base_dir.mkdir(parents=True, exist_ok=True)
        self.folder = pathlib.Path(tempfile.mkdtemp(prefix="steadyhook-", dir=self._base_dir))
        self._watchdog = processes.Watchdog(self.folder)
        stack.callback(self._watchdog.close)
        files = components.Files(folder=self.folder)
        if len(os.fsencode(files.egress_socket)) > _SOCKET_PATH_BYTES:
            raise components.ControlPlaneError(
                f"{files.egress_socket} is too long for a Unix socket ({_SOCKET_PATH_BYTES} bytes); "
                "set base_dir or TMPDIR to a shorter path"
            )
        environment = {**components.base_environment(self.folder), **self._watchdog.environment()}
        self._plane = components.ControlPlane(files, self._binaries, environment)
        self.audit = audit.AuditLog(files.audit_log)

    def _start_plane(self, stack: contextlib.ExitStack) -> None:
        self._loop = stack.enter_context(_loop_in_thread())
        self._egress = proxies.EgressProxy(kubelet.PORT)
        self.http_proxy = self._call(self._egress.start(self._plane.files.egress_socket))
        stack.callback(lambda: self._call(self._egress.close()))
        self._progress("starting etcd, kube-apiserver, kube-controller-manager and kube-scheduler")
        self._plane.start()
        for program in self._plane.programs():
            stack.callback(program.kill)

    def _start_nodes(self, stack: contextlib.ExitStack) -> None:
        pool = addresses.Pool()
        stack.callback(pool.close)
        log_handler = logging.FileHandler(self._plane.files.logs / "kubelet.log", delay=True)
        log_handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s %(message)s"))
        logger = logging.getLogger("devcluster")
        logger.addHandler(log_handler)
        stack.callback(log_handler.close)
        stack.callback(logger.removeHandler, log_handler)
        self._call(self._start_kubelet(pool))
        stack.callback(lambda: self._call(self._stop_kubelet()))
        if self._initial_nodes:
            self.add_nodes([f"node-{number}" for number in range(1, self._initial_nodes + 1)])
        self._progress(f"the cluster is up: {self.server}, {self._initial_nodes} nodes")

    async def _start_kubelet(self, pool: addresses.Pool) -> None:
        pki = self._plane.files.pki
        context = ssl.create_default_context(cadata=self.ca_pem.decode())
        context.load_cert_chain(pki / "kubelet.crt", pki / "kubelet.key")
        self._api = api.Api(self.server, context)
        starts = asyncio.Event()
        starts.set()
        self._around = lifecycle.Surroundings(
            api=self._api,
            prober=probing.Prober(),
            egress=self._egress,
            pool=pool,
            starts=starts,
            folder=self.folder / "pods",
            logs=self._plane.files.logs / "pods",
            server_port=self._plane.port,
            ca_pem=self.ca_pem,
            http_proxy=self.http_proxy,
            marker=self._watchdog.environment(),
        )
        self._kubelet = kubelet.Kubelet(self._around, binaries.kubernetes_version())
        self._egress.kubelet_server = await self._kubelet.start(self._kubelet_server_context())

    def _kubelet_server_context(self) -> ssl.SSLContext:
        pair = self._plane.issue_server_certificate("devcluster-kubelet")
        path = self._plane.files.pki / "kubelet-server.pem"
        path.touch(mode=0o600)
        path.write_bytes(pair[0] + pair[1])
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(path)
        context.load_verify_locations(cadata=self.ca_pem.decode())
        context.verify_mode = ssl.CERT_REQUIRED
        return context

    async def _stop_kubelet(self) -> None:
        await self._kubelet.close()
        await self._around.prober.close()
        await self._api.close()

    def _call(self, coroutine: Coroutine[Any, Any, Value], timeout: float = _CALL_SECONDS) -> Value:
        return asyncio.run_coroutine_threadsafe(coroutine, self._loop).result(timeout)

    def _do(self, action: Callable[[], Value]) -> Value:
        """Do something that belongs to the loop's thread."""

        async def act() -> Value:
            return action()

        return self._call(act())

    # ---- access ----

    @property
    def server(self) -> str:
        """The URL of the API server."""
        return self._plane.server

    @property
    def ca_pem(self) -> bytes:
        """The CA that signed the API server's certificate."""
        return self._plane.ca_pem

    @property
    def kubeconfig(self) -> pathlib.Path:
        """The admin's kubeconfig: user devcluster-admin, group system:masters."""
        return self._plane.files.admin_kubeconfig

    @property
    def logs(self) -> pathlib.Path:
        """The folder of all logs: one file for each program, pods/NAMESPACE_NAME_UID/CONTAINER.log for pods."""
        return self._plane.files.logs

    def env(self) -> dict[str, str]:
        """The environment for a subprocess that works on this cluster, and that ends with it.

        It is this process's environment with KUBECONFIG, a PATH with this cluster's kubectl, and without HTTP proxies.
        """
        proxy_variables = ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY")
        inherited = {name: value for name, value in os.environ.items() if name.upper() not in proxy_variables}
        path = os.pathsep.join((str(self._binaries["kubectl"].parent), os.environ.get("PATH", os.defpath)))
        return {
            **inherited,
            **self._watchdog.environment(),
            "PATH": path,
            "KUBECONFIG": str(self.kubeconfig),
            "KUBECACHEDIR": str(self.folder / "kubectl-cache"),
        }

    def kubectl(self, *arguments: str, input: str | None = None, check: bool = True, timeout: float = 60.0) -> str:
        """Run kubectl as the admin; return its output. Raises `KubectlError` if it fails, unless `check` is false."""
        try:
            done = subprocess.run(
                [str(self._binaries["kubectl"]), *arguments],
                env=self.env(),
                input=input,
                stdin=subprocess.DEVNULL if input is None else None,
                capture_output=True,
                text=True,
                timeout=timeout,
                check=False,
            )
        except subprocess.TimeoutExpired as expired:
            raise KubectlError(arguments, -1, f"no end after {timeout:g} s; killed") from expired
        if check and done.returncode != 0:
            raise KubectlError(arguments, done.returncode, done.stderr)
        return done.stdout

    def request(
        self,
        method: str,
        path: str,
        body: object = None,
        *,
        content_type: str = "application/json",
        params: dict[str, str] | None = None,
    ) -> JsonObject:
        """One request to the API server, much faster than kubectl. Raises `api.ApiError`. Not in the audit log.

        (Its user is the kubelet's; what the audit policy logs for everybody, such as Secrets, is logged.)
        """
        return self._call(self._api.request(method, path, body, content_type=content_type, params=params))

    def wait_for(
        self,
        condition: Callable[[], Value],
        timeout: float = 30.0,
        what: str = "the condition",
        *,
        interval: float = 0.1,
    ) -> Value:
        """See `waiting.wait_for`."""
        return waiting.wait_for(condition, timeout, what, interval=interval)

    # ---- nodes and pods ----

    def add_nodes(self, names: Iterable[str], labels: dict[str, str] | None = None) -> None:
        """Register nodes, ready at once."""

        async def add() -> None:
            async with asyncio.TaskGroup() as group:
                for name in names:
                    group.create_task(self._kubelet.add_node(name, labels or {}))

        self._call(add())

    def remove_node(self, name: str) -> None:
        """Take a node away as if its machine had died and its objects had been cleaned up. Raises KeyError."""
        self._call(self._kubelet.remove_node(name))

    def pods(self, namespace: str | None = None) -> list[PodProcess]:
        """The pods that nodes of this cluster run, sorted by namespace and name."""
        found = self._do(lambda: [_snapshot(pod) for pod in self._kubelet.pods()])
        found = [pod for pod in found if namespace in (None, pod.namespace)]
        return sorted(found, key=lambda pod: (pod.namespace, pod.name))

    def kill(self, pod: PodProcess, number: int = signal.SIGKILL, container: str | None = None) -> None:
        """Send a signal to the process of a container (the first one by default). SIGSTOP freezes it.

        Raises LookupError if the pod is gone, ProcessLookupError if its process does not run now.
        """

        def send() -> None:
            running = self._find(pod).containers
            chosen = [one for one in running if container in (None, one.spec.name)]
            if not chosen:
                raise ProcessLookupError(f"pod {pod.namespace}/{pod.name} has no process of container {container}")
            chosen[0].send(number)

        self._do(send)

    def hold_pod_starts(self) -> None:
        """Pods that are bound from now on get everything but their processes, until `release_pod_starts`."""
        self._do(self._around.starts.clear)

    def release_pod_starts(self) -> None:
        """Start all held pods at once."""
        self._do(self._around.starts.set)

    # ---- faults ----

    def partition(self, pod: PodProcess, *, stall: bool = False) -> None:
        """Cut a pod off from the API server: connections are reset, or, with `stall`, stay open in silence."""
        self._do(lambda: self._find(pod).relay.link.partition(stall=stall))

    def delay(self, pod: PodProcess, seconds: float) -> None:
        """Hold back each piece of data between a pod and the API server for so long, in both directions."""
        self._do(lambda: setattr(self._find(pod).relay.link.faults, "delay_seconds", seconds))

    def heal(self, pod: PodProcess) -> None:
        """Take back `partition` and `delay`."""
        self._do(lambda: self._find(pod).relay.link.heal())

    def partition_webhook(self, pod: PodProcess, *, stall: bool = False) -> None:
        """Cut the API server's calls to a pod (webhooks) off. The kubelet's probes still reach it."""
        self._do(lambda: self._egress.link(self._find(pod).ip).partition(stall=stall))

    def delay_webhook(self, pod: PodProcess, seconds: float) -> None:
        """Hold back each piece of data between the API server and a pod's webhook for so long."""
        self._do(lambda: setattr(self._egress.link(self._find(pod).ip).faults, "delay_seconds", seconds))

    def heal_webhook(self, pod: PodProcess) -> None:
        """Take back `partition_webhook` and `delay_webhook`."""
        self._do(lambda: self._egress.link(self._find(pod).ip).heal())

    def stop_apiserver(self) -> None:
        """Kill the API server."""
        self._plane.apiserver.kill()

    def start_apiserver(self) -> None:
        """Start it again, on the same port; returns when it is ready."""
        self._plane.apiserver.start()
        self._plane.wait_ready()

    def stop_etcd(self) -> None:
        """Kill etcd under the running API server, which then answers with errors."""
        self._plane.etcd.kill()

    def start_etcd(self) -> None:
        """Start it again with its data; returns when the API server is ready."""
        self._plane.etcd.start()
        self._plane.wait_ready()

    def control_plane_pids(self) -> dict[str, int | None]:
        """The process ids of etcd, kube-apiserver, kube-controller-manager and kube-scheduler."""
        return {program.name: program.pid for program in self._plane.programs()}

    def _find(self, wanted: PodProcess) -> lifecycle.Pod:
        for pod in self._kubelet.pods():
            if pod.uid == wanted.uid:
                return pod
        raise LookupError(f"pod {wanted.namespace}/{wanted.name} (uid {wanted.uid}) is gone")


def _snapshot(pod: lifecycle.Pod) -> PodProcess:
    first = pod.containers[0] if pod.containers else None
    container = pod.manifest["spec"]["containers"][0]["name"]
    return PodProcess(
        namespace=pod.namespace,
        name=pod.name,
        uid=pod.uid,
        node=pod.node,
        labels=dict(pod.manifest["metadata"].get("labels") or {}),
        ip=pod.ip,
        loopback=pod.loopback,
        pid=first.pid if first else None,
        ready=pod.ready,
        held=pod.held,
        restarts=sum(one.restarts for one in pod.containers),
        log_path=pod.logs / f"{container}.log",
        kubeconfig=pod.kubeconfig,
    )


@contextlib.contextmanager
def _loop_in_thread() -> Iterator[asyncio.AbstractEventLoop]:
    """An event loop that runs in a thread of its own until the end of the context."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, name="devcluster", daemon=True)
    thread.start()
    try:
        yield loop
    finally:
        asyncio.run_coroutine_threadsafe(_cancel_all(), loop).result(10)
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()


async def _cancel_all() -> None:
    tasks = [task for task in asyncio.all_tasks() if task is not asyncio.current_task()]
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
