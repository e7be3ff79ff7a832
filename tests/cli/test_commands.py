"""The command on a real API server: as a process, as people run it."""
import base64
import contextlib
import json
import os
import pathlib
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import yaml

from devcluster import addresses, facade
from peers import conftest, listeners, webhook
from steadyhook.cli import status
from steadyhook.cli.diagnosis import Kind
from steadyhook.cli.output import Exit

pytestmark = [pytest.mark.cluster, pytest.mark.slow]
definitions, hook, issuer = conftest.definitions, conftest.hook, conftest.issuer
SECONDS = 120
LISTENERS = 250  # a storm of 100 is over after 5 to 15 s, under load after one second; this one lasts 20 to 40
STORMS = 5


def start(cluster: facade.DevCluster, *arguments: str, **environment: str) -> "subprocess.Popen[str]":
    env = {**cluster.env(), "PYTHONPATH": os.pathsep.join(sys.path), "PYTHONUNBUFFERED": "1", **environment}
    return subprocess.Popen([sys.executable, "-m", "steadyhook.cli", *arguments], env=env, stdin=subprocess.DEVNULL,
                            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def run(cluster: facade.DevCluster, *arguments: str, **environment: str) -> tuple[int, str, str]:
    """Exit code, output, errors."""
    process = start(cluster, *arguments, **environment)
    try:
        output, errors = process.communicate(timeout=SECONDS)
    finally:
        process.kill()
        process.wait()
    assert "Traceback" not in errors, errors
    return process.returncode, output, errors


def found(output: str) -> set[str]:
    (result,) = json.loads(output)
    return {item["kind"] for item in result["findings"]}


@pytest.fixture
def issued(hook: webhook.Webhook, issuer: Callable[[], None]) -> webhook.Webhook:
    """A certificate for listeners, and an issuer."""
    issuer()
    hook.ask()
    hook.wait_ready()
    return hook


def test_the_status_of_a_good_certificate(issued: webhook.Webhook) -> None:
    code, output, errors = run(issued.cluster, "status", "-n", issued.namespace, "-o", "json")
    assert not errors
    (certificate,) = json.loads(output)
    assert code == Exit.FINE
    assert (certificate["name"], certificate["ready"]) == (webhook.CERTIFICATE, True)
    assert certificate["fingerprint"] == issued.leaf_fingerprint()
    code, output, _ = run(issued.cluster, "status", "-n", issued.namespace)
    assert code == Exit.FINE
    assert f"{issued.namespace}/{webhook.CERTIFICATE}" in output
    assert "ends in 36" in output  # days
    assert f"issuer:   issuer-{issued.namespace}" in output


def test_a_watched_status_tells_of_a_change_at_once(issued: webhook.Webhook) -> None:
    process = start(issued.cluster, "status", "--watch", "-n", issued.namespace, "-o", "json")
    try:
        with threads(process) as lines:
            before = issued.leaf_fingerprint()
            issued.cluster.wait_for(lambda: before in "".join(lines), SECONDS, "the first look")
            issued.annotate("steadyhook.io/rotate-leaf", "now")
            issued.cluster.wait_for(lambda: issued.leaf_fingerprint() != before, SECONDS, "another leaf")
            after = issued.leaf_fingerprint()
            issued.cluster.wait_for(lambda: after in "".join(lines), status.LOOK_SECONDS / 2, "it to be told")
    finally:
        process.kill()
        process.wait()


def test_the_status_of_a_certificate_that_nobody_issues(hook: webhook.Webhook) -> None:
    hook.ask()
    code, output, _ = run(hook.cluster, "status", "-n", hook.namespace)
    assert code == Exit.WRONG
    assert "no issuer has looked at it yet" in output


@contextlib.contextmanager
def diagnosed_storm(hook: webhook.Webhook) -> Iterator[tuple[listeners.Listeners, int, str]]:
    """Listeners, and the exit code and the output of `diagnose` in a storm that outlasted it; not each one does."""
    for _ in range(STORMS):
        position = hook.cluster.audit.position()
        with hook.start(LISTENERS) as running:
            hook.cluster.wait_for(
                lambda since=position: hook.writes(by_listeners=True, since=since).conflicts > LISTENERS // 2,
                SECONDS, "a storm")
            began, before = time.monotonic(), hook.cluster.audit.position()
            code, output, _ = run(hook.cluster, "diagnose", webhook.SECRET, "-n", hook.namespace, "-o", "json",
                                  "--seconds", "3")
            seconds = time.monotonic() - began
            rate = hook.writes(by_listeners=True, since=before).done / seconds
            if rate > 1.5 and hook.seconds_since_a_listener_wrote() < 1.5:
                webhook.report("diagnosed", seconds=round(seconds, 1), output=json.loads(output))
                yield running, code, output
                return
        hook.delete_secrets(webhook.SECRET, webhook.CA_SECRET)
    pytest.fail(f"none of {STORMS} storms lasted")


def test_a_storm_is_named_within_ten_seconds_and_adopting_ends_it(
    hook: webhook.Webhook, issuer: Callable[[], None]
) -> None:
    issuer()
    with diagnosed_storm(hook) as (running, code, output):
        assert code == Exit.WRONG
        assert Kind.STORM in found(output)
        command = ("repair", "adopt", webhook.SECRET, "-n", hook.namespace, "--ca-secret", webhook.CA_SECRET)
        code, output, errors = run(hook.cluster, *command)
        assert (code, "say --yes" in errors) == (Exit.NOT_DONE, True)
        code, output, _ = run(hook.cluster, *command, "--dry-run")
        assert json.loads(output)["spec"]["compatibility"] == "Dynamiclistener"
        assert json.loads(output)["metadata"]["name"] == webhook.CERTIFICATE
        code, output, errors = run(hook.cluster, *command, "--yes", "--timeout", "100")
        assert code == Exit.FINE, errors
        calm = hook.wait_calm(running)
        leaf = hook.leaf_fingerprint()
        hook.cluster.wait_for(lambda: hook.served_by_all(running) == {leaf}, SECONDS, "all to serve one leaf")
        assert hook.writes(by_listeners=True, since=calm).done == 0


def test_a_bundle_that_does_not_verify_is_named(issued: webhook.Webhook) -> None:
    with issued.copying():
        path = f"/apis/admissionregistration.k8s.io/v1/validatingwebhookconfigurations/{issued.configuration}"
        foreign = base64.b64encode(issued.cluster.ca_pem).decode()
        issued.cluster.request("PATCH", path, [
            {"op": "replace", "path": "/webhooks/0/clientConfig/caBundle", "value": foreign}],
            content_type="application/json-patch+json")
        code, output, _ = run(issued.cluster, "diagnose", webhook.SECRET, "-n", issued.namespace, "-o", "json",
                              "--seconds", "1")
    assert code == Exit.WRONG
    assert Kind.BUNDLE_REPLACED in found(output)


def test_garbage_is_named_and_brackets_are_no_markup(hook: webhook.Webhook) -> None:
    path = f"/api/v1/namespaces/{hook.namespace}/secrets"
    garbage = base64.b64encode(b"[bold]not a certificate[/]").decode()
    hook.cluster.request("POST", path, {
        "apiVersion": "v1", "kind": "Secret", "metadata": {"name": "garbage"}, "type": "kubernetes.io/tls",
        "data": {"tls.crt": garbage, "tls.key": garbage}})
    code, output, _ = run(hook.cluster, "diagnose", "garbage", "-n", hook.namespace, "--seconds", "1")
    assert code == Exit.WRONG
    assert Kind.UNREADABLE in output


def test_deleting_a_secret_that_is_issued_brings_another_one(issued: webhook.Webhook) -> None:
    before = issued.leaf_fingerprint()
    command = ("repair", "delete-secret", webhook.SECRET, "-n", issued.namespace)
    assert run(issued.cluster, *command, "--dry-run")[0] == Exit.FINE
    assert issued.leaf_fingerprint() == before
    code, _, errors = run(issued.cluster, *command, "--yes")
    assert code == Exit.FINE, errors
    assert issued.leaf_fingerprint() != before


def test_a_secret_of_running_listeners_is_not_deleted(hook: webhook.Webhook) -> None:
    with hook.start(3) as running:
        running.wait_ready()
        hook.serve(running)
        with hook.copying():
            code, _, errors = run(
                hook.cluster, "repair", "delete-secret", webhook.SECRET, "-n", hook.namespace, "--yes")
        assert code == Exit.FAILED
        assert "from their memory" in errors
        assert hook.secret(webhook.SECRET)


# ---- what cannot be looked at ----

def test_what_is_not_there_is_named(hook: webhook.Webhook) -> None:
    cluster, namespace = hook.cluster, hook.namespace
    for arguments, said in (
        (("diagnose", "missing", "-n", namespace), f"no Secret missing in namespace {namespace}"),
        (("diagnose", "missing", "-n", "nowhere"), "nowhere, which does not exist itself"),
        (("status", "-n", "nowhere"), "namespace nowhere does not exist"),
        (("repair", "restart", "missing", "-n", namespace), "no DaemonSet and no Deployment missing"),
        (("repair", "restart", "ds/missing", "-n", namespace), "no DaemonSet missing"),
        (("repair", "restart", "job/missing", "-n", namespace), "expected NAME, daemonset/NAME or deployment/NAME"),
        (("repair", "restart", "missing", "-n", "nowhere"), "namespace nowhere does not exist"),
        (("diagnose", "-n", "nowhere"), "namespace nowhere does not exist"),
        (("repair", "adopt", "missing", "-n", namespace), f"no Secret missing in namespace {namespace}"),
        (("diagnose", "-n", namespace), "no Secret in namespace"),
    ):
        code, output, errors = run(cluster, *arguments)
        assert (code, output) == (Exit.FAILED, ""), arguments
        assert said in errors


def test_a_cluster_that_is_not_there_is_named(devcluster: facade.DevCluster, tmp_path: pathlib.Path) -> None:
    code, _, errors = run(devcluster, "status", KUBECONFIG=str(tmp_path / "missing"), HOME=str(tmp_path))
    assert code == Exit.FAILED
    assert "KUBECONFIG" in errors
    config = yaml.safe_load(devcluster.kubeconfig.read_text())
    config["clusters"][0]["cluster"]["server"] = f"https://127.0.0.1:{addresses.free_ports(1)[0]}"
    (tmp_path / "dead").write_text(yaml.safe_dump(config))
    code, _, errors = run(devcluster, "status", "--kubeconfig", str(tmp_path / "dead"))
    assert code == Exit.FAILED
    assert "does not answer" in errors


def test_a_right_that_is_missing_is_named(hook: webhook.Webhook, tmp_path: pathlib.Path) -> None:
    token = hook.cluster.kubectl("create", "token", "default", "-n", hook.namespace).strip()
    config: dict[str, Any] = yaml.safe_load(hook.cluster.kubeconfig.read_text())
    config["users"][0]["user"] = {"token": token}
    (tmp_path / "restricted").write_text(yaml.safe_dump(config))
    code, _, errors = run(hook.cluster, "status", "-n", hook.namespace, "--kubeconfig", str(tmp_path / "restricted"))
    assert code == Exit.FAILED
    assert "forbidden" in errors
    assert "ask for this right" in errors


def test_no_key_stays_in_the_temporary_folder(devcluster: facade.DevCluster, tmp_path: pathlib.Path) -> None:
    config = yaml.safe_load(devcluster.kubeconfig.read_text())
    assert any(key.endswith("-data") for item in config["users"] for key in item["user"])
    run(devcluster, "status", "-A", TMPDIR=str(tmp_path))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("command", [("status", "--watch"), ("diagnose", webhook.SECRET, "--seconds", "60")])
def test_ctrl_c_ends_it_with_a_word(issued: webhook.Webhook, command: tuple[str, ...]) -> None:
    process = start(issued.cluster, *command, "-n", issued.namespace)
    position = issued.cluster.audit.position()
    resource = "webhookcertificates" if command[0] == "status" else "secrets"
    try:
        with threads(process) as lines:
            issued.cluster.wait_for(lambda: lines or (command[0] == "diagnose" and issued.cluster.audit.count(
                resource=resource, namespace=issued.namespace, verb="watch", since=position,
                stages=("RequestReceived", "ResponseStarted"))), SECONDS, "it to look")
            process.send_signal(signal.SIGINT)
            assert process.wait(SECONDS) == Exit.INTERRUPTED
    finally:
        process.kill()
        process.wait()


@contextlib.contextmanager
def threads(process: "subprocess.Popen[str]") -> Iterator[list[str]]:
    """The lines of a process's output, as they come."""
    lines: list[str] = []

    def read() -> None:
        assert process.stdout is not None
        for line in process.stdout:
            lines.append(line)  # noqa: PERF402

    reader = threading.Thread(target=read, daemon=True)
    reader.start()
    yield lines
    process.kill()
    reader.join()
