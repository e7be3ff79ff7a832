"""Pure translation of Pod manifests: what the kubelet runs, with which environment, and what it cannot do.

The kubelet has no images, no mounts and no namespaces. Whatever a manifest asks of it that would change what the
program sees, and that it lacks, is refused with a message in the pod's status, never passed over in silence.
Accepted without effect: images, resources, security contexts, tolerations (the scheduler's), service links.
"""

import dataclasses
import re
from typing import Any

JsonObject = dict[str, Any]

_REFERENCE = re.compile(r"\$(\$|\(([A-Za-z0-9_.-]+)\))")
_PROBES = ("startupProbe", "readinessProbe", "livenessProbe")


class Unsupported(ValueError):
    """The manifest asks for something that the process kubelet does not have."""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Probe:
    """A probe with Kubernetes' defaults filled in. `path` is None for a TCP probe."""

    scheme: str
    port: int
    path: str | None
    headers: tuple[tuple[str, str], ...]
    initial_delay_seconds: float
    period_seconds: float
    timeout_seconds: float
    success_threshold: int
    failure_threshold: int


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Container:
    """A container as a process: its command line, its own environment and its probes."""

    name: str
    image: str
    command: tuple[str, ...]
    environment: dict[str, str]
    startup: Probe | None
    readiness: Probe | None
    liveness: Probe | None
    stop_delay_seconds: float  # preStop.sleep


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Identity:
    """What the kubelet gives a pod beyond its manifest."""

    pod_ip: str
    host_ip: str


def containers(pod: JsonObject, identity: Identity) -> tuple[Container, ...]:
    """The pod's containers. Raises `Unsupported`."""
    _check_pod(pod)
    return tuple(_container(pod, container, identity) for container in pod["spec"]["containers"])


def init_containers(pod: JsonObject, identity: Identity) -> tuple[Container, ...]:
    """The pod's init containers, in order. Raises `Unsupported`."""
    found = []
    for container in pod["spec"].get("initContainers") or ():
        if container.get("restartPolicy") == "Always":
            raise Unsupported(f"init container {container['name']!r}: sidecars (restartPolicy: Always)")
        found.append(_container(pod, container, identity))
    return tuple(found)


def expand(text: str, variables: dict[str, str]) -> str:
    """Replace $(NAME) by its value, $$ by $; an unknown $(NAME) stays as it is, as in Kubernetes."""

    def replacement(match: re.Match[str]) -> str:
        return "$" if match[1] == "$" else variables.get(match[2], match[0])

    return _REFERENCE.sub(replacement, text)


def _check_pod(pod: JsonObject) -> None:
    spec = pod["spec"]
    mounted = {
        (mount["name"], mount["mountPath"])
        for container in spec["containers"]
        for mount in container.get("volumeMounts") or ()
        # The token that admission mounts into every pod; the kubelet gives it, or a KUBECONFIG in its place.
        if mount["mountPath"] != "/var/run/secrets/kubernetes.io/serviceaccount"
    }
    volumes = {volume["name"]: volume for volume in spec.get("volumes") or ()}
    for name, path in sorted(mounted):
        if "emptyDir" not in volumes[name] or path != "/tmp":
            raise Unsupported(f"volume {name!r} at {path!r}: only an emptyDir at /tmp (it becomes $TMPDIR)")
    if spec.get("hostNetwork"):
        raise Unsupported("hostNetwork: a process can only bind its own loopback address")


def _container(pod: JsonObject, container: JsonObject, identity: Identity) -> Container:
    name = container["name"]
    for field in ("envFrom", "workingDir", "volumeDevices"):
        if container.get(field):
            raise Unsupported(f"container {name!r}: {field}")
    if not container.get("command"):
        raise Unsupported(f"container {name!r}: no command (an image's entry point is not known)")
    environment: dict[str, str] = {}
    for variable in container.get("env") or ():
        environment[variable["name"]] = _value(pod, name, variable, environment, identity)
    line = [*container["command"], *(container.get("args") or ())]
    probes = [_probe(container, field) for field in _PROBES]
    return Container(
        name=name,
        image=container.get("image", ""),
        command=tuple(expand(word, environment) for word in line),
        environment=environment,
        startup=probes[0],
        readiness=probes[1],
        liveness=probes[2],
        stop_delay_seconds=_stop_delay(container),
    )


def _value(pod: JsonObject, container: str, variable: JsonObject, known: dict[str, str], identity: Identity) -> str:
    source = variable.get("valueFrom")
    if not source:
        return expand(variable.get("value") or "", known)
    if "fieldRef" not in source:
        raise Unsupported(f"container {container!r}: env {variable['name']!r} from {', '.join(source)}")
    path = source["fieldRef"]["fieldPath"]
    metadata = pod["metadata"]
    fields = {
        "metadata.name": metadata["name"],
        "metadata.namespace": metadata["namespace"],
        "metadata.uid": metadata["uid"],
        "spec.nodeName": pod["spec"]["nodeName"],
        "spec.serviceAccountName": pod["spec"].get("serviceAccountName", "default"),
        "status.podIP": identity.pod_ip,
        "status.podIPs": identity.pod_ip,
        "status.hostIP": identity.host_ip,
        "status.hostIPs": identity.host_ip,
    }
    if path in fields:
        return str(fields[path])
    if match := re.fullmatch(r"metadata\.(labels|annotations)\['(.+)'\]", path):
        return str((metadata.get(match[1]) or {}).get(match[2], ""))
    raise Unsupported(f"container {container!r}: env {variable['name']!r} from field {path!r}")


def _probe(container: JsonObject, field: str) -> Probe | None:
    probe = container.get(field)
    if not probe:
        return None
    where = f"container {container['name']!r}: {field}"
    action = probe.get("httpGet") or probe.get("tcpSocket")
    if action is None:
        raise Unsupported(f"{where} that is neither httpGet nor tcpSocket")
    if action.get("host"):
        raise Unsupported(f"{where} with a host")
    headers = tuple((header["name"], header["value"]) for header in action.get("httpHeaders") or ())
    return Probe(
        scheme=action.get("scheme", "HTTP").lower(),
        port=_port(container, action["port"]),
        path=action.get("path", "/") if "httpGet" in probe else None,
        headers=headers,
        initial_delay_seconds=probe.get("initialDelaySeconds", 0),
        period_seconds=probe.get("periodSeconds", 10),
        timeout_seconds=probe.get("timeoutSeconds", 1),
        success_threshold=probe.get("successThreshold", 1),
        failure_threshold=probe.get("failureThreshold", 3),
    )


def _port(container: JsonObject, port: int | str) -> int:
    if isinstance(port, int):
        return port
    for candidate in container.get("ports") or ():
        if candidate.get("name") == port:
            return int(candidate["containerPort"])
    raise Unsupported(f"container {container['name']!r}: probe of port {port!r}, which it does not name")


def _stop_delay(container: JsonObject) -> float:
    lifecycle = container.get("lifecycle") or {}
    if lifecycle.get("postStart"):
        raise Unsupported(f"container {container['name']!r}: lifecycle.postStart")
    hook = lifecycle.get("preStop")
    if not hook:
        return 0.0
    if "sleep" not in hook:
        raise Unsupported(f"container {container['name']!r}: lifecycle.preStop other than sleep")
    return float(hook["sleep"]["seconds"])
