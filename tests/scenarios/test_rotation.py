"""Rotation of the CA on the real control plane: nobody notices, and nothing leaves before everyone has moved."""
import datetime
import signal

import pytest

from devcluster import waiting
from scenarios import installation
from scenarios.conftest import Install
from steadyhook.core import policy
from steadyhook.pki import certificates, minting, secrets

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


def test_a_rotation_survives_the_death_of_the_active_instance_at_each_phase(install: Install) -> None:
    installed = install(nodes=4)
    installed.wait_serving()
    installed.wait_ready()
    for phase in ("Distributing", "Acknowledging", "Retiring"):
        before = authorities(installed)
        rotate(installed, phase)

        def kill_at(wanted: str = phase) -> bool:
            rotation = (installed.certificate().get("status") or {}).get("rotation") or {}
            if rotation.get("phase") != wanted and installed.conditions()["Rotating"]["status"] == "True":
                return False
            installed.cluster.kill(installed.active())
            return True

        waiting.wait_for(kill_at, 60, f"the phase {phase}, or its end", interval=0.01)
        wait_rotated(installed, before)
    leaf = installed.secret()
    assert leaf is not None
    pair = secrets.key_pair(leaf)
    authority = secrets.read_authority(installed.secret(installation.AUTHORITY) or {})
    assert authority.certificate is not None
    assert certificates.signers(pair.certificate_pem, [authority.certificate])


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
        serving.cluster.request("PATCH", path, {"metadata": {"annotations": {"look": "again"}}}, content_type=MERGE)
        assert wait_rotated(serving, before) == {own.certificate.fingerprint}
        load.wait_for(10)
    assert load.failures == {}
    assert serving.conditions()["Degraded"]["status"] == "False"
