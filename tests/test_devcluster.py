"""The development cluster keeps its promises: what the other tests rest on."""

import base64
import contextlib
import json
import os
import pathlib
import signal
import socket
import subprocess
import sys
import textwrap
import uuid
from collections.abc import Iterator
from typing import Any

import pytest

from devcluster import addresses, certificates, facade, lifecycle, mounting, waiting, watchdog

pytestmark = pytest.mark.cluster  # the parts that need none: test_devcluster_parts.py

JsonObject = dict[str, Any]

WEB_PORT = 8000

# Answers 200 on every path, or 503 while the file "sick" is in its folder; ends orderly at SIGTERM after a moment.
WEB = """
import http.server, os, pathlib, signal, sys, threading
class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(503 if pathlib.Path("sick").exists() else 200)
        self.end_headers()
    def log_message(self, *_):
        pass
server = http.server.ThreadingHTTPServer((os.environ["STEADYHOOK_LISTEN_ADDRESS"], 8000), Handler)
def stop(*_):
    print("asked to stop", flush=True)
    threading.Thread(target=server.shutdown).start()
signal.signal(signal.SIGTERM, stop)
print("serving as", os.environ["WHO"], sys.argv[1], flush=True)
server.serve_forever()
print("stopped in order", flush=True)
"""

# An admission webhook that denies every ConfigMap named "bad".
WEBHOOK = """
import http.server, json, os, ssl, sys
class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    def do_POST(self):
        review = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        request = review["request"]
        response = {"uid": request["uid"], "allowed": request["name"] != "bad"}
        if not response["allowed"]:
            response["status"] = {"message": "denied by " + os.environ["POD_NAME"]}
        body = json.dumps({**review, "response": response}).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
    def do_GET(self):
        self.send_response(200)
        self.send_header("Content-Length", "0")
        self.end_headers()
context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
context.load_cert_chain(sys.argv[1])
server = http.server.ThreadingHTTPServer((os.environ["STEADYHOOK_LISTEN_ADDRESS"], 9443), Handler)
server.socket = context.wrap_socket(server.socket, server_side=True)
server.serve_forever()
"""


def container(program: str, *arguments: str, **fields: Any) -> JsonObject:
    """A container that runs a Python program."""
    who = [
        {"name": name, "valueFrom": {"fieldRef": {"fieldPath": path}}}
        for name, path in (("POD_NAME", "metadata.name"), ("NODE", "spec.nodeName"), ("POD_IP", "status.podIP"))
    ]
    return {
        "name": "main",
        "image": "none",
        "command": ["python", "-c", program],
        "args": list(arguments),
        "env": [*who, {"name": "WHO", "value": "$(POD_NAME)@$(NODE)"}],
        **fields,
    }


def readiness(**fields: Any) -> JsonObject:
    """A readiness probe of the web server."""
    return {"httpGet": {"path": "/", "port": WEB_PORT}, "periodSeconds": 1, "failureThreshold": 1, **fields}


def daemon_set(name: str, node_label: str, *containers: JsonObject, grace_seconds: int = 5) -> JsonObject:
    """A DaemonSet on the nodes that have a label."""
    labels = {"app": name}
    spec = {
        "nodeSelector": {node_label: ""},
        "terminationGracePeriodSeconds": grace_seconds,
        "containers": list(containers),
    }
    return {
        "apiVersion": "apps/v1",
        "kind": "DaemonSet",
        "metadata": {"name": name},
        "spec": {
            "selector": {"matchLabels": labels},
            "template": {"metadata": {"labels": labels}, "spec": spec},
        },
    }


def service(name: str, port: int, target: int) -> JsonObject:
    """A Service over the pods of the DaemonSet of the same name."""
    spec = {"selector": {"app": name}, "ports": [{"port": port, "targetPort": target}]}
    return {"apiVersion": "v1", "kind": "Service", "metadata": {"name": name}, "spec": spec}


def apply(cluster: facade.DevCluster, namespace: str, *objects: JsonObject) -> None:
    """kubectl apply."""
    listing = {"apiVersion": "v1", "kind": "List", "items": list(objects)}
    cluster.kubectl("apply", "-n", namespace, "-f", "-", input=json.dumps(listing))


def ready_pods(cluster: facade.DevCluster, namespace: str, count: int) -> list[facade.PodProcess]:
    """Wait until exactly `count` pods run and are ready by the API server's word; return their processes."""

    def look() -> list[facade.PodProcess]:
        items = cluster.request("GET", f"/api/v1/namespaces/{namespace}/pods")["items"]
        ready = {item["metadata"]["uid"] for item in items if condition(item, "Ready")}
        found = [pod for pod in cluster.pods(namespace) if pod.uid in ready and pod.pid]
        assert len(found) == count, {item["metadata"]["name"]: item["status"] for item in items}
        return found

    return cluster.wait_for(look, 30, f"{count} ready pods in {namespace}")


def condition(pod: JsonObject, kind: str) -> bool:
    """Whether a condition of the pod is true."""
    return any(c["type"] == kind and c["status"] == "True" for c in pod["status"].get("conditions", ()))


def runs(pid: int | None) -> bool:
    """Whether a process runs. (A machine whose first process does not reap orphans keeps them as zombies, "Z".)"""
    try:
        return pathlib.Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def get_pod(cluster: facade.DevCluster, pod: facade.PodProcess) -> JsonObject:
    """The object of a pod."""
    return cluster.request("GET", f"/api/v1/namespaces/{pod.namespace}/pods/{pod.name}")


def ready_endpoints(cluster: facade.DevCluster, namespace: str, name: str) -> set[str]:
    """The addresses in a Service's EndpointSlices that are ready."""
    path = f"/apis/discovery.k8s.io/v1/namespaces/{namespace}/endpointslices"
    slices = cluster.request("GET", path, params={"labelSelector": f"kubernetes.io/service-name={name}"})["items"]
    return {
        address
        for each in slices
        for endpoint in each["endpoints"]
        if endpoint["conditions"].get("ready")
        for address in endpoint["addresses"]
    }


@pytest.fixture
def nodes(devcluster: facade.DevCluster) -> Iterator[str]:
    """Three nodes with a label of their own; yields the label."""
    label = f"test/{uuid.uuid4().hex[:8]}"
    names = [f"{label.removeprefix('test/')}-{number}" for number in range(3)]
    devcluster.add_nodes(names, {label: ""})
    yield label
    for name in names:
        with contextlib.suppress(KeyError):
            devcluster.remove_node(name)


def test_kubectl_talks_to_a_real_api_server(devcluster: facade.DevCluster, namespace: str) -> None:
    assert '"gitVersion": "v1.' in devcluster.kubectl("version", "-o", "json")
    devcluster.kubectl("-n", namespace, "create", "configmap", "one", "--from-literal=a=b")
    assert devcluster.kubectl("-n", namespace, "get", "configmap", "one", "-o", "jsonpath={.data.a}") == "b"


def test_kubectl_failing_raises_an_error_with_what_it_said(devcluster: facade.DevCluster, namespace: str) -> None:
    with pytest.raises(facade.KubectlError, match=r"get configmap nothing.*not found"):
        devcluster.kubectl("-n", namespace, "get", "configmap", "nothing")


def test_a_daemonset_runs_one_ready_process_on_each_node_and_its_service_knows_them(
    devcluster: facade.DevCluster, namespace: str, nodes: str
) -> None:
    web = container(WEB, "$(POD_IP)", readinessProbe=readiness())
    apply(devcluster, namespace, daemon_set("web", nodes, web), service("web", 80, WEB_PORT))
    pods = ready_pods(devcluster, namespace, 3)
    devcluster.wait_for(
        lambda: ready_endpoints(devcluster, namespace, "web") == {pod.ip for pod in pods}, 10, "three ready endpoints"
    )
    for pod in pods:
        assert pod.log() == f"serving as {pod.name}@{pod.node} {pod.ip}\n"
        assert devcluster.kubectl("-n", namespace, "logs", pod.name) == pod.log()


def test_a_pods_token_is_its_serviceaccounts_and_carries_the_nodes_name(
    devcluster: facade.DevCluster, namespace: str, nodes: str
) -> None:
    apply(devcluster, namespace, daemon_set("web", nodes, container(WEB, "", readinessProbe=readiness())))
    pod = ready_pods(devcluster, namespace, 3)[0]
    review = json.loads(devcluster.kubectl("--kubeconfig", str(pod.kubeconfig), "auth", "whoami", "-o", "json"))
    user = review["status"]["userInfo"]
    assert user["username"] == f"system:serviceaccount:{namespace}:default"
    assert user["extra"]["authentication.kubernetes.io/node-name"] == [pod.node]
    assert user["extra"]["authentication.kubernetes.io/pod-uid"] == [pod.uid]


# Prints what it finds where a pod's credentials are, and each token that comes.
IN_CLUSTER = """
import json, os, pathlib, time
folder = pathlib.Path("/var/run/secrets/kubernetes.io/serviceaccount")
print(json.dumps({"files": sorted(item.name for item in folder.iterdir() if item.name[0] != "."),
                  "namespace": (folder / "namespace").read_text(),
                  "ca": (folder / "ca.crt").read_text(),
                  "kubeconfig": os.environ.get("KUBECONFIG"), "others": os.listdir("/var/run"),
                  "server": [os.environ["KUBERNETES_SERVICE_" + each] for each in ("HOST", "PORT")]}), flush=True)
seen = None
while True:
    token = (folder / "token").read_text()
    if token != seen:
        print(token, flush=True)
        seen = token
    time.sleep(0.1)
"""


def test_a_pod_may_have_the_credentials_of_a_real_one_with_a_token_that_is_renewed(
    devcluster: facade.DevCluster, namespace: str, nodes: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if hindrance := mounting.hindrance():
        pytest.skip(hindrance)
    monkeypatch.setattr(lifecycle, "REFRESH_SECONDS", 1.0)
    manifest = daemon_set("inside", nodes, container(IN_CLUSTER))
    manifest["spec"]["template"]["metadata"]["annotations"] = {lifecycle.CREDENTIALS: "in-cluster"}
    apply(devcluster, namespace, manifest)
    pod = ready_pods(devcluster, namespace, 3)[0]
    devcluster.wait_for(lambda: len(pod.log().splitlines()) >= 3, 20, "another token")
    first, *tokens = pod.log().splitlines()
    found = json.loads(first)
    assert found["files"] == ["ca.crt", "namespace", "token"]
    assert (found["namespace"], found["kubeconfig"], found["others"]) == (namespace, None, ["secrets"])
    assert found["ca"].encode() == devcluster.ca_pem
    assert found["server"][0] == "127.0.0.1"
    server = "https://" + ":".join(found["server"])
    authority = pathlib.Path(devcluster.folder, "in-cluster-ca.crt")
    authority.write_text(found["ca"])
    for token in tokens[:2]:
        review = json.loads(devcluster.kubectl(
            "--kubeconfig", "/dev/null", "--server", server, "--certificate-authority", str(authority),
            "--token", token, "auth", "whoami", "-o", "json"))
        user = review["status"]["userInfo"]
        assert user["username"] == f"system:serviceaccount:{namespace}:default"
        assert user["extra"]["authentication.kubernetes.io/pod-uid"] == [pod.uid]
    assert not mounting.SERVICE_ACCOUNT.exists(), "it is seen outside of the pod"


def test_a_killed_process_is_restarted_and_counted(devcluster: facade.DevCluster, namespace: str, nodes: str) -> None:
    apply(devcluster, namespace, daemon_set("web", nodes, container(WEB, "", readinessProbe=readiness())))
    pod = ready_pods(devcluster, namespace, 3)[0]
    devcluster.kill(pod, signal.SIGKILL)

    def look() -> JsonObject:
        status: JsonObject = get_pod(devcluster, pod)["status"]["containerStatuses"][0]
        assert status["restartCount"] == 1, status
        assert status["ready"], status
        return status

    status = devcluster.wait_for(look, 20, "the restart of the container")
    assert status["lastState"]["terminated"]["exitCode"] == 128 + signal.SIGKILL
    again = next(each for each in devcluster.pods(namespace) if each.uid == pod.uid)
    assert again.pid != pod.pid
    assert again.ip == pod.ip


def test_a_failing_readiness_probe_takes_the_pod_out_of_its_service_at_once(
    devcluster: facade.DevCluster, namespace: str, nodes: str
) -> None:
    web = container(WEB, "", readinessProbe=readiness())
    apply(devcluster, namespace, daemon_set("web", nodes, web), service("web", 80, WEB_PORT))
    pods = ready_pods(devcluster, namespace, 3)
    sick = pods[0].kubeconfig.parent / "sick"
    sick.touch()
    others = {pod.ip for pod in pods[1:]}
    devcluster.wait_for(lambda: ready_endpoints(devcluster, namespace, "web") == others, 10, "two ready endpoints")
    sick.unlink()
    devcluster.wait_for(lambda: len(ready_endpoints(devcluster, namespace, "web")) == 3, 10, "three ready endpoints")


def test_a_failing_liveness_probe_restarts_the_container_and_says_why(
    devcluster: facade.DevCluster, namespace: str, nodes: str
) -> None:
    slow_start = readiness(failureThreshold=30)
    web = container(WEB, "", startupProbe=slow_start, readinessProbe=readiness(), livenessProbe=readiness())
    apply(devcluster, namespace, daemon_set("web", nodes, web))
    pod = ready_pods(devcluster, namespace, 3)[0]
    (pod.kubeconfig.parent / "sick").touch()

    def look() -> str:
        status = get_pod(devcluster, pod)["status"]["containerStatuses"][0]
        return str(status["lastState"]["terminated"]["message"])

    assert "liveness probe failed: HTTP status 503" in devcluster.wait_for(look, 15, "the restart of the container")


def test_a_deleted_pod_stops_in_order_and_its_object_goes(
    devcluster: facade.DevCluster, namespace: str, nodes: str
) -> None:
    apply(devcluster, namespace, daemon_set("web", nodes, container(WEB, "", readinessProbe=readiness())))
    pod = ready_pods(devcluster, namespace, 3)[0]
    devcluster.kubectl("-n", namespace, "delete", "pod", pod.name, "--timeout=15s")
    assert pod.log().endswith("asked to stop\nstopped in order\n")
    assert not runs(pod.pid)
    assert pod.uid not in {each.uid for each in ready_pods(devcluster, namespace, 3)}


def test_a_pod_that_ignores_sigterm_is_killed_after_its_grace_period(
    devcluster: facade.DevCluster, namespace: str, nodes: str
) -> None:
    stubborn = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('deaf', flush=True)\n"
    stubborn += "while True: time.sleep(1)"
    apply(devcluster, namespace, daemon_set("deaf", nodes, container(stubborn), grace_seconds=1))
    pod = ready_pods(devcluster, namespace, 3)[0]
    devcluster.wait_for(lambda: pod.log() == "deaf\n", 10, "the process to ignore SIGTERM")
    devcluster.kubectl("-n", namespace, "delete", "pod", pod.name, "--timeout=15s")
    assert not runs(pod.pid)


def test_what_the_kubelet_lacks_is_said_in_the_pods_status(
    devcluster: facade.DevCluster, namespace: str, nodes: str
) -> None:
    execute = container(WEB, "", readinessProbe={"exec": {"command": ["true"]}})
    apply(devcluster, namespace, daemon_set("odd", nodes, execute))

    def look() -> str:
        pods = devcluster.request("GET", f"/api/v1/namespaces/{namespace}/pods")["items"]
        return str(pods[0]["status"]["containerStatuses"][0]["state"]["waiting"]["message"])

    message = devcluster.wait_for(lambda: "support" in (said := look()) and said, 15, "a message in the status")
    assert "container 'main': readinessProbe that is neither httpGet nor tcpSocket" in str(message)


def test_init_containers_run_first_and_a_pod_that_is_done_has_succeeded_or_failed(
    devcluster: facade.DevCluster, namespace: str, nodes: str
) -> None:
    def pod(name: str, code: int) -> JsonObject:
        first = container("open('first', 'w')", name="first")
        then = container(f"import os, sys; sys.exit({code} if os.path.exists('first') else 99)", name="then")
        spec = {
            "restartPolicy": "Never",
            "nodeSelector": {nodes: ""},
            "initContainers": [first],
            "containers": [then],
        }
        return {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name}, "spec": spec}

    apply(devcluster, namespace, pod("well", 0), pod("ill", 7))

    def look() -> dict[str, tuple[str, int]]:
        pods = devcluster.request("GET", f"/api/v1/namespaces/{namespace}/pods")["items"]
        return {
            each["metadata"]["name"]: (
                each["status"]["phase"],
                each["status"]["containerStatuses"][0]["state"]["terminated"]["exitCode"],
            )
            for each in pods
        }

    done = {"well": ("Succeeded", 0), "ill": ("Failed", 7)}
    devcluster.wait_for(lambda: look() == done, 20, "both pods to be done")


def test_held_pods_start_together(devcluster: facade.DevCluster, namespace: str, nodes: str) -> None:
    devcluster.hold_pod_starts()
    try:
        apply(devcluster, namespace, daemon_set("web", nodes, container(WEB, "", readinessProbe=readiness())))
        devcluster.wait_for(
            lambda: [pod.held for pod in devcluster.pods(namespace)] == [True] * 3, 20, "three held pods"
        )
        assert all(pod.pid is None and pod.log() == "" for pod in devcluster.pods(namespace))
    finally:
        devcluster.release_pod_starts()
    ready_pods(devcluster, namespace, 3)


def webhook_configuration(name: str, namespace: str, ca_pem: bytes) -> JsonObject:
    """A configuration that calls the Service `hook` of the namespace for its ConfigMaps."""
    webhook = {
        "name": "hook.example.com",
        "admissionReviewVersions": ["v1"],
        "sideEffects": "None",
        "timeoutSeconds": 3,
        "failurePolicy": "Fail",
        "namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": namespace}},
        "matchConditions": [{"name": "ours", "expression": "object.metadata.name in ['good', 'bad']"}],
        "rules": [{"apiGroups": [""], "apiVersions": ["v1"], "operations": ["CREATE"], "resources": ["configmaps"]}],
        "clientConfig": {
            "caBundle": base64.b64encode(ca_pem).decode(),
            "service": {"name": "hook", "namespace": namespace, "path": "/"},
        },
    }
    return {
        "apiVersion": "admissionregistration.k8s.io/v1",
        "kind": "ValidatingWebhookConfiguration",
        "metadata": {"name": name},
        "webhooks": [webhook],
    }


@pytest.fixture
def webhook(
    devcluster: facade.DevCluster, namespace: str, nodes: str, tmp_path: pathlib.Path
) -> Iterator[list[facade.PodProcess]]:
    """A webhook behind a Service in the namespace, with a certificate by an authority of its own; yields its pods."""
    authority = certificates.Authority("webhook-ca")
    name = f"hook.{namespace}.svc"
    pem = tmp_path / "webhook.pem"
    pem.write_bytes(b"".join(authority.issue(name, server_names=(name,))))
    probe = {"httpGet": {"path": "/", "port": 9443, "scheme": "HTTPS"}, "periodSeconds": 1}
    pods_spec = daemon_set("hook", nodes, container(WEBHOOK, str(pem), readinessProbe=probe))
    apply(devcluster, namespace, pods_spec, service("hook", 443, 9443))
    pods = ready_pods(devcluster, namespace, 3)
    devcluster.wait_for(lambda: len(ready_endpoints(devcluster, namespace, "hook")) == 3, 10, "three ready endpoints")
    apply(devcluster, namespace, webhook_configuration(namespace, namespace, authority.pem))
    yield pods
    devcluster.kubectl("delete", "validatingwebhookconfiguration", namespace)


def create_config_map(cluster: facade.DevCluster, namespace: str, name: str) -> None:
    """A dry run, so that it can be repeated; webhooks without side effects are called all the same."""
    cluster.kubectl("-n", namespace, "create", "configmap", name, "--dry-run=server")


def denied(cluster: facade.DevCluster, namespace: str) -> str:
    """The message with which the webhook denies the ConfigMap named "bad"."""
    with pytest.raises(facade.KubectlError) as raised:
        create_config_map(cluster, namespace, "bad")
    assert "denied by hook-" in raised.value.stderr
    return raised.value.stderr


def test_the_api_server_calls_a_webhook_through_its_service(
    devcluster: facade.DevCluster, namespace: str, webhook: list[facade.PodProcess]
) -> None:
    message = devcluster.wait_for(lambda: denied(devcluster, namespace), 15, "the webhook to be called")
    assert any(pod.name in message for pod in webhook)
    create_config_map(devcluster, namespace, "good")


def test_a_webhook_that_is_cut_off_cannot_be_called_until_it_is_healed(
    devcluster: facade.DevCluster, namespace: str, webhook: list[facade.PodProcess]
) -> None:
    devcluster.wait_for(lambda: denied(devcluster, namespace), 15, "the webhook to be called")
    for pod in webhook:
        devcluster.partition_webhook(pod)
    with pytest.raises(facade.KubectlError, match="failed calling webhook"):
        create_config_map(devcluster, namespace, "good")
    for pod in webhook:
        devcluster.heal_webhook(pod)
    devcluster.wait_for(lambda: denied(devcluster, namespace), 15, "the webhook to be called again")


@pytest.mark.parametrize("stall", [False, True])
def test_a_partitioned_pod_cannot_reach_the_api_server_until_it_is_healed(
    devcluster: facade.DevCluster, namespace: str, nodes: str, stall: bool
) -> None:
    apply(devcluster, namespace, daemon_set("web", nodes, container(WEB, "", readinessProbe=readiness())))
    first, second, _ = ready_pods(devcluster, namespace, 3)

    def version(pod: facade.PodProcess) -> str:
        return devcluster.kubectl(
            "--kubeconfig", str(pod.kubeconfig), "--request-timeout=2s", "get", "--raw", "/version"
        )

    assert version(first)
    devcluster.partition(first, stall=stall)
    with pytest.raises(facade.KubectlError):
        version(first)
    assert version(second)
    assert get_pod(devcluster, first)["status"]["containerStatuses"][0]["ready"]
    devcluster.heal(first)
    assert version(first)


def test_the_audit_log_counts_requests_by_user_object_and_answer(
    devcluster: facade.DevCluster, namespace: str, nodes: str
) -> None:
    apply(devcluster, namespace, daemon_set("web", nodes, container(WEB, "", readinessProbe=readiness())))
    pod = ready_pods(devcluster, namespace, 3)[0]
    before = devcluster.audit.position()
    devcluster.kubectl("-n", namespace, "create", "secret", "generic", "box", "--from-literal=a=hidden")
    with pytest.raises(facade.KubectlError, match="forbidden"):
        devcluster.kubectl("--kubeconfig", str(pod.kubeconfig), "get", "secret", "box")
    log, user = devcluster.audit, f"{namespace}:default"
    devcluster.wait_for(
        lambda: log.count(resource="secrets", name="box", user=user, code=403, since=before) == 1,
        10,
        "the refused request in the audit log",
    )
    assert log.count(verb="create", resource="secrets", namespace=namespace, code=201, since=before) == 1
    assert log.count(verb="create", resource="secrets", namespace=namespace, since=log.position()) == 0
    secret = base64.b64encode(b"hidden").decode()
    assert not any(secret in json.dumps(event) for event in log.events(before))


def test_pods_run_on_while_the_api_server_is_away_and_are_seen_again_after_it(
    devcluster: facade.DevCluster, namespace: str, nodes: str
) -> None:
    apply(devcluster, namespace, daemon_set("web", nodes, container(WEB, "", readinessProbe=readiness())))
    pods = ready_pods(devcluster, namespace, 3)
    devcluster.stop_apiserver()
    sick = pods[0].kubeconfig.parent / "sick"
    sick.touch()
    devcluster.wait_for(lambda: [pod.ready for pod in devcluster.pods(namespace)].count(False) == 1, 10, "a sick pod")
    devcluster.start_apiserver()
    assert [pod.pid for pod in devcluster.pods(namespace)] == [pod.pid for pod in pods]
    devcluster.wait_for(lambda: not condition(get_pod(devcluster, pods[0]), "Ready"), 10, "the status to be reported")
    sick.unlink()
    assert [pod.uid for pod in ready_pods(devcluster, namespace, 3)] == [pod.uid for pod in pods]
    devcluster.kubectl("-n", namespace, "delete", "pod", pods[0].name, "--timeout=20s")


def test_the_api_server_answers_errors_without_etcd_and_recovers_with_it(
    devcluster: facade.DevCluster, namespace: str
) -> None:
    devcluster.kubectl("-n", namespace, "create", "configmap", "kept")
    devcluster.stop_etcd()
    try:
        with pytest.raises(facade.KubectlError):
            devcluster.kubectl("-n", namespace, "create", "configmap", "lost", "--request-timeout=2s")
    finally:
        devcluster.start_etcd()
    devcluster.kubectl("-n", namespace, "get", "configmap", "kept")


def test_a_removed_node_takes_its_pods_with_it(devcluster: facade.DevCluster, namespace: str, nodes: str) -> None:
    apply(devcluster, namespace, daemon_set("web", nodes, container(WEB, "", readinessProbe=readiness())))
    gone, *others = ready_pods(devcluster, namespace, 3)
    devcluster.remove_node(gone.node)
    assert {pod.uid for pod in ready_pods(devcluster, namespace, 2)} == {pod.uid for pod in others}
    devcluster.wait_for(lambda: not runs(gone.pid), 10, "the process to be gone")


OWNER = textwrap.dedent(
    """
    import json, sys, threading
    import devcluster
    cluster = devcluster.DevCluster(nodes=1)
    cluster.start()
    pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "sleeper"},
           "spec": {"serviceAccountName": "default", "containers": [
               {"name": "main", "image": "none", "command": ["sh", "-c", "sleep 1000 & exec sleep 1000"]}]}}
    cluster.wait_for(lambda: cluster.kubectl("create", "-f", "-", input=json.dumps(pod)), 20, "the pod")
    cluster.wait_for(lambda: cluster.pods()[0].ready, 20, "the pod's process")
    print(json.dumps({"folder": str(cluster.folder), "pod": cluster.pods()[0].pid}), flush=True)
    threading.Event().wait()
    """
)


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT, signal.SIGTERM])
def test_nothing_is_left_when_the_owner_of_a_cluster_dies(number: signal.Signals) -> None:
    tests = pathlib.Path(__file__).parent
    environment = {**os.environ, "PYTHONPATH": str(tests)}
    with subprocess.Popen([sys.executable, "-c", OWNER], env=environment, stdout=subprocess.PIPE) as owner:
        assert owner.stdout is not None
        started = json.loads(owner.stdout.readline())
        assert len(watchdog.marked(started["folder"])) >= 4 + 2
        owner.send_signal(number)
        owner.wait(20)
    folder = pathlib.Path(started["folder"])
    waiting.wait_for(lambda: not watchdog.marked(str(folder)), 10, "all processes to end")
    waiting.wait_for(lambda: not folder.exists(), 10, "the folder to be removed")
    assert not runs(started["pod"])


def test_make_cluster_prints_a_kubeconfig_that_works_and_ends_at_ctrl_c() -> None:
    tests = pathlib.Path(__file__).parent
    environment = {**os.environ, "PYTHONPATH": str(tests)}
    command = [sys.executable, "-m", "devcluster", "--nodes", "1"]
    with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as owner:
        assert owner.stdout is not None
        lines = [owner.stdout.readline().strip() for _ in range(2)]
        exports = dict(line.removeprefix("export ").split("=", 1) for line in lines)
        kubectl = pathlib.Path(exports["PATH"].split(":", 1)[0], "kubectl")
        kubeconfig = exports["KUBECONFIG"]
        answer = subprocess.run(
            [kubectl, "--kubeconfig", kubeconfig, "get", "nodes"], capture_output=True, text=True, check=True
        )
        assert "node-1   Ready" in answer.stdout
        owner.send_signal(signal.SIGINT)
        _, errors = owner.communicate(timeout=20)
        assert owner.returncode == 0, errors
    assert not pathlib.Path(kubeconfig).parent.exists()


def test_a_port_that_somebody_else_takes_first_is_replaced_by_another(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        choices = [[*addresses.free_ports(2), taken.getsockname()[1]], addresses.free_ports(3)]
        monkeypatch.setattr(addresses, "free_ports", lambda count: choices.pop(0))
        with facade.DevCluster() as cluster:
            assert cluster.kubectl("get", "namespaces", "-o", "name")
    assert not choices
