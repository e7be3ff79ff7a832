"""``steadyhook repair adopt``: what it looks at before it writes."""
import datetime
import json
import time
from typing import Any

import pytest

from cli import fake
from steadyhook.cli import contending, repair
from steadyhook.cli.output import Exit
from steadyhook.pki import secrets

SECRETS = "/api/v1/namespaces/ns/secrets"
CERTIFICATES = "/apis/steadyhook.io/v1alpha1/namespaces/ns/webhookcertificates"
ISSUERS = "steadyhook-issuers"
PEERINGS = f"/apis/kopf.dev/v1/namespaces/{ISSUERS}/kopfpeerings"
LABELS = {"app.kubernetes.io/name": "steadyhook"}
LISTENED = {"listener.cattle.io/cn-hook.ns.svc": "hook.ns.svc"}
AUTHORITY = contending.new_authority("ns")
ADOPT = ("repair", "adopt", "hook-tls", "--yes")


def record(age_seconds: float = 1) -> dict[str, Any]:
    lastseen = fake.NOW - datetime.timedelta(seconds=age_seconds)
    return {"priority": -1, "lifetime": 15, "lastseen": lastseen.isoformat()}


@pytest.fixture
def found() -> fake.Fake:
    """A Secret of listeners, and issuers of all certificates."""
    made = fake.Fake()
    made.add(SECRETS, "hook-tls", metadata={"annotations": dict(LISTENED)},
             **contending.leaf(["hook.ns.svc"], namespace="ns", authority=AUTHORITY))
    made.add(PEERINGS, "steadyhook-issuers", metadata={"labels": LABELS}, status={"issuer-1": record()})
    made.add(f"/apis/apps/v1/namespaces/{ISSUERS}/deployments", "steadyhook-issuer", metadata={"labels": LABELS},
             status={"readyReplicas": 2}, spec={"replicas": 2, "template": {"spec": {
                 "serviceAccountName": "steadyhook-issuer", "containers": [{
                     "args": ["--module=steadyhook.issuer", "--peering=steadyhook-issuers"],
                     "env": [{"name": "STEADYHOOK_CERTIFICATES", "value": "all"}]}]}}})
    made.add(f"/api/v1/namespaces/{ISSUERS}/pods", "issuer-1", spec={"nodeName": "node-7"})
    return made


def test_it_creates_the_certificate_and_waits(monkeypatch: pytest.MonkeyPatch, found: fake.Fake) -> None:
    code, output, errors = fake.run(monkeypatch, found, *ADOPT)
    assert (code, errors) == (Exit.FINE, "")
    assert "done: WebhookCertificate ns/hook to be ready" in output
    ((path, manifest),) = found.created
    assert (path, manifest["spec"]["secretName"], manifest["spec"]["caSecretName"]) == (
        CERTIFICATES, "hook-tls", "hook-ca")


def test_a_dry_run_says_in_words_what_would_be_created(monkeypatch: pytest.MonkeyPatch, found: fake.Fake) -> None:
    code, output, errors = fake.run(monkeypatch, found, *ADOPT, "--dry-run")
    assert code == Exit.FINE
    assert errors == ("would create WebhookCertificate ns/hook for hook.ns.svc; its issuer would be issuer-1 in"
                      " steadyhook-issuers, on node-7:\n")
    assert json.loads(output)["spec"]["compatibility"] == "Dynamiclistener"
    assert found.created == []


def refused(monkeypatch: pytest.MonkeyPatch, found: fake.Fake, *arguments: str) -> str:
    """What it says, also in a dry run, when it writes nothing."""
    monkeypatch.setattr(repair, "ELECTION_SECONDS", 0.0)
    code, output, errors = fake.run(monkeypatch, found, *(arguments or ADOPT))
    assert (code, output, found.created) == (Exit.FAILED, "", [])
    assert fake.run(monkeypatch, found, *(arguments or ADOPT), "--dry-run") == (code, output, errors)
    return errors


def test_without_any_installation_it_names_the_overlay(monkeypatch: pytest.MonkeyPatch, found: fake.Fake) -> None:
    for path in [path for path in found.objects if ISSUERS in path]:
        del found.objects[path]
    said = refused(monkeypatch, found)
    assert "nothing was done: no installation of steadyhook" in said
    assert "kubectl apply -k manifests/overlays/issuer" in said


def test_without_an_active_issuer_it_says_for_how_long(monkeypatch: pytest.MonkeyPatch, found: fake.Fake) -> None:
    found.objects[f"{PEERINGS}/steadyhook-issuers"]["status"] = {"issuer-1": record(age_seconds=615)}
    said = refused(monkeypatch, found)
    assert "nobody issues for 10 minutes" in said
    assert "Deployment steadyhook-issuer: 2 of 2 pods ready" in said


def test_an_election_that_has_no_result_just_now_is_waited_for(
    monkeypatch: pytest.MonkeyPatch, found: fake.Fake
) -> None:
    peering = found.objects[f"{PEERINGS}/steadyhook-issuers"]
    peering["status"] = {}
    monkeypatch.setattr(time, "sleep", lambda _: peering["status"].update({"issuer-1": record()}))
    code, _, errors = fake.run(monkeypatch, found, *ADOPT)
    assert code == Exit.FINE
    assert "waiting 20 s for an issuer to become active: nobody issues" in errors
    assert len(found.created) == 1


def test_without_the_issuers_rights_it_names_the_role(monkeypatch: pytest.MonkeyPatch, found: fake.Fake) -> None:
    found.allowed = False
    said = refused(monkeypatch, found)
    assert "the issuer's account steadyhook-issuers/steadyhook-issuer may not, in namespace ns: create Secrets," in said
    assert "a Role with its RoleBinding in namespace ns" in said


@pytest.mark.parametrize(("refused_paths", "unchecked"), [
    ({fake.REVIEWS}, "whether ServiceAccount steadyhook-issuers/steadyhook-issuer may write Secrets"),
    ({f"/apis/apps/v1/{kind}" for kind in ("deployments", "daemonsets")} | {"/apis/kopf.dev/v1/kopfpeerings"},
     "whether an issuer is active (you may not list kopfpeerings, deployments, daemonsets"),
])
def test_what_could_not_be_checked_is_said_and_hinders_nothing(
    monkeypatch: pytest.MonkeyPatch, found: fake.Fake, refused_paths: set[str], unchecked: str
) -> None:
    found.refused = refused_paths
    code, _, errors = fake.run(monkeypatch, found, *ADOPT)
    assert code == Exit.FINE
    assert f"not checked: {unchecked}" in errors
    assert len(found.created) == 1


@pytest.mark.parametrize(("annotations", "maker"), [
    ({"cert-manager.io/certificate-name": "hook"}, "cert-manager"), ({}, "another program"),
    ({secrets.READY_MARK: "0" * 64}, "steadyhook itself"),
])
def test_a_secret_that_is_no_listeners_is_refused(
    monkeypatch: pytest.MonkeyPatch, found: fake.Fake, annotations: dict[str, str], maker: str
) -> None:
    found.objects[f"{SECRETS}/hook-tls"]["metadata"]["annotations"] = annotations
    said = refused(monkeypatch, found)
    assert "is no listener's" in said
    assert f"that of {maker}" in said


@pytest.mark.parametrize("spec", [
    {"secretName": "hook-tls"}, {"secretName": "other", "caSecretName": "hook-tls"},
    {"secretName": "other", "caSecretName": "hook-ca", "compatibility": "Dynamiclistener"}, {"secretName": "hook"},
])
def test_a_secret_that_another_certificate_has_is_refused(
    monkeypatch: pytest.MonkeyPatch, found: fake.Fake, spec: dict[str, str]
) -> None:
    found.add(CERTIFICATES, "own", spec=spec)
    assert "belongs to WebhookCertificate own" in refused(monkeypatch, found)


def test_one_that_is_adopted_already_is_waited_for(monkeypatch: pytest.MonkeyPatch, found: fake.Fake) -> None:
    assert fake.run(monkeypatch, found, *ADOPT)[0] == Exit.FINE
    code, output, _ = fake.run(monkeypatch, found, *ADOPT, "--dry-run")
    assert (code, "nothing to create: WebhookCertificate hook has this Secret" in output) == (Exit.FINE, True)
    assert fake.run(monkeypatch, found, *ADOPT)[0] == Exit.FINE
    assert len(found.created) == 1


def test_a_secret_that_is_not_there_is_named(monkeypatch: pytest.MonkeyPatch, found: fake.Fake) -> None:
    assert "there is no Secret nope in namespace ns" in refused(monkeypatch, found, "repair", "adopt", "nope", "--yes")
    del found.objects["/api/v1/namespaces/ns"]
    said = refused(monkeypatch, found, "repair", "adopt", "nope", "--yes")
    assert "in namespace ns, which does not exist itself" in said


def test_nothing_from_the_cluster_acts_on_the_terminal(monkeypatch: pytest.MonkeyPatch, found: fake.Fake) -> None:
    found.objects[f"{PEERINGS}/steadyhook-issuers"]["status"] = {"\x1b[2Jissuer": record()}
    code, output, errors = fake.run(monkeypatch, found, *ADOPT, "--dry-run")
    assert code == Exit.FINE
    assert "\x1b" not in output + errors
    assert "\\x1b[2Jissuer" in errors
