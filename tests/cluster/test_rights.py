"""What an issuer does with its rights, on the real API server: no more than whoever granted them has meant."""
import base64
from collections.abc import Iterator
from typing import Any

import pytest

from cluster import issuers
from devcluster import api, facade
from serving import support
from steadyhook.cluster import client, paths
from steadyhook.pki import certificates, secrets

pytestmark = pytest.mark.cluster

TLS = "kubernetes.io/tls"


@pytest.fixture
def victim(devcluster: facade.DevCluster, namespace: str) -> Iterator[str]:
    """Another tenant's namespace."""
    for (made,) in issuers.namespaces(devcluster, namespace, "victim"):
        yield made


def bundle(configuration: dict[str, Any]) -> str:
    return base64.b64decode(configuration["webhooks"][0]["clientConfig"].get("caBundle", "")).decode()


def authority(issuer: issuers.Issuer, name: str = "mine-tls-ca") -> tuple[str, ...]:
    """The fingerprints in the bundle of a CA Secret."""
    manifest = issuer.secret(issuer.home, name)
    assert manifest is not None
    return tuple(item.fingerprint for item in secrets.read_authority(manifest).bundle)


def fingerprint(pem: str) -> str:
    return certificates.parse(pem.encode())[0].fingerprint


class WithSpec(client.Cluster):
    """As if an older definition had let this through."""

    def __init__(self, **spec: Any) -> None:
        super().__init__()
        self._spec = spec

    async def find(self, path: str) -> client.Manifest | None:
        manifest = await super().find(path)
        if manifest is None or manifest.get("kind") != "WebhookCertificate":
            return manifest
        return {**manifest, "spec": {**manifest["spec"], **self._spec}}


def test_a_tenant_does_not_reach_the_ca_key_of_another_one(
    issuer: issuers.Issuer, devcluster: facade.DevCluster, victim: str
) -> None:
    tenant = issuer.home
    issuer.grant(victim, ("victim-tls", "victim-ca"))
    issuer.grant(tenant, ("mine-tls", "mine-tls-ca"))
    issuer.grant_everywhere()
    pem, key = support.Authority().issue()
    devcluster.request("POST", paths.secrets(victim), {
        "metadata": {"name": "victim-ca"}, "type": TLS,
        "data": {"tls.crt": base64.b64encode(pem).decode(), "tls.key": base64.b64encode(key).decode()}})
    attack = {"authority": {"secretName": f"../../{victim}/secrets/victim-ca"}}
    with pytest.raises(Exception, match=r"spec\.authority\.secretName is '\.\./\.\./.*', expected a DNS subdomain"):
        issuer.certify(tenant, "mine", secretName="mine-tls", **attack)
    issuer.certify(tenant, "mine", secretName="mine-tls")
    since = devcluster.audit.position()
    with issuer.run(tenant, "mine", "mine-tls", everywhere=True, make=lambda: WithSpec(**attack)):
        message = issuer.wait_for_condition(tenant, "mine", "Ready", "False", "InvalidSpec")
    assert "spec.authority.secretName" in message
    assert issuer.secret(tenant, "mine-tls-ca") is None
    assert devcluster.audit.count(user=issuer.user, namespace=victim, since=since) == 0
    assert devcluster.audit.count(user=issuer.user, since=since) > 0


def test_who_may_annotate_an_object_brings_in_a_ca_only_if_the_issuer_may_write_it(issuer: issuers.Issuer) -> None:
    home = issuer.home
    platform, tenants, new = f"{home}-platform", f"{home}-tenants", f"{home}-new"
    issuer.grant(home, ("mine-tls", "mine-tls-ca"))
    issuer.grant_everywhere(platform, new)
    mine, former, foreign = f"{home}/mine", support.Authority().pem, support.Authority().pem
    encoded = {pem: base64.b64encode(pem.encode()).decode() for pem in (former, foreign)}
    issuer.create(issuers.WEBHOOKS, issuers.webhook(platform, mine, ca_bundle=encoded[former]))
    issuer.create(issuers.WEBHOOKS, issuers.webhook(new, mine))
    issuer.create(issuers.WEBHOOKS, issuers.webhook(tenants, mine, ca_bundle=encoded[foreign]))
    issuer.certify(home, "mine", secretName="mine-tls")
    with issuer.run(home, "mine", "mine-tls"):
        message = issuer.wait_for_condition(home, "mine", "Injected", "False", "Forbidden")
        issuer.wait_for_condition(home, "mine", "Ready", "True", "UpToDate")
    assert f"{tenants} may not be patched" in message
    states = {item["name"]: item["state"] for item in issuer.status(home, "mine")["configurations"]}
    assert states == {platform: "Injected", new: "Injected", tenants: "Forbidden"}
    trusted = authority(issuer)
    assert fingerprint(former) in trusted  # a webhook that works is taken over
    assert fingerprint(foreign) not in trusted
    for name in (platform, new):
        injected = bundle(issuer.cluster.request("GET", f"{issuers.WEBHOOKS}/{name}"))
        assert former in injected
        assert foreign not in injected
    assert bundle(issuer.cluster.request("GET", f"{issuers.WEBHOOKS}/{tenants}")) == foreign


def test_a_trial_leaves_no_trace(issuer: issuers.Issuer, devcluster: facade.DevCluster) -> None:
    home = issuer.home
    name = f"{home}-one"
    issuer.grant(home, ("mine-tls", "mine-tls-ca"))
    issuer.grant_everywhere(name)
    issuer.create(issuers.WEBHOOKS, issuers.webhook(name, f"{home}/mine"))
    issuer.certify(home, "mine", secretName="mine-tls")
    since = devcluster.audit.position()
    with issuer.run(home, "mine", "mine-tls"):
        issuer.wait_for_condition(home, "mine", "Injected", "True", "Injected")

    def patches() -> list[bool]:
        found = devcluster.audit.select(user=issuer.user, resource="validatingwebhookconfigurations", verb="patch",
                                        since=since)
        return ["dryRun=All" in event["requestURI"] for event in found]

    devcluster.wait_for(lambda: patches() == [True, False], 10, "one trial and one patch in the audit log")
    managers = issuer.cluster.request("GET", f"{issuers.WEBHOOKS}/{name}")["metadata"]["managedFields"]
    assert [item["manager"] for item in managers if item["manager"] == "steadyhook"] == ["steadyhook"]


def guard(issuer: issuers.Issuer, name: str) -> None:
    """An admission policy of somebody's that lets nobody change one webhook configuration, in force."""
    admission = "/apis/admissionregistration.k8s.io/v1"
    issuer.create(f"{admission}/validatingadmissionpolicies", {"metadata": {"name": name}, "spec": {
        "failurePolicy": "Fail",
        "matchConstraints": {"resourceRules": [{
            "apiGroups": ["admissionregistration.k8s.io"], "apiVersions": ["*"], "operations": ["UPDATE"],
            "resources": ["validatingwebhookconfigurations"], "resourceNames": [name]}]},
        "validations": [{"expression": "false", "message": "the platform team alone writes this"}]}})
    issuer.create(f"{admission}/validatingadmissionpolicybindings", {
        "metadata": {"name": name}, "spec": {"policyName": name, "validationActions": ["Deny"]}})

    def is_in_force() -> bool:
        try:
            issuer.cluster.request("PATCH", f"{issuers.WEBHOOKS}/{name}", {"metadata": {"labels": {"tried": "1"}}},
                                   content_type=issuers.MERGE, params={"dryRun": "All"})
        except api.ApiError as error:
            return "the platform team alone writes this" in str(error)
        return False

    issuer.cluster.wait_for(is_in_force, 30, "the policy to be in force")


def test_a_refusal_by_an_admission_policy_is_told_apart_and_nothing_is_taken_over(issuer: issuers.Issuer) -> None:
    home = issuer.home
    guarded, other = f"{home}-guarded", f"{home}-other"
    issuer.grant(home, ("mine-tls", "mine-tls-ca"))
    issuer.grant_everywhere(guarded, other)
    foreign = support.Authority().pem
    issuer.create(issuers.WEBHOOKS, issuers.webhook(
        guarded, f"{home}/mine", ca_bundle=base64.b64encode(foreign.encode()).decode()))
    issuer.create(issuers.WEBHOOKS, issuers.webhook(other, f"{home}/mine"))
    guard(issuer, guarded)
    issuer.certify(home, "mine", secretName="mine-tls")
    with issuer.run(home, "mine", "mine-tls"):
        message = issuer.wait_for_condition(home, "mine", "Injected", "False", "Rejected")
        issuer.wait_for_condition(home, "mine", "Ready", "True", "UpToDate")
    assert "admission policy" in message and "ClusterRole" not in message
    assert fingerprint(foreign) not in authority(issuer)
    told = [item["message"] for item in issuer.cluster.request("GET", paths.events(home))["items"]
            if item["reason"] == "Rejected"]
    assert any("the platform team alone writes this" in item for item in told)
    assert {item["name"]: item["state"] for item in issuer.status(home, "mine")["configurations"]} == {
        guarded: "Rejected", other: "Injected"}


def test_a_malformed_annotation_on_any_object_stops_nothing(issuer: issuers.Issuer) -> None:
    home = issuer.home
    good = f"{home}-good"
    issuer.grant(home, ("mine-tls", "mine-tls-ca"))
    issuer.grant_everywhere(good)
    issuer.create(issuers.WEBHOOKS, issuers.webhook(good, f"{home}/mine"))
    for number, asked in enumerate(("mine/status", "x?watch=true", "../../secrets", "")):
        issuer.create(issuers.WEBHOOKS, issuers.webhook(f"{home}-bad-{number}", f"{home}/{asked}"))
    issuer.certify(home, "mine", secretName="mine-tls")
    with issuer.run(home, "mine", "mine-tls"):
        issuer.wait_for_condition(home, "mine", "Ready", "True", "UpToDate")
        message = issuer.wait_for_condition(home, "mine", "Degraded", "True", "NoSuchCertificate")
        issuer.wait_for_condition(home, "mine", "Injected", "True", "Injected")
    assert f"asks for the bundle of {home}/mine/status" in message


def test_not_knowing_who_serves_holds_back_the_end_of_a_rotation_and_nothing_else(issuer: issuers.Issuer) -> None:
    home = issuer.home
    issuer.grant(home, ("mine-tls", "mine-tls-ca"), without=("endpointslices",))
    issuer.grant_everywhere()
    issuer.certify(home, "mine", secretName="mine-tls")
    with issuer.run(home, "mine", "mine-tls") as running:
        issuer.wait_for_condition(home, "mine", "Ready", "True", "UpToDate")
        former = authority(issuer)
        issuer.cluster.request("PATCH", paths.certificate(home, "mine"), {
            "metadata": {"annotations": {"steadyhook.io/rotate-ca": "now"}}}, content_type=issuers.MERGE)
        running.wake()
        message = issuer.wait_for_condition(home, "mine", "Degraded", "True", "ServersUnknown")
        assert "list endpointslices" in message and home in message
        assert issuer.status(home, "mine")["rotation"]["phase"] == "Acknowledging"
        before = issuer.status(home, "mine")["generation"]
        issuer.cluster.request("DELETE", paths.secret(home, "mine-tls"))
        running.wake()
        issuer.cluster.wait_for(lambda: issuer.status(home, "mine")["generation"] > before, 30, "the leaf to be issued")
        assert set(authority(issuer)) > set(former)
        issuer.grant(home, ("mine-tls", "mine-tls-ca"))
        running.wake()
        issuer.wait_for_condition(home, "mine", "Rotating", "False", "NotRotating")
    assert not set(authority(issuer)) & set(former)


def test_of_two_certificates_with_one_ca_secret_the_younger_one_is_refused(issuer: issuers.Issuer) -> None:
    home = issuer.home
    issuer.grant(home, ("mine-tls", "shared"))
    issuer.grant_everywhere()
    issuer.certify(home, "other", secretName="other-tls", caSecretName="shared")
    # The age of an object is told in whole seconds; of two of one age the name decides, and "mine" is before "other".
    issuer.cluster.wait_for(lambda: issuer.certify(
        home, "mine", secretName="mine-tls", caSecretName="shared")["metadata"]["creationTimestamp"] and True, 5)
    older = issuer.cluster.request("GET", paths.certificate(home, "other"))["metadata"]["creationTimestamp"]
    while issuer.cluster.request("GET", paths.certificate(home, "mine"))["metadata"]["creationTimestamp"] == older:
        issuer.cluster.request("DELETE", paths.certificate(home, "mine"))
        issuer.certify(home, "mine", secretName="mine-tls", caSecretName="shared")
    with issuer.run(home, "mine", "mine-tls"):
        message = issuer.wait_for_condition(home, "mine", "Ready", "False", "InvalidSpec")
    assert "spec.caSecretName is 'shared'" in message and "WebhookCertificate other" in message
    assert issuer.secret(home, "shared") is None


def test_a_configuration_that_calls_by_a_name_that_was_dropped_is_told(issuer: issuers.Issuer) -> None:
    home = issuer.home
    late = f"{home}-late"
    issuer.grant(home, ("mine-tls", "mine-tls-ca"))
    issuer.grant_everywhere(late)
    issuer.create(issuers.WEBHOOKS, issuers.webhook(late, f"{home}/mine", service="former"))
    issuer.certify(home, "mine", secretName="mine-tls", dnsNames=[f"former.{home}.svc"])
    with issuer.run(home, "mine", "mine-tls") as running:
        issuer.wait_for_condition(home, "mine", "Degraded", "False", "AsExpected")
        issuer.cluster.request("PATCH", paths.certificate(home, "mine"), {"spec": {"dnsNames": []}},
                               content_type=issuers.MERGE)
        running.wake()
        message = issuer.wait_for_condition(home, "mine", "Degraded", "True", "NameStillCalled")
    assert f"ValidatingWebhookConfiguration {late} calls former.{home}.svc" in message


def test_a_secret_that_a_finalizer_keeps_is_told_and_not_deleted_again_and_again(
    issuer: issuers.Issuer, devcluster: facade.DevCluster
) -> None:
    home = issuer.home
    issuer.grant(home, ("mine-tls", "mine-tls-ca"))
    issuer.grant_everywhere()
    devcluster.request("POST", paths.secrets(home), {
        "type": "Opaque", "metadata": {"name": "mine-tls", "finalizers": ["example.io/keep"],
                                       "labels": {"app.kubernetes.io/managed-by": "steadyhook"}}})
    issuer.certify(home, "mine", secretName="mine-tls")
    since = devcluster.audit.position()
    with issuer.run(home, "mine", "mine-tls"):
        devcluster.wait_for(lambda: devcluster.audit.count(
            user=issuer.user, resource="secrets", verb="create", code=409, since=since) >= 1, 30, "a create refused")
        devcluster.request("PATCH", paths.secret(home, "mine-tls"), {"metadata": {"finalizers": None}},
                           content_type=issuers.MERGE)
        issuer.wait_for_condition(home, "mine", "Ready", "True", "UpToDate")
    deletes = devcluster.audit.count(user=issuer.user, resource="secrets", verb="delete", since=since)
    assert 1 <= deletes <= 3
