"""One pod on the process kubelet: from being bound to a node until it is deleted."""

import asyncio
import contextlib
import dataclasses
import os
import pathlib
import shutil
import sys
from typing import Any

import aiohttp

from devcluster import addresses, api, certificates, containers, mounting, podspec, probing, proxies

JsonObject = dict[str, Any]

TOKEN_SECONDS = 24 * 3600
IN_CLUSTER_TOKEN_SECONDS = 600  # the shortest that an API server gives
REFRESH_SECONDS = 480.0  # a kubelet asks for another token when 80 % of its time are over
CREDENTIALS = "devcluster.steadyhook.io/credentials"
"""The annotation of a pod, "in-cluster": its credentials are those of every real pod, not a KUBECONFIG."""
LISTEN_VARIABLE = "STEADYHOOK_LISTEN_ADDRESS"
DIAL_VARIABLE = "STEADYHOOK_DIAL_PROXY"  # no pod address may ever be dialed directly here
_SOURCES = pathlib.Path(__file__).parents[2] / "operator"
_RETRY_SECONDS = 0.5
_FAILURES = (api.ApiError, aiohttp.ClientError, OSError)


@dataclasses.dataclass(slots=True, kw_only=True)
class Surroundings:
    """What all pods of the cluster share."""

    api: api.Api
    prober: probing.Prober
    egress: proxies.EgressProxy
    pool: addresses.Pool
    starts: asyncio.Event  # set: pods may start
    folder: pathlib.Path
    logs: pathlib.Path
    server_port: int
    ca_pem: bytes
    http_proxy: str
    marker: dict[str, str]  # the variable by which the watchdog knows a process of the cluster


class Pod:
    """Runs a pod, reports its status, and deletes its object when it has been stopped."""

    def __init__(self, manifest: JsonObject, surroundings: Surroundings, host_ip: str) -> None:
        self.manifest = manifest
        metadata = manifest["metadata"]
        self.namespace: str = metadata["namespace"]
        self.name: str = metadata["name"]
        self.uid: str = metadata["uid"]
        self.node: str = manifest["spec"]["nodeName"]
        self.ip = surroundings.pool.take()
        self.relay = proxies.Relay(surroundings.server_port)
        self.containers: tuple[containers.ContainerProcess, ...] = ()
        self.held = False
        label = f"{self.namespace}_{self.name[:120]}_{self.uid[:8]}"
        self.folder = surroundings.folder / label
        self.logs = surroundings.logs / label
        self._around = surroundings
        self._identity = podspec.Identity(pod_ip=self.ip, host_ip=host_ip)
        self._init: tuple[containers.ContainerProcess, ...] = ()
        self._problem: JsonObject | None = None
        self._initialized = False
        self._refresher: asyncio.Task[None] | None = None
        self._transitions: dict[str, tuple[str, str]] = {}
        self._start_time = containers.now()
        self._changed = asyncio.Event()
        self._terminating: float | None = None
        self._terminate = asyncio.Event()
        self._gone = False

    @property
    def loopback(self) -> str:
        """The address that the pod's process binds."""
        return addresses.to_loopback(self.ip)

    @property
    def kubeconfig(self) -> pathlib.Path:
        """The pod's credentials."""
        return self.folder / "kubeconfig"

    @property
    def service_account(self) -> pathlib.Path:
        """The folder with token, ca.crt and namespace of a pod whose credentials are those of a real one."""
        return self.folder / "serviceaccount"

    @property
    def _in_cluster(self) -> bool:
        return (self.manifest["metadata"].get("annotations") or {}).get(CREDENTIALS) == "in-cluster"

    @property
    def ready(self) -> bool:
        """Whether all containers are ready."""
        return bool(self.containers) and all(container.ready for container in self.containers)

    def terminate(self, grace_seconds: float) -> None:
        """The object is being deleted: stop within the grace period. Again with a shorter one: kill."""
        if self._terminating is None or grace_seconds < self._terminating:
            if self._terminating is not None and grace_seconds == 0:
                self.kill()
            self._terminating = grace_seconds
            self._terminate.set()

    def vanish(self) -> None:
        """The object is gone, by a forced deletion: nothing is reported any more, and the processes are killed."""
        self._gone = True
        self.terminate(0)
        self.kill()

    def kill(self) -> None:
        """SIGKILL to all processes of the pod."""
        for container in (*self._init, *self.containers):
            container.kill()

    async def run(self) -> None:
        """The pod's whole life."""
        reporter = asyncio.create_task(self._report())
        try:
            await self._live()
        finally:
            for task in (reporter, self._refresher):
                if task is not None:
                    task.cancel()
                    with contextlib.suppress(asyncio.CancelledError):
                        await task
            self.kill()
            await self.relay.close()
            self._around.egress.forget(self.ip)
            shutil.rmtree(self.folder, ignore_errors=True)
            self._around.pool.give_back(self.ip)
        if not self._gone:
            await self._delete_object()

    async def _live(self) -> None:
        try:
            init = podspec.init_containers(self.manifest, self._identity)
            main = podspec.containers(self.manifest, self._identity)
            if self._in_cluster and (hindrance := mounting.hindrance()):
                raise podspec.Unsupported(f"{CREDENTIALS}: {hindrance}")
        except podspec.Unsupported as unsupported:
            message = f"the development cluster's kubelet does not support {unsupported}"
            self._problem = {"waiting": {"reason": "Unsupported", "message": message}}
            self._changed.set()
            await self._terminate.wait()
            return
        if self._in_cluster:
            init, main = self._with_mounts(init), self._with_mounts(main)
        self._changed.set()
        running = asyncio.create_task(self._start(init, main))
        terminating = asyncio.create_task(self._terminate.wait())
        await asyncio.wait((running, terminating), return_when=asyncio.FIRST_COMPLETED)
        if running.done() and not running.cancelled():
            running.result()  # a defect of the kubelet itself is not to be lost
        await terminating
        grace = self._terminating if self._terminating is not None else 0.0
        started = (*self._init, *self.containers)
        if not started:
            running.cancel()
            return
        await asyncio.gather(*(container.stop(grace) for container in started if container.exit_code is None))
        await asyncio.wait((running,))
        if not self._gone:
            with contextlib.suppress(*_FAILURES):
                await self._send(self.status())

    def _with_mounts(self, specs: tuple[podspec.Container, ...]) -> tuple[podspec.Container, ...]:
        return tuple(dataclasses.replace(spec, command=mounting.command(self.service_account, spec.command))
                     for spec in specs)

    async def _start(self, init: tuple[podspec.Container, ...], main: tuple[podspec.Container, ...]) -> None:
        environment = await self._prepare()
        self.held = True
        await self._around.starts.wait()
        self.held = False
        if self._terminate.is_set():
            return
        policy = self.manifest["spec"].get("restartPolicy", "Always")
        self._init = tuple(self._container(spec, environment) for spec in init)
        for container in self._init:
            await container.run("Never" if policy == "Never" else "OnFailure")
            if container.exit_code != 0 or self._terminate.is_set():
                return
        self._initialized = True
        self.containers = tuple(self._container(spec, environment) for spec in main)
        async with asyncio.TaskGroup() as group:
            for container in self.containers:
                group.create_task(container.run(policy))

    def _container(self, spec: podspec.Container, environment: dict[str, str]) -> containers.ContainerProcess:
        return containers.ContainerProcess(
            spec,
            host=self.loopback,
            environment={**environment, **spec.environment, **self._around.marker,
                         LISTEN_VARIABLE: self.loopback, DIAL_VARIABLE: self._around.http_proxy},
            folder=self.folder,
            log=self.logs / f"{spec.name}.log",
            prober=self._around.prober,
            on_change=self._changed.set,
        )

    async def _prepare(self) -> dict[str, str]:
        """Make the pod's folder, relay and credentials; return the environment that its containers share."""
        home, temporary = self.folder / "home", self.folder / "tmp"
        for folder in (home, temporary, self.logs):
            folder.mkdir(parents=True, mode=0o700, exist_ok=True)
        environment = {
            "PATH": os.pathsep.join((os.path.dirname(sys.executable), "/usr/local/bin", "/usr/bin", "/bin")),
            "PYTHONPATH": str(_SOURCES),
            "PYTHONUNBUFFERED": "1",
            "LANG": "C.UTF-8",
            "HOME": str(home),
            "TMPDIR": str(temporary),
            "HOSTNAME": self.name,
        }
        port = await self.relay.start()
        if self._in_cluster:
            await self._write_service_account()
            self._refresher = asyncio.create_task(self._refresh_token())
            # By this pod's own way to the API server, an address: there is no DNS here.
            environment |= {"KUBERNETES_SERVICE_HOST": "127.0.0.1", "KUBERNETES_SERVICE_PORT": str(port)}
        elif self.manifest["spec"].get("automountServiceAccountToken") is not False:
            certificates.write_kubeconfig(
                self.kubeconfig,
                server=f"https://127.0.0.1:{port}",
                ca_pem=self._around.ca_pem,
                token=await self._token(),
                namespace=self.namespace,
            )
            environment["KUBECONFIG"] = str(self.kubeconfig)
        return environment

    async def _write_service_account(self) -> None:
        self.service_account.mkdir(mode=0o700)
        (self.service_account / "ca.crt").write_bytes(self._around.ca_pem)
        (self.service_account / "namespace").write_text(self.namespace)
        await self._write_token()

    async def _write_token(self) -> None:
        partial = self.service_account / ".token"
        partial.touch(mode=0o600)
        partial.write_text(await self._token(IN_CLUSTER_TOKEN_SECONDS))
        partial.rename(self.service_account / "token")  # whoever reads it sees one token or the other

    async def _refresh_token(self) -> None:
        while True:
            await asyncio.sleep(REFRESH_SECONDS)
            await self._write_token()

    async def _token(self, seconds: int = TOKEN_SECONDS) -> str:
        """A token of the pod's ServiceAccount that is bound to the pod, and so carries its node's name."""
        account = self.manifest["spec"].get("serviceAccountName", "default")
        path = f"/api/v1/namespaces/{self.namespace}/serviceaccounts/{account}/token"
        bound = {"apiVersion": "v1", "kind": "Pod", "name": self.name, "uid": self.uid}
        body = {
            "apiVersion": "authentication.k8s.io/v1",
            "kind": "TokenRequest",
            "spec": {"expirationSeconds": seconds, "boundObjectRef": bound},
        }
        while True:
            try:
                answer = await self._around.api.request("POST", path, body)
                self._problem = None
                return str(answer["status"]["token"])
            except _FAILURES as error:
                self._problem = {"waiting": {"reason": "ContainerCreating", "message": f"no token: {error}"}}
                self._changed.set()
                await asyncio.sleep(_RETRY_SECONDS)

    async def _report(self) -> None:
        """Send the status after each change; changes that come meanwhile are sent together."""
        sent: JsonObject = {}
        while True:
            await self._changed.wait()
            self._changed.clear()
            status = self.status()
            if status == sent:
                continue
            try:
                await self._send(status)
                sent = status
            except api.ApiError as error:
                if error.status in (404, 409):
                    return  # the object is gone, or another one has its name
                await self._retry_report()
            except _FAILURES:
                await self._retry_report()

    async def _retry_report(self) -> None:
        await asyncio.sleep(_RETRY_SECONDS)
        self._changed.set()

    async def _send(self, status: JsonObject) -> None:
        path = f"/api/v1/namespaces/{self.namespace}/pods/{self.name}/status"
        body = {"metadata": {"uid": self.uid}, "status": status}
        await self._around.api.request("PATCH", path, body, content_type=api.STRATEGIC_PATCH)

    async def _delete_object(self) -> None:
        path = f"/api/v1/namespaces/{self.namespace}/pods/{self.name}"
        body = {"gracePeriodSeconds": 0, "preconditions": {"uid": self.uid}}
        while True:
            try:
                await self._around.api.request("DELETE", path, body)
                return
            except api.ApiError as error:
                if error.status in (404, 409):
                    return
            except _FAILURES:
                pass
            await asyncio.sleep(_RETRY_SECONDS)

    def status(self) -> JsonObject:
        """The status as the API server shall have it."""
        ready = self.ready
        conditions = {
            "PodReadyToStartContainers": True,
            "Initialized": self._initialized,
            "ContainersReady": ready,
            "Ready": ready,
        }
        return {
            "phase": self._phase(),
            "startTime": self._start_time,
            "hostIP": self._identity.host_ip,
            "hostIPs": [{"ip": self._identity.host_ip}],
            "podIP": self.ip,
            "podIPs": [{"ip": self.ip}],
            "conditions": [self._condition(kind, value) for kind, value in conditions.items()],
            "initContainerStatuses": self._statuses("initContainers", self._init),
            "containerStatuses": self._statuses("containers", self.containers),
        }

    def _phase(self) -> str:
        codes = [container.exit_code for container in self.containers]
        if codes and all(code is not None for code in codes):
            return "Failed" if any(codes) else "Succeeded"
        if any(container.exit_code not in (None, 0) for container in self._init) and self._never_restarts():
            return "Failed"
        return "Running" if codes else "Pending"

    def _never_restarts(self) -> bool:
        return bool(self.manifest["spec"].get("restartPolicy") == "Never")

    def _condition(self, kind: str, value: bool) -> JsonObject:
        text = str(value)
        before = self._transitions.get(kind)
        if before is None or before[0] != text:
            self._transitions[kind] = (text, containers.now())
        # None takes a former reason away: the patch merges conditions by their type.
        reason = None if value else "ContainersNotReady"
        return {"type": kind, "status": text, "reason": reason, "lastTransitionTime": self._transitions[kind][1]}

    def _statuses(self, field: str, started: tuple[containers.ContainerProcess, ...]) -> list[JsonObject]:
        if not started:
            waiting = self._problem or {"waiting": {"reason": "ContainerCreating"}}
            return [_status(spec, waiting) for spec in self.manifest["spec"].get(field) or ()]
        specs = {spec["name"]: spec for spec in self.manifest["spec"][field]}
        statuses = []
        for container in started:
            status = _status(specs[container.spec.name], container.state)
            status["ready"] = container.ready or (field == "initContainers" and container.exit_code == 0)
            status["started"] = container.started
            status["restartCount"] = container.restarts
            status["lastState"] = container.last_state
            statuses.append(status)
        return statuses


def _status(spec: JsonObject, state: JsonObject) -> JsonObject:
    return {
        "name": spec["name"],
        "image": spec.get("image", ""),
        "imageID": "",
        "state": state,
        "lastState": {},
        "ready": False,
        "started": False,
        "restartCount": 0,
    }
