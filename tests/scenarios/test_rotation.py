"""Rotation of the CA on the real control plane: nobody notices, and nothing leaves before everyone has moved."""
import contextlib
import datetime
import signal

import pytest

from devcluster import audit, waiting
from scenarios import installation
from scenarios.conftest import Install
from steadyhook.core import policy
from steadyhook.pki import minting, secrets

pytestmark = pytest.mark.cluster

SETTLE = {"spec": {"settleSeconds": 1}}
MERGE = "application/merge-patch+json"


def rotate(installed: installation.Installation, request: str) -> None:
    path = (f"/apis/steadyhook.io/v1alpha1/namespaces/{installed.namespace}/webhookcertificates/"
            f"{installation.CERTIFICATE}")
    installed.cluster.request("PATCH", path, {
        **SETTLE, "metadata": {"annotations": {"steadyhook.io/rotate-ca": request}}},
                              content_type=MERGE)


def authorities(installed: installation.Installation) -> set[str]:
    """The fingerprints in the trust bundle of the CA Secret."""
    secret = installed.secret(installation.AUTHORITY)
    assert secret is not None
    return {item.fingerprint for item in secrets.read_authority(secret).bundle}


def injected(installed: installation.Installation) -> list[set[str]]:
    """The fingerprints in each caBundle."""
    found = []
    for plural in ("validatingwebhookconfigurations", "mutatingwebhookconfigurations"):
        path = f"/apis/admissionregistration.k8s.io/v1/{plural}/steadyhook-example-{installed.namespace}"
        for webhook in installed.cluster.request("GET", path)["webhooks"]:
            trusted, readable = secrets.read_ca_bundle(webhook["clientConfig"].get("caBundle"))
            assert readable
            found.append({item.fingerprint for item in trusted})
    return found


def wait_rotated(installed: installation.Installation, before: set[str], *, timeout: float = 120) -> set[str]:
    """Wait until the old CA has left everywhere; return the new bundle."""
    def rotated() -> set[str] | None:
        now = authorities(installed)
        assert not now & before, f"the CA Secret still trusts {before}"
        assert injected(installed) == [now] * 2, f"injected: {injected(installed)}"
        assert installed.conditions()["Rotating"]["status"] == "False"
        return now

    found = installed.cluster.wait_for(rotated, timeout, "the old CA to leave")
    assert found is not None
    return found


def test_a_rotation_that_is_asked_for_is_not_noticed_by_anyone(serving: installation.Installation) -> None:
    before = authorities(serving)
    leaf = serving.fingerprint()
    since = serving.position()
    with serving.load(per_second=40) as load:
        load.wait_for(20)
        rotate(serving, "first")
        after = wait_rotated(serving, before)
        load.wait_for(20)
    assert load.failures == {}
    assert len(after) == 1
    serving.wait_serving(but_not=leaf)
    assert serving.secret_writes(since=since) == [("patch", 200)]
    authority_writes = serving.writes("secrets", installation.AUTHORITY, since=since)
    assert [item["verb"] for item in authority_writes] == ["patch"] * 3  # it joins, it signs, the old one leaves
    reasons = [item["reason"] for item in serving.events()]
    for reason in ("StartingRotation", "Switching", "Retiring"):
        assert reason in reasons


def test_a_stopped_server_keeps_the_old_ca_until_it_is_back(serving: installation.Installation) -> None:
    before = authorities(serving)
    active = serving.active()
    sleeper = next(pod for pod in serving.pods() if pod.name != active.name)
    serving.cluster.kill(sleeper, signal.SIGSTOP)
    rotate(serving, "with a sleeper")

    def waits_for_it() -> bool:
        condition = serving.conditions()["Rotating"]
        return condition["reason"] == "Acknowledging" and "2/3 acknowledged, waiting for" in condition["message"]

    serving.cluster.wait_for(waits_for_it, 60, "the rotation to wait for the sleeper")
    assert before < authorities(serving)
    serving.cluster.kill(sleeper, signal.SIGCONT)
    wait_rotated(serving, before)
    serving.wait_serving()


def test_a_server_whose_pod_is_gone_does_not_block(serving: installation.Installation) -> None:
    before = authorities(serving)
    sleeper = next(pod for pod in serving.pods() if pod.name != serving.active().name)
    serving.cluster.kill(sleeper, signal.SIGSTOP)
    rotate(serving, "with one that is going")
    serving.cluster.wait_for(lambda: serving.conditions()["Rotating"]["reason"] == "Acknowledging", 60,
                             "the rotation to wait")
    serving.cluster.kubectl("delete", "pod", sleeper.name, "-n", serving.namespace, "--grace-period=0", "--force")
    wait_rotated(serving, before)


def test_a_rotation_survives_the_death_of_the_active_instance_after_every_write(install: Install) -> None:
    """Before each write is after the one before it, so every gap between two writes is met."""
    installed = install(nodes=4)
    installed.wait_serving()
    installed.wait_ready()
    before = authorities(installed)
    since = installed.position()
    rotate(installed, "under fire")
    killed = 0

    def kill_after_each_write() -> bool:
        nonlocal killed
        written = len(plan(installed, since))
        if written > killed:
            killed = written
            with contextlib.suppress(LookupError):  # nobody is active: the last one killed has just written this
                installed.cluster.kill(installed.active())
        return not authorities(installed) & before and injected(installed) == [authorities(installed)] * 2

    waiting.wait_for(kill_after_each_write, 300, "the rotation to end under fire", interval=0.02)
    wait_rotated(installed, before)
    installed.wait_serving(timeout=120)
    names = [name for name, _ in plan(installed, since)]
    example = f"steadyhook-example-{installed.namespace}"
    assert killed >= 6
    assert names.count(installation.SECRET) == 1
    assert names.count(installation.AUTHORITY) == 3  # the successor joins, it signs, the old CA leaves
    assert names.count(example) == 4  # both configurations get the successor, and lose the old CA
    assert set(names) == {installation.SECRET, installation.AUTHORITY, example}


def plan(installed: installation.Installation, since: int) -> list[tuple[str, int]]:
    """(name, status) of every accepted write to Secrets and webhook configurations."""
    events = [event for resource in (
        "secrets", "validatingwebhookconfigurations", "mutatingwebhookconfigurations")
        for event in installed.writes(resource, since=since)]
    return [(audit.name_of(event), audit.code_of(event)) for event in events if audit.code_of(event) < 400]


def test_a_server_that_is_cut_off_keeps_the_old_ca_until_it_is_healed(serving: installation.Installation) -> None:
    before = authorities(serving)
    lonely = next(pod for pod in serving.pods() if pod.name != serving.active().name)
    serving.cluster.partition(lonely)
    rotate(serving, "with one cut off")
    with serving.load() as load:
        serving.cluster.wait_for(lambda: serving.conditions()["Rotating"]["reason"] == "Acknowledging", 60,
                                 "the rotation to wait")
        load.wait_for(40)
        assert before < authorities(serving)
        serving.cluster.heal(lonely)
        wait_rotated(serving, before)
    assert load.failures == {}
    serving.wait_serving()


def test_a_rolling_restart_with_two_instances_on_a_node_is_no_hindrance(serving: installation.Installation) -> None:
    before = authorities(serving)
    with serving.load() as load:
        serving.cluster.kubectl("rollout", "restart", "daemonset/steadyhook-manager", "-n", serving.namespace)
        rotate(serving, "in a rollout")
        wait_rotated(serving, before, timeout=240)
        serving.cluster.kubectl("rollout", "status", "daemonset/steadyhook-manager", "-n", serving.namespace,
                                timeout=240)
    assert load.failures == {}
    serving.wait_serving(timeout=120)


def test_a_ca_of_the_users_own_is_rotated_in_and_signs(serving: installation.Installation) -> None:
    before = authorities(serving)
    own = minting.mint_authority(policy.parse(
        {"secretName": "own", "dnsNames": ["own.example"]}, namespace="x", name="own"),
        now=datetime.datetime.now(datetime.UTC))
    serving.apply([
        {"apiVersion": "v1", "kind": "Secret", "type": "kubernetes.io/tls",
         "metadata": {"name": "own-ca", "namespace": serving.namespace},
         "stringData": {"tls.crt": own.certificate_pem.decode(), "tls.key": own.key_pem.decode()}},
    ])
    path = (f"/apis/steadyhook.io/v1alpha1/namespaces/{serving.namespace}/webhookcertificates/"
            f"{installation.CERTIFICATE}")
    serving.cluster.request("PATCH", path, {"spec": {"authority": {"secretName": "own-ca"}, "settleSeconds": 1}},
                            content_type=MERGE)
    serving.cluster.wait_for(
        lambda: "add Secret own-ca to resourceNames" in serving.conditions()["Degraded"]["message"], 60,
        "the missing permission to be told")
    name = {"name": "own-ca", "namespace": serving.namespace}
    serving.apply([
        {"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "Role", "metadata": name,
         "rules": [{"apiGroups": [""], "resources": ["secrets"], "resourceNames": ["own-ca"], "verbs": ["get"]}]},
        {"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "RoleBinding", "metadata": name,
         "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": "own-ca"},
         "subjects": [{"kind": "ServiceAccount", "name": "steadyhook-manager", "namespace": serving.namespace}]},
    ])
    with serving.load() as load:
        look = {"metadata": {"annotations": {"steadyhook.io/look": "again"}}}
        serving.cluster.request("PATCH", path, look, content_type=MERGE)
        assert wait_rotated(serving, before) == {own.certificate.fingerprint}
        load.wait_for(10)
    assert load.failures == {}
    assert serving.conditions()["Degraded"]["status"] == "False"
