"""The manifests: what kustomize renders from them, and what a real API server makes of them."""
import copy
import dataclasses
import datetime
import importlib.util
import json
import pathlib
import re
import ssl
import subprocess
import tomllib
import urllib.error
import urllib.request
from collections.abc import Iterator
from typing import Any

import kopf
import pytest
import yaml

from devcluster import api, binaries, facade
from steadyhook import settings
from steadyhook.core import election, policy, reasons, reporting, serving

Manifest = dict[str, Any]

ROOT = pathlib.Path(__file__).parent.parent
MANIFESTS = ROOT / "manifests"
LAYOUTS = ("manager", "split")
OVERLAYS = (*LAYOUTS, "dev")
APPLICATIONS = {"longhorn": "longhorn-system", "rancher": "cattle-system"}
NAMESPACE = "steadyhook-system"
LEAF = "steadyhook-webhook-tls"
AUTHORITY = f"{LEAF}-ca"
CLUSTER_SCOPED = {
    "ClusterRole", "ClusterRoleBinding", "CustomResourceDefinition", "MutatingWebhookConfiguration", "Namespace",
    "ValidatingAdmissionPolicy", "ValidatingAdmissionPolicyBinding", "ValidatingWebhookConfiguration",
}
DOWNWARD = {"POD_NAME", "POD_UID", "POD_NAMESPACE", "POD_IP", "NODE_NAME"}


@pytest.fixture(scope="session")
def rendered() -> dict[str, list[Manifest]]:
    """The objects of each overlay, and of "crds", as `kubectl kustomize` renders them."""
    kubectl = binaries.present().get("kubectl")
    if kubectl is None:
        pytest.skip("there is no kubectl yet to render the manifests with; make test builds it")
    folders = {"crds": MANIFESTS / "crds", **{overlay: MANIFESTS / "overlays" / overlay for overlay in (
        *OVERLAYS, "issuer", *APPLICATIONS)}}
    return {name: list(yaml.safe_load_all(_kustomize(kubectl, folder))) for name, folder in folders.items()}


def _kustomize(kubectl: pathlib.Path, folder: pathlib.Path) -> str:
    line = [str(kubectl), "kustomize", str(folder)]
    return subprocess.run(line, capture_output=True, text=True, timeout=60, check=True).stdout


def of_kind(objects: list[Manifest], *kinds: str) -> list[Manifest]:
    return [item for item in objects if item["kind"] in kinds]


def named(objects: list[Manifest], kind: str, name: str) -> Manifest:
    (found,) = [item for item in of_kind(objects, kind) if item["metadata"]["name"] == name]
    return found


def workloads(objects: list[Manifest]) -> list[Manifest]:
    return of_kind(objects, "DaemonSet", "Deployment")


def all_workloads(rendered: dict[str, list[Manifest]]) -> list[Manifest]:
    return [item for overlay in OVERLAYS for item in workloads(rendered[overlay])]


def rules(objects: list[Manifest]) -> list[Manifest]:
    return [rule for item in of_kind(objects, "Role", "ClusterRole") for rule in item["rules"]]


# ---- what each overlay holds ----


@pytest.mark.parametrize(("overlay", "programs"), [
    ("manager", {("DaemonSet", "steadyhook-manager")}),
    ("split", {("DaemonSet", "steadyhook-server"), ("Deployment", "steadyhook-issuer")}),
    ("dev", set()),
])
def test_each_overlay_runs_the_programs_of_its_layout(
    rendered: dict[str, list[Manifest]], overlay: str, programs: set[tuple[str, str]]
) -> None:
    assert {(item["kind"], item["metadata"]["name"]) for item in workloads(rendered[overlay])} == programs
    for kind in ("WebhookCertificate", "KopfPeering", "Namespace"):
        assert len(of_kind(rendered[overlay], kind)) == 1
    # They outlive the program: whoever deletes them deletes every certificate, and every peering of kopf operators.
    assert of_kind(rendered[overlay], "CustomResourceDefinition") == []


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_only_what_has_a_namespace_is_given_one_and_it_is_always_the_same(
    rendered: dict[str, list[Manifest]], overlay: str
) -> None:
    for item in rendered[overlay]:
        expected = None if item["kind"] in CLUSTER_SCOPED else NAMESPACE
        assert item["metadata"].get("namespace") == expected, item["metadata"]["name"]


@pytest.mark.parametrize("overlay", [*OVERLAYS, "crds"])
def test_everything_but_the_definition_of_kopf_carries_our_label_and_nothing_a_finalizer(
    rendered: dict[str, list[Manifest]], overlay: str
) -> None:
    for item in rendered[overlay]:
        ours = not item["metadata"]["name"].endswith(".kopf.dev")
        label = item["metadata"].get("labels", {}).get("app.kubernetes.io/name")
        assert label == ("steadyhook" if ours else None), item["metadata"]["name"]
        assert "finalizers" not in item["metadata"]


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_the_namespace_enforces_the_restricted_pod_security_standard(
    rendered: dict[str, list[Manifest]], overlay: str
) -> None:
    labels = named(rendered[overlay], "Namespace", NAMESPACE)["metadata"]["labels"]
    assert labels["pod-security.kubernetes.io/enforce"] == "restricted"


@pytest.mark.parametrize(("overlay", "namespace"), APPLICATIONS.items())
def test_an_application_gets_a_role_and_a_certificate_and_keeps_its_namespace_when_they_are_deleted(
    rendered: dict[str, list[Manifest]], overlay: str, namespace: str
) -> None:
    theirs = [item for item in rendered[overlay] if item["metadata"].get("namespace") == namespace]
    assert sorted(item["kind"] for item in theirs) == ["Role", "RoleBinding", "WebhookCertificate"]
    assert [item["metadata"]["name"] for item in of_kind(rendered[overlay], "Namespace")] == [NAMESPACE]
    (certificate,) = of_kind(theirs, "WebhookCertificate")
    wanted = policy.parse(certificate["spec"], namespace=namespace, name=certificate["metadata"]["name"])
    assert wanted.compatibility is policy.Compatibility.DYNAMICLISTENER
    named_secrets = [rule["resourceNames"] for rule in rules(theirs)
                     if rule["resources"] == ["secrets"] and rule["verbs"] != ["create"]]
    assert named_secrets == [[wanted.secret_name, wanted.authority_secret_name]]


def test_issuers_for_others_have_no_right_to_any_secret_of_their_own_accord(
    rendered: dict[str, list[Manifest]]
) -> None:
    assert of_kind(rendered["issuer"], "WebhookCertificate") == []
    assert not any("secrets" in rule["resources"] for rule in rules(rendered["issuer"]))
    (deployment,) = workloads(rendered["issuer"])
    environment = deployment["spec"]["template"]["spec"]["containers"][0]["env"]
    assert {"name": "STEADYHOOK_CERTIFICATES", "value": "all"} in environment


# ---- pods ----


def test_every_container_is_restricted(rendered: dict[str, list[Manifest]]) -> None:
    for item in all_workloads(rendered):
        pod = item["spec"]["template"]["spec"]
        assert pod["securityContext"]["runAsNonRoot"] is True
        assert pod["securityContext"]["runAsUser"] > 0
        assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
        assert not {"hostNetwork", "hostPID", "hostIPC", "initContainers"} & set(pod)
        for container in pod["containers"]:
            assert container["securityContext"] == {
                "allowPrivilegeEscalation": False,
                "readOnlyRootFilesystem": True,
                "capabilities": {"drop": ["ALL"]},
            }
            assert {"cpu", "memory"} <= set(container["resources"]["requests"])
            assert set(container["resources"]["limits"]) == {"memory"}


def test_nothing_that_a_pod_may_write_is_on_a_disk(rendered: dict[str, list[Manifest]]) -> None:
    for item in all_workloads(rendered):
        for volume in item["spec"]["template"]["spec"]["volumes"]:
            assert volume["emptyDir"]["medium"] == "Memory"


def test_every_container_can_be_probed_at_ports_that_it_names(rendered: dict[str, list[Manifest]]) -> None:
    for item in all_workloads(rendered):
        (container,) = item["spec"]["template"]["spec"]["containers"]
        ports = {port["name"] for port in container["ports"]}
        for probe in ("startupProbe", "livenessProbe", "readinessProbe"):
            assert container[probe]["httpGet"]["port"] in ports


def test_servers_run_on_every_node_and_a_new_one_is_ready_before_the_old_one_goes(
    rendered: dict[str, list[Manifest]]
) -> None:
    for item in all_workloads(rendered):
        if item["kind"] == "DaemonSet":
            assert item["spec"]["template"]["spec"]["tolerations"] == [{"operator": "Exists"}]
            assert item["spec"]["updateStrategy"]["rollingUpdate"] == {"maxSurge": "10%", "maxUnavailable": 0}


def test_the_image_and_the_version_label_are_those_of_the_project(rendered: dict[str, list[Manifest]]) -> None:
    version = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    for item in all_workloads(rendered):
        template = item["spec"]["template"]
        assert template["metadata"]["labels"]["app.kubernetes.io/version"] == version
        assert [container["image"] for container in template["spec"]["containers"]] == [f"steadyhook:{version}"]


def test_every_module_in_a_command_exists(rendered: dict[str, list[Manifest]]) -> None:
    for item in all_workloads(rendered):
        (container,) = item["spec"]["template"]["spec"]["containers"]
        assert container["command"] == ["kopf", "run"]
        modules = [word.removeprefix("--module=") for word in container["args"] if word.startswith("--module=")]
        assert modules
        assert all(importlib.util.find_spec(module) for module in modules)


def test_every_environment_variable_is_one_that_the_settings_read(rendered: dict[str, list[Manifest]]) -> None:
    known = set(re.findall(r'"((?:STEADYHOOK|POD|NODE)_[A-Z_]+)"', pathlib.Path(settings.__file__).read_text()))
    for item in all_workloads(rendered):
        (container,) = item["spec"]["template"]["spec"]["containers"]
        names = {variable["name"] for variable in container["env"]}
        assert names >= DOWNWARD
        assert names <= known, f"unknown to steadyhook.settings: {names - known}"


def test_the_settings_of_a_pod_name_the_objects_of_the_same_overlay(rendered: dict[str, list[Manifest]]) -> None:
    for layout in LAYOUTS:
        certificate = named(rendered[layout], "WebhookCertificate", "steadyhook-webhook")
        service = named(rendered[layout], "Service", certificate["spec"]["service"]["name"])
        for item in workloads(rendered[layout]):
            (container,) = item["spec"]["template"]["spec"]["containers"]
            values = {variable["name"]: variable.get("value", "set") for variable in container["env"]}
            loaded = settings.load(values | {"POD_NAMESPACE": NAMESPACE})
            assert loaded.certificate == certificate["metadata"]["name"]
            assert loaded.secret_name == certificate["spec"]["secretName"] == LEAF
            assert loaded.service_dns_name == f"{service['metadata']['name']}.{NAMESPACE}.svc"
            ports = {port["name"]: port["containerPort"] for port in container["ports"]}
            assert ports.get("webhook", loaded.webhook_port) == loaded.webhook_port
            assert ports["health"] == loaded.health_port
        (allowed,) = named(rendered[layout], "NetworkPolicy", "steadyhook-serving")["spec"]["ingress"]
        assert {port["port"] for port in allowed["ports"]} == {loaded.webhook_port, loaded.health_port}


def test_the_two_daemon_sets_differ_in_nothing_but_the_role(rendered: dict[str, list[Manifest]]) -> None:
    manager = named(rendered["manager"], "DaemonSet", "steadyhook-manager")
    server = named(rendered["split"], "DaemonSet", "steadyhook-server")
    arguments = [item["spec"]["template"]["spec"]["containers"][0].pop("args") for item in map(
        copy.deepcopy, (manager, server))]
    assert arguments == [
        ["--module=steadyhook.manager", "--module=steadyhook.example", "--peering=steadyhook",
         "--namespace=$(POD_NAMESPACE)"],
        ["--module=steadyhook.server", "--module=steadyhook.example", "--standalone", "--namespace=$(POD_NAMESPACE)"],
    ]
    for item in (one := copy.deepcopy(manager), other := copy.deepcopy(server)):
        del item["spec"]["template"]["spec"]["containers"][0]["args"]
    assert one == json.loads(re.sub(r"(?<=steadyhook-)server\b|(?<=\")server(?=\")", "manager", json.dumps(other)))


@pytest.mark.parametrize("layout", LAYOUTS)
def test_services_budgets_and_network_policies_select_pods_that_exist(
    rendered: dict[str, list[Manifest]], layout: str
) -> None:
    labels = [item["spec"]["template"]["metadata"]["labels"] for item in workloads(rendered[layout])]
    selectors = [item["spec"]["selector"] for item in of_kind(rendered[layout], "Service")]
    selectors += [item["spec"]["selector"]["matchLabels"] for item in of_kind(rendered[layout], "PodDisruptionBudget")]
    selectors += [item["spec"]["podSelector"]["matchLabels"] for item in of_kind(rendered[layout], "NetworkPolicy")]
    for selector in selectors:
        assert len([one for one in labels if selector.items() <= one.items()]) == 1, selector


# ---- rights ----


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_no_right_is_given_by_wildcard(rendered: dict[str, list[Manifest]], overlay: str) -> None:
    for rule in rules(rendered[overlay]):
        assert not [word for field in ("apiGroups", "resources", "verbs") for word in rule[field] if "*" in word]


@pytest.mark.parametrize("layout", LAYOUTS)
def test_secrets_are_read_and_changed_by_name_alone(rendered: dict[str, list[Manifest]], layout: str) -> None:
    for item in of_kind(rendered[layout], "Role", "ClusterRole"):
        for rule in item["rules"]:
            if "secrets" in rule["resources"]:
                assert item["kind"] == "Role"
                assert rule["resources"] == ["secrets"]
                assert rule["verbs"] == ["create"] or set(rule["resourceNames"]) <= {LEAF, AUTHORITY}


def test_only_the_issuing_half_has_a_right_to_the_secret_of_the_ca(rendered: dict[str, list[Manifest]]) -> None:
    for layout in LAYOUTS:
        holders = {item["metadata"]["name"] for item in of_kind(rendered[layout], "Role")
                   if any(AUTHORITY in rule.get("resourceNames", ()) for rule in item["rules"])}
        assert holders == {"steadyhook-issuing"}
    bound = {subject["name"] for item in of_kind(rendered["split"], "RoleBinding", "ClusterRoleBinding")
             if item["roleRef"]["name"] == "steadyhook-issuing" for subject in item["subjects"]}
    assert bound == {"steadyhook-issuer"}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_the_webhook_configurations_that_may_be_patched_are_named_and_ask_for_it(
    rendered: dict[str, list[Manifest]], layout: str
) -> None:
    certificate = of_kind(rendered[layout], "WebhookCertificate")[0]["metadata"]
    patched = {name for rule in rules(rendered[layout])
               if "validatingwebhookconfigurations" in rule["resources"] and "patch" in rule["verbs"]
               for name in rule["resourceNames"]}
    configurations = of_kind(
        rendered[layout], "ValidatingWebhookConfiguration", "MutatingWebhookConfiguration")
    assert {item["metadata"]["name"] for item in configurations} == patched
    for item in configurations:
        wanted = item["metadata"]["annotations"]["steadyhook.io/inject-ca-from"]
        assert wanted == f"{certificate['namespace']}/{certificate['name']}"


@pytest.mark.parametrize("layout", LAYOUTS)
def test_every_binding_is_of_a_role_and_an_account_that_exist(
    rendered: dict[str, list[Manifest]], layout: str
) -> None:
    used = set()
    for item in of_kind(rendered[layout], "RoleBinding", "ClusterRoleBinding"):
        assert named(rendered[layout], item["roleRef"]["kind"], item["roleRef"]["name"])
        (subject,) = item["subjects"]
        assert named(rendered[layout], "ServiceAccount", subject["name"])["metadata"]["namespace"] == NAMESPACE
        used.add(subject["name"])
    programs = {item["spec"]["template"]["spec"]["serviceAccountName"] for item in workloads(rendered[layout])}
    assert used == programs == {item["metadata"]["name"] for item in of_kind(rendered[layout], "ServiceAccount")}


# ---- the example's webhooks ----


def example_webhooks(rendered: dict[str, list[Manifest]]) -> list[tuple[str, Manifest]]:
    return [(item["kind"], webhook) for layout in LAYOUTS for item in of_kind(
        rendered[layout], "ValidatingWebhookConfiguration", "MutatingWebhookConfiguration")
        for webhook in item["webhooks"]]


def test_no_instance_is_behind_its_own_webhook(rendered: dict[str, list[Manifest]]) -> None:
    for _, webhook in example_webhooks(rendered):
        selector = webhook["namespaceSelector"]
        assert selector["matchLabels"] == {"steadyhook.io/example": "enabled"}
        excluded = {"key": "kubernetes.io/metadata.name", "operator": "NotIn", "values": [NAMESPACE]}
        assert excluded in selector["matchExpressions"]
        assert {resource for rule in webhook["rules"] for resource in rule["resources"]} == {"configmaps"}


def test_what_validates_fails_closed_and_what_sets_defaults_fails_open(
    rendered: dict[str, list[Manifest]]
) -> None:
    for kind, webhook in example_webhooks(rendered):
        assert webhook["failurePolicy"] == ("Fail" if kind.startswith("Validating") else "Ignore")
        assert webhook["timeoutSeconds"] <= 5
        assert webhook["sideEffects"] == "None"


def test_each_webhook_calls_the_one_handler_of_its_kind(rendered: dict[str, list[Manifest]]) -> None:
    from steadyhook import example  # noqa: F401  # registers its handlers

    known = {(handler.reason.value, handler.id) for handler in kopf.get_default_registry()._webhooks.get_all_handlers()}
    for kind, webhook in example_webhooks(rendered):
        handler = webhook["clientConfig"]["service"]["path"].removeprefix("/")
        assert (kind.removesuffix("WebhookConfiguration").lower(), handler) in known


def test_each_webhook_is_called_through_the_service(rendered: dict[str, list[Manifest]]) -> None:
    for layout in LAYOUTS:
        service = named(rendered[layout], "Service", "steadyhook-webhook")
        for _, webhook in example_webhooks({"manager": rendered[layout], "split": []}):
            called = webhook["clientConfig"]["service"]
            assert (called["namespace"], called["name"]) == (NAMESPACE, service["metadata"]["name"])
            assert called["port"] in [port["port"] for port in service["spec"]["ports"]]


# ---- definitions ----


def schema(rendered: dict[str, list[Manifest]], name: str) -> Manifest:
    definition = named(rendered["crds"], "CustomResourceDefinition", name)
    (version,) = definition["spec"]["versions"]
    return dict(version["schema"]["openAPIV3Schema"])


def fields(node: Manifest, path: str) -> Iterator[tuple[str, Manifest]]:
    yield path, node
    for name, child in node.get("properties", {}).items():
        yield from fields(child, f"{path}.{name}")
    if "items" in node:
        yield from fields(node["items"], f"{path}[]")


def test_every_field_has_a_description(rendered: dict[str, list[Manifest]]) -> None:
    for definition in of_kind(rendered["crds"], "CustomResourceDefinition"):
        name = definition["metadata"]["name"]
        # The API server allows nothing about metadata but its type.
        bare = [path for path, node in fields(schema(rendered, name), name)
                if not node.get("description") and path != f"{name}.metadata"]
        assert bare == []


def test_every_rule_of_a_field_has_a_message_that_begins_with_the_field(
    rendered: dict[str, list[Manifest]]
) -> None:
    for definition in of_kind(rendered["crds"], "CustomResourceDefinition"):
        for _, node in fields(schema(rendered, definition["metadata"]["name"]), ""):
            for rule in node.get("x-kubernetes-validations", ()):
                assert rule["message"].startswith("spec.")
                assert rule.get("messageExpression", '"spec.').startswith('"spec.')


@pytest.mark.parametrize("name", ["webhookcertificates.steadyhook.io", "managernodes.steadyhook.io"])
def test_our_definitions_have_a_status_columns_and_a_short_name(
    rendered: dict[str, list[Manifest]], name: str
) -> None:
    spec = named(rendered["crds"], "CustomResourceDefinition", name)["spec"]
    (version,) = spec["versions"]
    assert spec["scope"] == "Namespaced"
    assert spec["names"]["shortNames"] == [{"w": "whcert", "m": "mnode"}[name[0]]]
    assert version["subresources"] == {"status": {}}
    assert version["additionalPrinterColumns"][-1]["name"] == "Age"


def test_defaults_and_choices_are_those_of_the_code(rendered: dict[str, list[Manifest]]) -> None:
    spec = schema(rendered, "webhookcertificates.steadyhook.io")["properties"]["spec"]["properties"]
    assert {name: spec[name]["default"] for name in policy.DEFAULT_DURATIONS} == policy.DEFAULT_DURATIONS
    assert spec["privateKey"]["properties"]["algorithm"]["enum"] == list(policy.KeyAlgorithm)
    (instance,) = [node for path, node in fields(schema(rendered, "managernodes.steadyhook.io"), "")
                   if path == ".status.instances[]"]
    assert instance["properties"]["phase"]["enum"] == list(serving.Phase)
    assert instance["properties"]["role"]["enum"] == list(election.Role)
    status = schema(rendered, "webhookcertificates.steadyhook.io")["properties"]["status"]["properties"]
    assert status["configurations"]["items"]["properties"]["ours"] == {
        **status["configurations"]["items"]["properties"]["ours"], "type": "boolean"}


# ---- a real API server ----

WORDS = ("expected", ";")  # a message tells what was expected, and after a semicolon what to do
CERTIFICATES = f"/apis/steadyhook.io/v1alpha1/namespaces/{NAMESPACE}/webhookcertificates"
MANAGER_NODES = f"/apis/steadyhook.io/v1alpha1/namespaces/{NAMESPACE}/managernodes"
SECRETS = f"/api/v1/namespaces/{NAMESPACE}/secrets"
DEFINITIONS = [f"crd/{name}" for name in (
    "kopfpeerings.kopf.dev", "managernodes.steadyhook.io", "webhookcertificates.steadyhook.io")]
MERGE = "application/merge-patch+json"


@pytest.fixture(scope="module")
def installed(devcluster: facade.DevCluster) -> Iterator[facade.DevCluster]:
    """Both layouts in a cluster without nodes: all their objects, and no process."""
    devcluster.kubectl("apply", "-k", str(MANIFESTS / "crds"))
    devcluster.kubectl("wait", "--for=condition=Established", *DEFINITIONS, "--timeout=30s")
    for layout in LAYOUTS:
        devcluster.kubectl("apply", "-k", str(MANIFESTS / "overlays" / layout))
    yield devcluster
    for layout in LAYOUTS:
        devcluster.kubectl("delete", "-k", str(MANIFESTS / "overlays" / layout), "--ignore-not-found")


def certificate(**spec: Any) -> Manifest:
    spec = {"secretName": "one-tls", "dnsNames": ["one.example"], **spec}
    return {"apiVersion": "steadyhook.io/v1alpha1", "kind": "WebhookCertificate", "metadata": {"name": "one"},
            "spec": {name: value for name, value in spec.items() if value is not None}}


def try_create(cluster: facade.DevCluster, manifest: Manifest) -> Manifest:
    return cluster.request("POST", CERTIFICATES, manifest, params={"dryRun": "All", "fieldValidation": "Strict"})


@pytest.mark.cluster
@pytest.mark.parametrize("overlay", OVERLAYS)
def test_the_api_server_accepts_every_object_of_an_overlay(installed: facade.DevCluster, overlay: str) -> None:
    said = installed.kubectl("apply", "--dry-run=server", "--server-side", "--force-conflicts", "-k",
                             str(MANIFESTS / "overlays" / overlay))
    assert f"namespace/{NAMESPACE} serverside-applied" in said


@pytest.mark.cluster
@pytest.mark.parametrize("spec", [
    {},
    {"dnsNames": None, "service": {"name": "one"}},
    {"dnsNames": ["a", "b.c", "*.d.e", "xn--bcher-kva.example", "1.2"], "service": {"name": "one", "namespace": "two"}},
    {"duration": "1m", "renewBefore": "20s", "caDuration": "1h", "caRenewBefore": "2m", "settleSeconds": 0},
    {"duration": "1h30m15s", "renewBefore": "0h90m"},
    {"dnsNames": [f"{number}.{'a' * 63}.{'b' * 63}.{'c' * 63}" for number in range(100)]},
    *({"privateKey": {"algorithm": str(algorithm)}} for algorithm in policy.KeyAlgorithm),
])
def test_a_sensible_certificate_is_accepted_and_is_valid_to_the_code(
    installed: facade.DevCluster, spec: Manifest
) -> None:
    created = try_create(installed, certificate(**spec))
    assert policy.parse(created["spec"], namespace=NAMESPACE, name="one")


REJECTED: list[tuple[str, Manifest, str, str]] = [
    ("no names", {"dnsNames": None}, "spec.dnsNames", "is empty"),
    ("empty names", {"dnsNames": []}, "spec.dnsNames", "is empty"),
    ("underscore", {"dnsNames": ["a", "Foo_bar"]}, "spec.dnsNames", "Foo_bar"),
    ("wildcard inside", {"dnsNames": ["a.*.b"]}, "spec.dnsNames", "a.*.b"),
    ("long label", {"dnsNames": ["a" * 64]}, "spec.dnsNames", "a" * 64),
    ("trailing dot", {"dnsNames": ["a.b."]}, "spec.dnsNames", "a.b."),
    ("address", {"dnsNames": ["::1"]}, "spec.dnsNames", "::1"),
    ("service with a dot", {"service": {"name": "a.b"}}, "spec.service.name", "a.b"),
    ("namespace", {"service": {"name": "a", "namespace": "A"}}, "spec.service.namespace", "'A'"),
    ("Secret", {"secretName": "A_b"}, "spec.secretName", "A_b"),
    ("Secret of a CA", {"secretName": "one-ca"}, "spec.secretName", "one-ca"),
    ("days", {"duration": "3d"}, "spec.duration", "3d"),
    ("negative", {"renewBefore": "-1h"}, "spec.renewBefore", "-1h"),
    ("no duration", {"duration": ""}, "spec.duration", "''"),
    ("too short", {"duration": "59s", "renewBefore": "9s"}, "spec.duration", "59s"),
    ("nothing", {"renewBefore": "0s"}, "spec.renewBefore", "0s"),
    ("too long", {"caDuration": "878401h"}, "spec.caDuration", "878401h"),
    ("renewed at once", {"duration": "10h", "renewBefore": "600m"}, "spec.renewBefore", "600m"),
    ("leaf outlives CA", {"caRenewBefore": "2160h"}, "spec.caRenewBefore", "2160h"),
    ("CA due at once", {"caDuration": "17520h"}, "spec.caRenewBefore", "17520h"),
]


@pytest.mark.cluster
@pytest.mark.parametrize(
    ("spec", "field", "found"), [case[1:] for case in REJECTED], ids=[case[0] for case in REJECTED])
def test_nonsense_is_rejected_with_field_value_and_remedy(
    installed: facade.DevCluster, spec: Manifest, field: str, found: str
) -> None:
    with pytest.raises(api.ApiError) as caught:
        try_create(installed, certificate(**spec))
    assert caught.value.status == 422
    (cause,) = caught.value.body["details"]["causes"]
    assert cause["field"].startswith(field)
    said = cause["message"].partition(": ")[2]
    assert field in said and found in said
    assert all(word in said for word in WORDS)


@pytest.mark.cluster
@pytest.mark.parametrize(("spec", "said"), [
    ({"privateKey": {"algorithm": "DSA"}},
     'spec.privateKey.algorithm: Unsupported value: "DSA": supported values: "ECDSA-P256", "ECDSA-P384", "Ed25519"'),
    ({"dnsNames": ["a", "a"]}, 'spec.dnsNames[1]: Duplicate value: "a"'),
    ({"dnsNames": [f"a{number}" for number in range(101)]}, "spec.dnsNames: Too many: 101: must have at most 100"),
    ({"secretName": None}, "spec.secretName: Required value"),
    ({"secretName": "a" * 251}, "spec.secretName: Too long: may not be more than 250"),
    ({"settleSeconds": 3601}, "spec.settleSeconds: Invalid value: 3601"),
    ({"renewbefore": "1h"}, 'unknown field "spec.renewbefore"'),
])
def test_what_the_schema_rejects_is_named(installed: facade.DevCluster, spec: Manifest, said: str) -> None:
    with pytest.raises(api.ApiError) as caught:
        try_create(installed, certificate(**spec))
    assert said in str(caught.value)


@pytest.mark.cluster
def test_the_secret_of_a_certificate_cannot_be_changed(installed: facade.DevCluster) -> None:
    with pytest.raises(api.ApiError, match=rf"'other', expected '{LEAF}', as it cannot be changed; create another"):
        installed.request("PATCH", f"{CERTIFICATES}/steadyhook-webhook", {"spec": {"secretName": "other"}},
                          content_type=MERGE)


# ---- whose ManagerNode, and who may read what, asked with the tokens of pods ----


def manager_node(name: str, node: str | None = None) -> Manifest:
    return {"apiVersion": "steadyhook.io/v1alpha1", "kind": "ManagerNode", "metadata": {"name": name},
            "spec": {"nodeName": node or name}}


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Client:
    """An account's requests to the API server; the answer is the HTTP status and the text of it."""

    server: str
    ca_pem: str
    token: str

    def ask(
        self, method: str, path: str, body: object = None, content_type: str = "application/json"
    ) -> tuple[int, str]:
        headers = {"Authorization": f"Bearer {self.token}", "Content-Type": content_type}
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(self.server + path, data=data, headers=headers, method=method)
        context = ssl.create_default_context(cadata=self.ca_pem)
        opener = urllib.request.build_opener(
            urllib.request.ProxyHandler({}), urllib.request.HTTPSHandler(context=context))
        try:
            with opener.open(request, timeout=30) as response:
                return response.status, response.read().decode()
        except urllib.error.HTTPError as error:
            with error:
                return error.code, error.read().decode()

    def status(self, method: str, path: str, body: object = None, content_type: str = "application/json") -> int:
        return self.ask(method, path, body, content_type)[0]


@pytest.fixture
def pods(installed: facade.DevCluster) -> Iterator[dict[str, Client]]:
    """For each account a client with the token of a pod on node "here"; "workstation" has one of no pod."""
    path = f"/api/v1/namespaces/{NAMESPACE}/pods"
    clients = {}
    for account in ("manager", "server", "issuer"):
        created = installed.request("POST", path, _pod(account))
        reference = {"kind": "Pod", "apiVersion": "v1", "name": created["metadata"]["name"],
                     "uid": created["metadata"]["uid"]}
        clients[account] = _client(installed, account, reference)
    clients["workstation"] = _client(installed, "server", None)
    yield clients
    for account in ("manager", "server", "issuer"):
        installed.request("DELETE", f"{path}/{account}", {"gracePeriodSeconds": 0})
    installed.request("DELETE", MANAGER_NODES)


def _pod(account: str) -> Manifest:
    security = {"runAsNonRoot": True, "allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]},
                "seccompProfile": {"type": "RuntimeDefault"}}
    return {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": account}, "spec": {
        "nodeName": "here", "serviceAccountName": f"steadyhook-{account}",
        "containers": [{"name": "one", "image": "steadyhook", "securityContext": security}]}}


def _client(cluster: facade.DevCluster, account: str, reference: Manifest | None) -> Client:
    path = f"/api/v1/namespaces/{NAMESPACE}/serviceaccounts/steadyhook-{account}/token"
    spec = {"boundObjectRef": reference} if reference else {}
    answer = cluster.request("POST", path, {"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest",
                                            "spec": spec})
    return Client(server=cluster.server, ca_pem=cluster.ca_pem.decode(), token=answer["status"]["token"])


@pytest.fixture
def policy_in_force(installed: facade.DevCluster, pods: dict[str, Client]) -> None:
    """A new policy takes the API server a moment."""
    installed.wait_for(
        lambda: pods["server"].status("POST", f"{MANAGER_NODES}?dryRun=All", manager_node("other")) == 403,
        what="the policy on ManagerNodes to be in force")


@pytest.mark.cluster
@pytest.mark.usefixtures("policy_in_force")
@pytest.mark.parametrize("account", ["manager", "server"])
def test_a_node_writes_its_own_manager_node_and_no_other(pods: dict[str, Client], account: str) -> None:
    client = pods[account]
    assert client.status("POST", MANAGER_NODES, manager_node("here")) == 201
    status, said = client.ask("POST", MANAGER_NODES, manager_node("other"))
    assert status == 403
    assert "ManagerNode 'other' was written from node 'here', expected node 'other'" in said
    assert "set its NODE_NAME" in said
    assert pods["workstation"].status("POST", MANAGER_NODES, manager_node("other")) == 201
    report: Manifest = {"status": {"instances": []}}
    assert client.status("PATCH", f"{MANAGER_NODES}/here/status", report, MERGE) == 200
    assert client.status("PATCH", f"{MANAGER_NODES}/other/status", report, MERGE) == 403
    assert pods["workstation"].status("PATCH", f"{MANAGER_NODES}/other/status", report, MERGE) == 200


@pytest.mark.cluster
def test_a_manager_node_has_the_name_of_its_node_for_ever(
    installed: facade.DevCluster, pods: dict[str, Client]
) -> None:
    with pytest.raises(api.ApiError, match=r"spec\.nodeName is 'there', expected 'here', the name of this object"):
        installed.request("POST", MANAGER_NODES, manager_node("here", "there"))
    installed.request("POST", MANAGER_NODES, manager_node("here"))
    with pytest.raises(api.ApiError, match="expected 'here', as it cannot be changed; create"):
        installed.request("PATCH", f"{MANAGER_NODES}/here", {"spec": {"nodeName": "there"}}, content_type=MERGE)


@pytest.mark.cluster
def test_what_instances_report_is_kept_whole_and_shown(installed: facade.DevCluster, pods: dict[str, Client]) -> None:
    installed.request("POST", MANAGER_NODES, manager_node("here"))
    now = datetime.datetime(2026, 1, 1, tzinfo=datetime.UTC)
    verdict = serving.Verdict(phase=serving.Phase.WAITING, reason=reasons.Reason.SECRET_MISSING, message="none yet")
    entries = [
        reporting.entry(pod_uid=uid, pod_name=f"pod-{uid}", address="10.0.0.1", certificate="steadyhook-webhook",
                        verdict=verdict, role=role, problem=None, previous=None, now=now)
        for uid, role in (("one", election.Role.ACTIVE), ("two", None))]
    entries[0] |= {"phase": "Serving", "fingerprint": "0a" * 32, "generation": 1, "notAfter": "2027-01-01T00:00:00Z"}
    status = installed.request("PATCH", f"{MANAGER_NODES}/here/status", {"status": {"instances": entries}},
                               content_type=MERGE)["status"]
    assert status["instances"] == entries
    _, line = installed.kubectl("get", "mnode", "--namespace", NAMESPACE).splitlines()
    assert line.split()[:5] == ["here", "active", "Serving", "0a" * 32, "2027-01-01T00:00:00Z"]


@pytest.mark.cluster
def test_a_server_is_refused_every_secret_but_the_leaf(pods: dict[str, Client]) -> None:
    client = pods["server"]
    assert client.status("GET", f"{SECRETS}/{LEAF}") == 404  # allowed, but not there yet
    assert client.status("GET", f"{SECRETS}?fieldSelector=metadata.name%3D{LEAF}") == 200
    for refused in (f"{SECRETS}/{AUTHORITY}", f"{SECRETS}?fieldSelector=metadata.name%3D{AUTHORITY}", SECRETS,
                    f"{SECRETS}/other", "/api/v1/secrets", CERTIFICATES):
        assert client.status("GET", refused) == 403, refused
    assert client.status("DELETE", f"{SECRETS}/{LEAF}") == 403
    assert client.status("DELETE", f"{MANAGER_NODES}/here") == 403


@pytest.mark.cluster
@pytest.mark.parametrize("account", ["manager", "issuer"])
def test_an_issuer_has_two_secrets_and_patches_the_named_configurations_alone(
    installed: facade.DevCluster, pods: dict[str, Client], account: str
) -> None:
    client = pods[account]
    for name in (LEAF, AUTHORITY):
        assert client.status("GET", f"{SECRETS}/{name}") == 404  # allowed, but not there yet
    for refused in (SECRETS, f"{SECRETS}/other", "/api/v1/secrets"):
        assert client.status("GET", refused) == 403, refused
    configurations = "/apis/admissionregistration.k8s.io/v1/validatingwebhookconfigurations"
    assert client.status("GET", configurations) == 200
    patch = {"metadata": {"annotations": {"seen": "1"}}}
    assert client.status("PATCH", f"{configurations}/steadyhook-example?dryRun=All", patch, MERGE) == 200
    assert client.status("PATCH", f"{configurations}/other?dryRun=All", patch, MERGE) == 403


@pytest.mark.cluster
def test_an_issuer_writes_no_manager_node_and_a_server_no_certificate(pods: dict[str, Client]) -> None:
    assert pods["issuer"].status("POST", MANAGER_NODES, manager_node("here")) == 403
    assert pods["server"].status("PATCH", f"{CERTIFICATES}/steadyhook-webhook/status", {"status": {}}, MERGE) == 403


@pytest.mark.cluster
def test_a_delete_leaves_nothing_behind_but_the_definitions(installed: facade.DevCluster) -> None:
    for layout in LAYOUTS:
        installed.kubectl("delete", "-k", str(MANIFESTS / "overlays" / layout), "--ignore-not-found")
    kinds = ",".join(sorted(CLUSTER_SCOPED - {"CustomResourceDefinition"}))
    installed.wait_for(
        lambda: not installed.kubectl("get", kinds, "--selector", "app.kubernetes.io/name=steadyhook", "--output=name"),
        timeout=60, what="everything of steadyhook to be gone")
    assert set(DEFINITIONS) <= {
        line.replace("customresourcedefinition.apiextensions.k8s.io", "crd")
        for line in installed.kubectl("get", "crd", "--output=name").splitlines()}
