"""What the API server makes of the definitions: rules that need an old object, and a status as full as it can be."""
from typing import Any

import pytest

from core import builders
from devcluster import api, facade
from steadyhook.cluster import paths
from steadyhook.core import bounds, conditions, facts, issuing, policy, reasons

pytestmark = [pytest.mark.cluster, pytest.mark.usefixtures("definitions")]

JsonObject = dict[str, Any]

MERGE = "application/merge-patch+json"
LISTENER = {"compatibility": "Dynamiclistener", "privateKey": {"algorithm": "RSA-2048"}, "duration": "8760h",
            "renewBefore": "2400h", "dnsNames": ["hook.ns.svc"]}


def certificate(**spec: Any) -> JsonObject:
    spec = {"secretName": "one-tls", "dnsNames": ["one.example"], **spec}
    return {"apiVersion": "steadyhook.io/v1alpha1", "kind": "WebhookCertificate", "metadata": {"name": "one"},
            "spec": {key: value for key, value in spec.items() if value is not None}}


def refusal(cluster: facade.DevCluster, namespace: str, manifest: JsonObject) -> str:
    """The one cause for which an object is refused."""
    with pytest.raises(api.ApiError) as caught:
        cluster.request("POST", paths.certificates(namespace), manifest, params={"dryRun": "All"})
    assert caught.value.status == 422
    (cause,) = caught.value.body["details"]["causes"]
    return f"{cause['field']}: {cause['message']}"


@pytest.mark.parametrize("name", ["../../other/secrets/ca", "..", "", "a/b", "A", "a?b", "a..b", "*.a"])
@pytest.mark.parametrize("field", ["authority", "caSecretName", "secretName"])
def test_a_name_that_is_none_is_refused_in_each_field(
    devcluster: facade.DevCluster, namespace: str, field: str, name: str
) -> None:
    spec = {"authority": {"secretName": name}} if field == "authority" else {field: name}
    said = refusal(devcluster, namespace, certificate(**spec))
    where = "spec.authority.secretName" if field == "authority" else f"spec.{field}"
    assert said.startswith(where)
    assert f"{where} is '{name}', expected a DNS subdomain" in said
    with pytest.raises(policy.InvalidSpec) as caught:
        policy.parse(certificate(**spec)["spec"], namespace=namespace, name="one")
    assert caught.value.field == where


@pytest.mark.parametrize("spec", [
    {"authority": {"secretName": "one-tls"}}, {"authority": {"secretName": "one-tls-ca"}},
    {"authority": {"secretName": "mine"}, "caSecretName": "mine"}])
def test_the_ca_of_ones_own_is_in_a_secret_of_its_own(
    devcluster: facade.DevCluster, namespace: str, spec: JsonObject
) -> None:
    said = refusal(devcluster, namespace, certificate(**spec))
    assert "expected another Secret than the two that are written here; put" in said
    with pytest.raises(policy.InvalidSpec, match="another Secret than the two that are written here"):
        policy.parse(certificate(**spec)["spec"], namespace=namespace, name="one")


@pytest.mark.parametrize(("names", "said"), [
    (["*.ns.svc", "hook.ns.svc"], "holds a wildcard"),
    (["hook.ns.svc.cluster.local"], "holds no NAME.NAMESPACE.svc"),
    (["1.ns.svc"], "holds no NAME.NAMESPACE.svc"),
])
def test_names_that_a_dynamiclistener_could_not_be_found_by_are_refused(
    devcluster: facade.DevCluster, namespace: str, names: list[str], said: str
) -> None:
    spec = {**LISTENER, "dnsNames": names}
    assert said in refusal(devcluster, namespace, certificate(**spec))
    with pytest.raises(policy.InvalidSpec) as caught:
        policy.parse(certificate(**spec)["spec"], namespace=namespace, name="one")
    assert caught.value.field == "spec.dnsNames"


@pytest.mark.parametrize("spec", [LISTENER, {**LISTENER, "dnsNames": None, "service": {"name": "hook"}}])
def test_a_dynamiclistener_that_can_be_found_is_accepted(
    devcluster: facade.DevCluster, namespace: str, spec: JsonObject
) -> None:
    devcluster.request("POST", paths.certificates(namespace), certificate(**spec), params={"dryRun": "All"})


@pytest.mark.parametrize(("before", "after", "said"), [
    (LISTENER, {"compatibility": None}, "spec.compatibility was added or taken away"),
    ({**LISTENER, "compatibility": None}, {"compatibility": "Dynamiclistener"},
     "spec.compatibility was added or taken away"),
])
def test_compatibility_is_neither_added_nor_taken_away(
    devcluster: facade.DevCluster, namespace: str, before: JsonObject, after: JsonObject, said: str
) -> None:
    devcluster.request("POST", paths.certificates(namespace), certificate(**before))
    path = paths.certificate(namespace, "one")
    with pytest.raises(api.ApiError, match=said):
        devcluster.request("PATCH", path, {"spec": after}, content_type=MERGE)
    devcluster.request("PATCH", path, {"spec": {"settleSeconds": 3}}, content_type=MERGE)


def full_status() -> JsonObject:
    """Everything that the code can write at once, as long as it can be."""
    old, new = builders.ca("old"), builders.ca("new")
    crowd = tuple(builders.ca(str(number)) for number in range(facts.TAKEOVER_LIMIT + 1))
    held: tuple[JsonObject, ...] = (
        {"entries": (facts.Entry(name="a", trusted=(old,)),)}, {"entries": (facts.Entry(name="a"),)},
        {"entries": (facts.Entry(name="a", trusted=crowd),)}, {"entries": (facts.Entry(name="a", readable=False),)})
    configurations = [
        builders.configuration(name=f"{kind}-{state}-{known}-{number}".lower(), kind=kind, state=state, known=known,
                               **changes)
        for state in facts.ConfigurationState for known in (True, False) for kind in paths.CONFIGURATION_KINDS
        for number, changes in enumerate(held)]
    configurations += [builders.configuration(name=f"{'n' * 240}{number}", state=facts.ConfigurationState.FORBIDDEN)
                       for number in range(bounds.CONFIGURATIONS)]
    seen = facts.Seen(
        leaf=builders.leaf(signer=new, trusted=(old, new)), last_generation=100, last_signer=new.fingerprint,
        authority=builders.authority(old, new, successor=new, switched=True, retired=tuple(
            builders.fingerprint(f"retired {number}") for number in range(999))),
        configurations=tuple(configurations),
        strays=tuple(f"APIService {'s' * 253} asks for the bundle of ns/{number}" for number in range(999)),
        servers=tuple(facts.Server(pod_uid=str(number), name="p" * 253, proof=facts.Proof.UNREACHABLE,
                                   address="10.0.0.1:9502") for number in range(999)))
    wanted = builders.wanted()
    return conditions.status(
        seen=seen, wanted=wanted, decision=issuing.decide(seen, wanted, builders.NOW), previous={},
        acknowledged=conditions.Acknowledged(done=0, total=999), observed_generation=1, now=builders.NOW)


def test_a_status_as_full_as_the_code_can_make_it_is_accepted_and_kept(
    devcluster: facade.DevCluster, namespace: str
) -> None:
    created = devcluster.request("POST", paths.certificates(namespace), certificate())
    status = full_status()
    assert len(status["configurations"]) == bounds.CONFIGURATIONS
    path = paths.certificate(namespace, "one") + "/status"
    kept = devcluster.request("PUT", path, {**created, "status": status}, params={"fieldValidation": "Strict"})
    assert kept["status"] == status


def test_each_state_of_a_configuration_is_accepted(devcluster: facade.DevCluster, namespace: str) -> None:
    created = devcluster.request("POST", paths.certificates(namespace), certificate())
    state = devcluster.request("GET", "/apis/apiextensions.k8s.io/v1/customresourcedefinitions/"
                               "webhookcertificates.steadyhook.io")
    (version,) = state["spec"]["versions"]
    choices = version["schema"]["openAPIV3Schema"]["properties"]["status"]["properties"]["configurations"]["items"][
        "properties"]["state"]["enum"]
    status = {"configurations": [{"uid": str(one), "kind": "APIService", "name": "a", "state": str(one)}
                                 for one in choices]}
    path = paths.certificate(namespace, "one") + "/status"
    kept = devcluster.request("PUT", path, {**created, "status": status}, params={"fieldValidation": "Strict"})
    assert kept["status"] == status
    assert reasons.Reason.READ_ONLY in choices


# ---- what an instance says of itself ----


ENTRY = {"podUID": "0b7c1d3e-1111-2222-3333-444455556666", "podName": "pod-1", "certificate": "cert",
         "phase": "Serving", "since": "2030-01-01T00:00:00Z", "address": "10.0.0.1",
         "fingerprint": "0a" * 32, "reason": "Serving"}


@pytest.fixture
def node(devcluster: facade.DevCluster, namespace: str) -> JsonObject:
    return devcluster.request("POST", paths.manager_nodes(namespace), {
        "apiVersion": "steadyhook.io/v1alpha1", "kind": "ManagerNode", "metadata": {"name": "here"},
        "spec": {"nodeName": "here"}})


@pytest.mark.parametrize("change", [
    {"podName": "a/b"}, {"podName": ".."}, {"podName": ""}, {"podName": "../../secrets"}, {"podName": "a" * 254},
    {"podUID": "a/b"}, {"podUID": ""}, {"address": "evil.example"}, {"address": "10.0.0.1:22"}, {"address": "1" * 46},
    {"fingerprint": "0A" * 32}, {"fingerprint": "0a" * 33}, {"certificate": "a b"}, {"reason": "no reason"},
    {"message": "m" * (bounds.MESSAGE_CHARACTERS + 1)}, {"role": "king"}, {"phase": "Ready"},
])
def test_an_instance_can_not_say_what_is_no_name_and_no_address(
    devcluster: facade.DevCluster, namespace: str, node: JsonObject, change: JsonObject
) -> None:
    path = paths.manager_node(namespace, "here") + "/status"
    good = {**node, "status": {"instances": [ENTRY]}}
    devcluster.request("PUT", path, good, params={"dryRun": "All", "fieldValidation": "Strict"})
    with pytest.raises(api.ApiError) as caught:
        devcluster.request("PUT", path, {**node, "status": {"instances": [{**ENTRY, **change}]}},
                           params={"dryRun": "All", "fieldValidation": "Strict"})
    assert caught.value.status == 422
    assert all(f"status.instances[0].{field}" in str(caught.value) for field in change)


@pytest.mark.parametrize("change", [
    {"podUID": "my-laptop-4711", "podName": "my-laptop-4711", "address": "127.0.0.1"}, {"address": "fd00::1"},
    {"address": "::ffff:10.0.0.1"}, {"podUID": "0123456789abcdef0123456789abcdef"}, {"podName": "a.b-c.d"}])
def test_whatever_an_instance_is_it_can_say_so(
    devcluster: facade.DevCluster, namespace: str, node: JsonObject, change: JsonObject
) -> None:
    entry = {**ENTRY, **change}
    kept = devcluster.request("PUT", paths.manager_node(namespace, "here") + "/status", {
        **node, "status": {"instances": [entry]}}, params={"fieldValidation": "Strict"})
    assert kept["status"]["instances"] == [entry]
