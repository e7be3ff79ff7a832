"""The process kubelet: Node objects, and the pods that the real scheduler binds to them."""

import asyncio
import logging
import ssl
from typing import Any

import aiohttp.web

from devcluster import api, lifecycle

JsonObject = dict[str, Any]

PORT = 10250  # the port that Node objects name; nothing binds it: the egress proxy maps it

_log = logging.getLogger(__name__)
_FOLLOW_SECONDS = 0.2
_CLOSE_SECONDS = 5.0
_CAPACITY = {"cpu": "64", "memory": "256Gi", "pods": "1000", "ephemeral-storage": "256Gi"}


class Kubelet:
    """One for all nodes of the cluster. All methods belong to its event loop."""

    def __init__(self, surroundings: lifecycle.Surroundings, version: str) -> None:
        self._around = surroundings
        self._version = version
        self._nodes: dict[str, str] = {}
        self._pods: dict[str, lifecycle.Pod] = {}
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._watch: asyncio.Task[None] | None = None
        self._runner: aiohttp.web.AppRunner | None = None

    def pods(self) -> tuple[lifecycle.Pod, ...]:
        """The pods that are here now."""
        return tuple(self._pods.values())

    def node_address(self, name: str) -> str:
        """The address of a node, 10.244.a.b. Raises KeyError."""
        return self._nodes[name]

    async def start(self, context: ssl.SSLContext) -> tuple[str, int]:
        """Watch for pods, and serve their logs to the API server; return the address of that server."""
        self._watch = asyncio.create_task(self._follow())
        application = aiohttp.web.Application()
        application.router.add_get("/containerLogs/{namespace}/{pod}/{container}", self._serve_log)
        self._runner = aiohttp.web.AppRunner(application, access_log=None, shutdown_timeout=0.1)
        await self._runner.setup()
        site = aiohttp.web.TCPSite(self._runner, "127.0.0.1", 0, ssl_context=context)
        await site.start()
        host, port = self._runner.addresses[0][:2]
        return host, port

    async def close(self) -> None:
        """Kill all pods' processes and stop; objects stay as they are."""
        if self._watch is not None:
            self._watch.cancel()
        for pod in self.pods():
            pod.vanish()
        if self._tasks:
            await asyncio.wait(tuple(self._tasks.values()), timeout=_CLOSE_SECONDS)
        if self._runner is not None:
            await self._runner.cleanup()

    async def add_node(self, name: str, labels: dict[str, str]) -> None:
        """Register a node that is ready at once. Raises `ApiError` if there is one of that name."""
        self._nodes[name] = self._around.pool.take()
        try:
            await self._around.api.request("POST", "/api/v1/nodes", self._node(name, labels))
            # Admission puts the taint not-ready on each new node; the controller that takes it off is not run here.
            await self._around.api.request(
                "PATCH", f"/api/v1/nodes/{name}", {"spec": {"taints": None}}, content_type=api.MERGE_PATCH
            )
        except BaseException:
            self._around.pool.give_back(self._nodes.pop(name))
            raise

    async def remove_node(self, name: str) -> None:
        """The machine is gone at once: its processes are killed, its Node and its Pod objects are deleted."""
        address = self._nodes.pop(name)
        await self._around.api.request("DELETE", f"/api/v1/nodes/{name}")
        for pod in [pod for pod in self._pods.values() if pod.node == name]:
            pod.terminate(0)
        self._around.pool.give_back(address)

    def _node(self, name: str, labels: dict[str, str]) -> JsonObject:
        standard = {
            "kubernetes.io/hostname": name,
            "kubernetes.io/os": "linux",
            "kubernetes.io/arch": "amd64",
            "node-role.kubernetes.io/worker": "",
        }
        return {
            "apiVersion": "v1",
            "kind": "Node",
            "metadata": {"name": name, "labels": {**standard, **labels}},
            "status": {
                "capacity": _CAPACITY,
                "allocatable": _CAPACITY,
                "addresses": [
                    {"type": "InternalIP", "address": self._nodes[name]},
                    {"type": "Hostname", "address": name},
                ],
                "daemonEndpoints": {"kubeletEndpoint": {"Port": PORT}},
                "conditions": [{"type": "Ready", "status": "True", "reason": "KubeletReady"}],
                "nodeInfo": {
                    "kubeletVersion": self._version,
                    "osImage": "processes of this machine",
                    "containerRuntimeVersion": "process://1",
                    "operatingSystem": "linux",
                    "architecture": "amd64",
                    "kernelVersion": "",
                    "kubeProxyVersion": "",
                    "machineID": name,
                    "systemUUID": name,
                    "bootID": name,
                },
            },
        }

    async def _follow(self) -> None:
        params = {"fieldSelector": "spec.nodeName!="}
        async for kind, objects in self._around.api.list_and_watch("/api/v1/pods", params):
            if kind == "LIST":
                present = {thing["metadata"]["uid"] for thing in objects}
                for uid in [uid for uid in self._pods if uid not in present]:
                    self._pods[uid].vanish()
            for thing in objects:
                self._see(kind, thing)

    def _see(self, kind: str, manifest: JsonObject) -> None:
        uid = manifest["metadata"]["uid"]
        pod = self._pods.get(uid)
        if kind == "DELETED":
            if pod is not None:
                pod.vanish()
            return
        address = self._nodes.get(manifest["spec"]["nodeName"])
        finished = manifest["status"].get("phase") in ("Succeeded", "Failed")
        deleted = "deletionTimestamp" in manifest["metadata"]
        if pod is None and address is not None and (deleted or not finished):
            pod = lifecycle.Pod(manifest, self._around, address)
            self._pods[uid] = pod
            self._tasks[uid] = asyncio.create_task(self._run(pod))
        if pod is not None and deleted:
            pod.terminate(float(manifest["metadata"].get("deletionGracePeriodSeconds", 0)))

    async def _run(self, pod: lifecycle.Pod) -> None:
        try:
            await pod.run()
        except Exception:
            _log.exception("pod %s/%s: a defect of the process kubelet", pod.namespace, pod.name)
        finally:
            self._pods.pop(pod.uid, None)
            self._tasks.pop(pod.uid, None)

    async def _serve_log(self, request: aiohttp.web.Request) -> aiohttp.web.StreamResponse:
        """What `kubectl logs` asks for: tailLines and follow are honoured; restarts share one log."""
        match = request.match_info
        for pod in self.pods():
            if (pod.namespace, pod.name) == (match["namespace"], match["pod"]):
                break
        else:
            raise aiohttp.web.HTTPNotFound(text=f"pod {match['pod']!r} is not here")
        path = pod.logs / f"{match['container']}.log"
        response = aiohttp.web.StreamResponse(headers={"Content-Type": "text/plain"})
        await response.prepare(request)
        if not path.exists():
            return response
        with path.open("rb") as log:
            content = log.read()
            if (tail := request.query.get("tailLines")) is not None:
                content = b"".join(content.splitlines(keepends=True)[-int(tail) or len(content) :])
            await response.write(content)
            while request.query.get("follow") == "true" and pod.uid in self._pods:
                if content := log.read():
                    await response.write(content)
                else:
                    await asyncio.sleep(_FOLLOW_SECONDS)
        return response
