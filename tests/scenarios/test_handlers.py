"""Ordinary handlers of a user's module: the active instance runs them, and no other one."""
import collections
import pathlib
import signal
import subprocess
import sys

import pytest

from scenarios import installation, instances
from scenarios.conftest import Install

pytestmark = pytest.mark.cluster

# What a kopf operator that handles ConfigMaps needs, as kopf's documentation says.
RIGHTS = [
    {"apiGroups": [""], "resources": ["configmaps"], "verbs": ["get", "list", "watch", "patch", "create"]},
    {"apiGroups": [""], "resources": ["events"], "verbs": ["create"]},
]


def allow_handlers(installed: installation.Installation, account: str) -> None:
    installed.apply([
        {"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "Role",
         "metadata": {"name": "counting", "namespace": installed.namespace}, "rules": RIGHTS},
        {"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "RoleBinding",
         "metadata": {"name": "counting", "namespace": installed.namespace},
         "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": "counting"},
         "subjects": [{"kind": "ServiceAccount", "name": account, "namespace": installed.namespace}]},
    ])


def create(installed: installation.Installation, name: str) -> None:
    installed.cluster.request("POST", f"/api/v1/namespaces/{installed.namespace}/configmaps",
                              {"metadata": {"name": name, "labels": {"counted": "yes"}}})


@pytest.fixture
def counting(install: Install) -> installation.Installation:
    """Five instances with a module of ordinary handlers, each of which takes a second."""
    installed = install(nodes=5, modules=("counting",), env={"COUNTING_SECONDS": "1"})
    allow_handlers(installed, "steadyhook-manager")
    installed.wait_serving()
    installed.wait_ready()
    instances.wait_settled(installed)
    return installed


Told = dict[str, list[tuple[float, str, str]]]


def told(installed: installation.Installation, logs: dict[str, str]) -> Told:
    """By object: when, what and by which pod, in the order of time: all pods here have one clock."""
    logs.update({pod.name: pod.log() for pod in installed.pods()})  # also of those that are gone since
    found: Told = collections.defaultdict(list)
    for pod, log in logs.items():
        for line in log.splitlines():
            if line.startswith("COUNTING "):
                _, at, what, name = line.split()
                found[name].append((float(at), what, pod))
    return {name: sorted(items) for name, items in found.items()}


def wait_handled(installed: installation.Installation, names: list[str], logs: dict[str, str]) -> Told:
    def handled() -> Told:
        found = told(installed, logs)
        missing = [name for name in names if not any(what == "ends" for _, what, _ in found.get(name, []))]
        assert not missing, f"not handled: {missing}"
        return found

    return installed.cluster.wait_for(handled, 90, f"{len(names)} objects to be handled")


def test_each_object_is_handled_once_by_the_active_instance_alone(counting: installation.Installation) -> None:
    names = [f"one-{number}" for number in range(10)]
    for name in names:
        create(counting, name)
    found = wait_handled(counting, names, {})
    active = counting.active().name
    for name in names:
        assert [(what, pod) for _, what, pod in found[name] if what != "ticks"] == [
            ("begins", active), ("ends", active)]
        assert {pod for _, what, pod in found[name] if what == "ticks"} <= {active}
    assert "hello from a user's handler" in counting.active().log(), "the log of a handler is shown"
    # An index is there for the admission handlers, which every instance has. The log of the active one has gone on.
    others = [pod for pod in counting.pods() if pod.name != active]
    counting.cluster.wait_for(lambda: all("INDEXED one-0\n" in pod.log() for pod in others), 30,
                              f"an index to be filled in {len(others)} instances")
    counting.admit()


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM], ids=["killed", "stopped"])
def test_after_the_active_instance_another_one_goes_on_and_no_object_has_two_at_a_time(
    counting: installation.Installation, number: signal.Signals
) -> None:
    logs: dict[str, str] = {}
    former = counting.active()
    early = [f"early-{index}" for index in range(5)]
    for name in early:
        create(counting, name)
    counting.cluster.wait_for(
        lambda: any(what == "begins" for items in told(counting, logs).values() for _, what, _ in items), 30,
        "the first handler to begin")
    counting.cluster.kill(former, number)
    late = [f"late-{index}" for index in range(5)]
    for name in late:
        create(counting, name)
    found = wait_handled(counting, early + late, logs)
    instances.wait_settled(counting, seats=1)
    for name in early + late:
        steps = [(what, pod) for _, what, pod in found[name] if what != "ticks"]
        ends = [pod for what, pod in steps if what == "ends"]
        assert len(ends) == 1, f"{name} was handled {len(ends)} times: {steps}"
        if number == signal.SIGTERM:
            assert steps == [("begins", ends[0]), ("ends", ends[0])], "a handler that runs gets its grace"
        else:
            pods = [pod for _, pod in steps]
            assert pods == sorted(pods, key=pods.index), f"two instances at a time: {steps}"
    if number == signal.SIGTERM:
        assert "the operator of the handlers is tidied up" in former.log()


def test_a_server_refuses_ordinary_handlers_and_names_them_and_the_remedy(tmp_path: pathlib.Path) -> None:
    root = installation.MANIFESTS.parent
    ended = subprocess.run(
        [sys.executable, "-m", "kopf", "run", "-m", "steadyhook.server", "-m", "scenarios.counting", "--standalone",
         "-n", "somewhere"], capture_output=True, text=True, timeout=60, check=False, cwd=tmp_path,
        env={"PATH": "/usr/bin:/bin", "PYTHONPATH": f"{root / 'operator'}:{root / 'tests'}", "HOME": str(tmp_path),
             "STEADYHOOK_HEALTH_PORT": "1", "STEADYHOOK_LISTEN_ADDRESS": "127.0.0.1"})
    assert ended.returncode != 0
    output = ended.stdout + ended.stderr
    assert "handlers tick, count: steadyhook.server runs admission handlers alone" in output
    assert "steadyhook.manager or steadyhook.issuer, whose active instance runs the others" in output


def own_operator(installed: installation.Installation, *, replicas: int) -> None:
    """A Deployment of ``own_operator`` under a peering of its own, as the README shows it, beside the installation."""
    template = installed.get("apps/v1 daemonsets/steadyhook-manager")["spec"]["template"]["spec"]
    container = {**template["containers"][0], "name": "widgets", "env": [
        *template["containers"][0]["env"], {"name": "PYTHONPATH", "value": ":".join(
            str(installation.MANIFESTS.parent / folder) for folder in ("operator", "tests"))}],
        "args": ["--module=scenarios.own_operator", "--peering=widgets", f"--namespace={installed.namespace}"]}
    labels = {"app": "widgets"}
    installed.apply([
        {"apiVersion": "kopf.dev/v1", "kind": "KopfPeering",
         "metadata": {"name": "widgets", "namespace": installed.namespace}},
        {"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "Role",
         "metadata": {"name": "widgets", "namespace": installed.namespace},
         "rules": [{"apiGroups": ["kopf.dev"], "resources": ["kopfpeerings"], "verbs": ["list", "watch", "patch"]}]},
        {"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "RoleBinding",
         "metadata": {"name": "widgets", "namespace": installed.namespace},
         "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": "widgets"},
         "subjects": [{"kind": "ServiceAccount", "name": "steadyhook-manager", "namespace": installed.namespace}]},
        {"apiVersion": "apps/v1", "kind": "Deployment",
         "metadata": {"name": "widgets", "namespace": installed.namespace},
         "spec": {"replicas": replicas, "selector": {"matchLabels": labels}, "template": {
             "metadata": {"labels": labels}, "spec": {
                 **{key: template[key] for key in ("serviceAccountName", "nodeSelector")},
                 "containers": [{key: value for key, value in container.items() if key != "volumeMounts"}]}}}},
    ])
    installed.cluster.kubectl("rollout", "status", "deployment/widgets", "-n", installed.namespace, "--timeout=90s",
                              timeout=100)


def test_of_the_replicas_of_an_own_operator_one_handles_each_object_and_all_serve(install: Install) -> None:
    installed = install(nodes=1)
    allow_handlers(installed, "steadyhook-manager")
    installed.wait_serving()
    own_operator(installed, replicas=3)
    names = [f"one-{number}" for number in range(6)]
    for name in names:
        create(installed, name)
    found = wait_handled(installed, names, {})
    handled = {pod for name in names for _, what, pod in found[name]}
    assert len(handled) == 1, f"handled by {handled}"
    assert all(len([what for _, what, _ in found[name] if what == "ends"]) == 1 for name in names)
    widgets = [pod for pod in installed.pods() if pod.labels.get("app") == "widgets"]
    assert len(widgets) == 3
    assert "Possibly conflicting operators" not in "".join(pod.log() for pod in widgets)
    for pod in widgets:
        assert instances.served(pod, installed) == installed.fingerprint()
