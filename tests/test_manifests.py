"""The manifests: what kustomize renders from them, and what a real API server makes of them."""
import base64
import contextlib
import copy
import datetime
import importlib.util
import json
import pathlib
import re
import subprocess
import tomllib
from collections.abc import Iterator
from typing import Any

import kopf
import pytest
import yaml

from devcluster import api, binaries, facade
from scenarios import accounts
from steadyhook import settings
from steadyhook.core import election, policy, reasons, reporting, serving
from steadyhook.pki import minting

Manifest = dict[str, Any]

ROOT = pathlib.Path(__file__).parent.parent
MANIFESTS = ROOT / "manifests"
LAYOUTS = ("manager", "split")
OVERLAYS = (*LAYOUTS, "dev")
APPLICATIONS = {"longhorn": "longhorn-system", "rancher": "cattle-system"}
FOR_OTHERS = ("issuer", *APPLICATIONS)
NAMESPACE = "steadyhook-system"
ISSUERS = "steadyhook-issuers"
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
        *OVERLAYS, *FOR_OTHERS)}}
    return {name: list(yaml.safe_load_all(_kustomize(kubectl, folder))) for name, folder in folders.items()}


def _kustomize(kubectl: pathlib.Path, folder: pathlib.Path) -> str:
    line = [str(kubectl), "kustomize", str(folder)]
    return subprocess.run(line, capture_output=True, text=True, timeout=60, check=True).stdout


def of_kind(objects: list[Manifest], *kinds: str) -> list[Manifest]:
    return [item for item in objects if item["kind"] in kinds]


def named(objects: list[Manifest], kind: str, name: str, namespace: str | None = None) -> Manifest:
    (found,) = [item for item in of_kind(objects, kind) if item["metadata"]["name"] == name
                and namespace in (None, item["metadata"].get("namespace"))]
    return found


def role_of(objects: list[Manifest], binding: Manifest) -> Manifest:
    reference = binding["roleRef"]
    namespace = binding["metadata"]["namespace"] if reference["kind"] == "Role" else None
    return named(objects, reference["kind"], reference["name"], namespace)


def workloads(objects: list[Manifest]) -> list[Manifest]:
    return of_kind(objects, "DaemonSet", "Deployment")


def all_workloads(rendered: dict[str, list[Manifest]]) -> list[Manifest]:
    return [item for overlay in (*OVERLAYS, "issuer") for item in workloads(rendered[overlay])]


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


@pytest.mark.parametrize(("overlay", "namespace"), [*((name, NAMESPACE) for name in OVERLAYS), ("issuer", ISSUERS)])
def test_only_what_has_a_namespace_is_given_one_and_it_is_always_the_same(
    rendered: dict[str, list[Manifest]], overlay: str, namespace: str
) -> None:
    for item in rendered[overlay]:
        expected = None if item["kind"] in CLUSTER_SCOPED else namespace
        assert item["metadata"].get("namespace") == expected, item["metadata"]["name"]


def identities(objects: list[Manifest]) -> set[tuple[str, str | None, str]]:
    return {(item["kind"], item["metadata"].get("namespace"), item["metadata"]["name"]) for item in objects}


@pytest.mark.parametrize("overlay", OVERLAYS)
@pytest.mark.parametrize("for_others", FOR_OTHERS)
def test_issuers_for_others_share_no_object_and_no_namespace_with_a_layout_beside_them(
    rendered: dict[str, list[Manifest]], overlay: str, for_others: str
) -> None:
    assert identities(rendered[overlay]) & identities(rendered[for_others]) == set()
    namespaces = [{item["metadata"]["namespace"] for item in rendered[name] if "namespace" in item["metadata"]}
                  for name in (overlay, for_others)]
    assert namespaces[0] & namespaces[1] == set()


def test_of_two_applications_the_shared_objects_are_the_same(rendered: dict[str, list[Manifest]]) -> None:
    shared = identities(rendered["longhorn"]) & identities(rendered["rancher"])
    assert shared == identities(rendered["issuer"])
    for kind, namespace, name in shared:
        assert named(rendered["longhorn"], kind, name, namespace) == named(rendered["rancher"], kind, name, namespace)


@pytest.mark.parametrize("overlay", [*OVERLAYS, "issuer", "crds"])
def test_everything_but_the_definition_of_kopf_carries_our_label_and_nothing_a_finalizer(
    rendered: dict[str, list[Manifest]], overlay: str
) -> None:
    for item in rendered[overlay]:
        ours = not item["metadata"]["name"].endswith(".kopf.dev")
        label = item["metadata"].get("labels", {}).get("app.kubernetes.io/name")
        assert label == ("steadyhook" if ours else None), item["metadata"]["name"]
        assert "finalizers" not in item["metadata"]


@pytest.mark.parametrize("overlay", [*OVERLAYS, "issuer"])
def test_the_namespace_enforces_the_restricted_pod_security_standard(
    rendered: dict[str, list[Manifest]], overlay: str
) -> None:
    (namespace,) = of_kind(rendered[overlay], "Namespace")
    labels = namespace["metadata"]["labels"]
    assert labels["pod-security.kubernetes.io/enforce"] == "restricted"


@pytest.mark.parametrize(("overlay", "namespace"), APPLICATIONS.items())
def test_an_application_gets_a_role_and_a_certificate_and_keeps_its_namespace_when_they_are_deleted(
    rendered: dict[str, list[Manifest]], overlay: str, namespace: str
) -> None:
    theirs = [item for item in rendered[overlay] if item["metadata"].get("namespace") == namespace]
    assert sorted(item["kind"] for item in theirs) == ["Role", "RoleBinding", "WebhookCertificate"]
    assert [item["metadata"]["name"] for item in of_kind(rendered[overlay], "Namespace")] == [ISSUERS]
    (certificate,) = of_kind(theirs, "WebhookCertificate")
    wanted = policy.parse(certificate["spec"], namespace=namespace, name=certificate["metadata"]["name"])
    assert wanted.compatibility is policy.Compatibility.DYNAMICLISTENER
    named_secrets = {name for rule in rules(theirs) if rule["resources"] == ["secrets"] and rule["verbs"] != ["create"]
                     for name in rule["resourceNames"]}
    assert named_secrets == {wanted.secret_name, wanted.authority_secret_name}


def test_issuers_for_others_have_no_right_to_any_secret_of_their_own_accord(
    rendered: dict[str, list[Manifest]]
) -> None:
    assert of_kind(rendered["issuer"], "WebhookCertificate") == []
    assert {item["metadata"]["name"] for item in of_kind(rendered["issuer"], "KopfPeering")} == {"steadyhook"}
    assert not any("secrets" in rule["resources"] for rule in rules(rendered["issuer"]))
    (deployment,) = workloads(rendered["issuer"])
    environment = deployment["spec"]["template"]["spec"]["containers"][0]["env"]
    assert {"name": "STEADYHOOK_CERTIFICATES", "value": "all"} in environment


@pytest.mark.parametrize(("overlay", "ports"), [("longhorn", {9501, 9502}), ("rancher", {9443})])
def test_issuers_may_dial_the_ports_of_the_application_and_of_no_other_namespace(
    rendered: dict[str, list[Manifest]], overlay: str, ports: set[int]
) -> None:
    allowed = named(rendered[overlay], "NetworkPolicy", f"steadyhook-issuer-{overlay}")["spec"]
    everybody = named(rendered[overlay], "NetworkPolicy", "steadyhook-issuer")["spec"]
    assert allowed["podSelector"] == everybody["podSelector"]
    (rule,) = allowed["egress"]
    assert rule["to"] == [{"namespaceSelector": {"matchLabels": {
        "kubernetes.io/metadata.name": APPLICATIONS[overlay]}}}]
    assert {port["port"] for port in rule["ports"]} == ports
    assert not ports & {port["port"] for rule in everybody["egress"] if "to" not in rule for port in rule["ports"]}


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


def test_the_first_probe_comes_after_a_start_that_nothing_disturbs(rendered: dict[str, list[Manifest]]) -> None:
    for item in all_workloads(rendered):
        (container,) = item["spec"]["template"]["spec"]["containers"]
        assert container["startupProbe"]["initialDelaySeconds"] >= 5
        assert not {"initialDelaySeconds"} & {*container["livenessProbe"], *container["readinessProbe"]}


def test_readiness_is_not_liveness(rendered: dict[str, list[Manifest]]) -> None:
    for item in all_workloads(rendered):
        (container,) = item["spec"]["template"]["spec"]["containers"]
        assert container["livenessProbe"]["httpGet"]["path"] == "/healthz"
        assert container["readinessProbe"]["httpGet"]["path"] == "/readyz"


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


@pytest.mark.parametrize("overlay", [*OVERLAYS, *FOR_OTHERS])
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


@pytest.mark.parametrize("layout", [*LAYOUTS, *FOR_OTHERS])
def test_every_binding_is_of_a_role_and_an_account_that_exist(
    rendered: dict[str, list[Manifest]], layout: str
) -> None:
    used = set()
    for item in of_kind(rendered[layout], "RoleBinding", "ClusterRoleBinding"):
        assert role_of(rendered[layout], item)["rules"]
        (subject,) = item["subjects"]
        account = named(rendered[layout], "ServiceAccount", subject["name"])
        assert account["metadata"]["namespace"] == subject["namespace"]
        used.add(subject["name"])
    programs = {item["spec"]["template"]["spec"]["serviceAccountName"] for item in workloads(rendered[layout])}
    assert used == programs == {item["metadata"]["name"] for item in of_kind(rendered[layout], "ServiceAccount")}


@pytest.mark.parametrize("overlay", [*LAYOUTS, *FOR_OTHERS])
def test_every_account_that_creates_secrets_is_held_to_its_names_and_to_the_token_of_its_pod(
    rendered: dict[str, list[Manifest]], overlay: str
) -> None:
    objects = rendered[overlay]
    bound = {item["spec"]["policyName"] for item in of_kind(objects, "ValidatingAdmissionPolicyBinding")}
    policies = of_kind(objects, "ValidatingAdmissionPolicy")
    assert bound == {item["metadata"]["name"] for item in policies}
    creators = {
        f"system:serviceaccount:{subject['namespace']}:{subject['name']}"
        for item in of_kind(objects, "RoleBinding") for subject in item["subjects"]
        if any("secrets" in rule["resources"] and "create" in rule["verbs"]
               for rule in role_of(objects, item)["rules"])}
    assert creators or overlay == "issuer"
    for kind in ("secrets", "tokens", "injection"):
        (restricting,) = [item for item in policies if item["metadata"]["name"].startswith(f"steadyhook-{kind}")]
        (condition,) = restricting["spec"]["matchConditions"]
        pattern = re.fullmatch(r"request\.userInfo\.username\.matches\('(.*)'\)", condition["expression"])
        assert pattern is not None
        assert [name for name in creators if not re.search(pattern[1], name)] == []


def test_what_an_issuer_may_write_is_what_the_policy_on_tokens_covers(rendered: dict[str, list[Manifest]]) -> None:
    for layout, accounts_ in (("split", {"steadyhook-issuer"}), ("manager", {"steadyhook-manager"})):
        (covering,) = [item for item in of_kind(rendered[layout], "ValidatingAdmissionPolicy")
                       if item["metadata"]["name"] == "steadyhook-tokens"]
        covered = {(group, resource) for rule in covering["spec"]["matchConstraints"]["resourceRules"]
                   for group in rule["apiGroups"] for resource in rule["resources"]}
        written = {
            (group, resource) for rule in _rules_of(rendered[layout], accounts_) for group in rule["apiGroups"]
            for resource in rule["resources"] if set(rule["verbs"]) - {"get", "list", "watch"}}
        # Those of the serving half have a policy of their own.
        assert {(group, resource) for group, resource in written if not resource.startswith("managernodes")} <= covered


def _rules_of(objects: list[Manifest], names: set[str]) -> list[Manifest]:
    found = []
    for item in of_kind(objects, "RoleBinding", "ClusterRoleBinding"):
        if any(subject["name"] in names for subject in item["subjects"]):
            found += role_of(objects, item)["rules"]
    return found


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
MERGE = accounts.MERGE


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

PODS = {"manager": "manager", "server": "server", "neighbour": "server", "issuer": "issuer"}
"""Pods that the tests make, with the account of each."""


def manager_node(name: str, node: str | None = None) -> Manifest:
    return {"apiVersion": "steadyhook.io/v1alpha1", "kind": "ManagerNode", "metadata": {"name": name},
            "spec": {"nodeName": node or name}}


@pytest.fixture
def pods(installed: facade.DevCluster) -> Iterator[dict[str, accounts.Client]]:
    """
    For each account a client with the token of a pod on node "here", and one of no pod ("unbound server", ...).

    "neighbour" is a second server on that node.
    """
    path = f"/api/v1/namespaces/{NAMESPACE}/pods"
    clients = {}
    for name, account in PODS.items():
        created = installed.request("POST", path, _pod(name, account))
        clients[name] = accounts.Client.of_account(installed, NAMESPACE, f"steadyhook-{account}", pod=created)
        clients[f"unbound {account}"] = accounts.Client.of_account(installed, NAMESPACE, f"steadyhook-{account}")
    yield clients
    for name in PODS:
        installed.request("DELETE", f"{path}/{name}", {"gracePeriodSeconds": 0})
    installed.request("DELETE", MANAGER_NODES)


def _pod(name: str, account: str) -> Manifest:
    security = {"runAsNonRoot": True, "allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]},
                "seccompProfile": {"type": "RuntimeDefault"}}
    return {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name}, "spec": {
        "nodeName": "here", "serviceAccountName": f"steadyhook-{account}",
        "containers": [{"name": "one", "image": "steadyhook", "securityContext": security}]}}


@pytest.fixture
def policy_in_force(installed: facade.DevCluster, pods: dict[str, accounts.Client]) -> None:
    """A new policy takes the API server a moment."""
    client = pods["unbound manager"]
    installed.wait_for(lambda: client.status("POST", f"{MANAGER_NODES}?dryRun=All", manager_node("here")) == 403,
                       what="the policy on ManagerNodes to be in force")
    installed.wait_for(lambda: client.status("POST", f"{SECRETS}?dryRun=All", secret(LEAF)) == 403,
                       what="the policy on tokens to be in force")
    installed.wait_for(
        lambda: pods["manager"].status("POST", f"{SECRETS}?dryRun=All", secret(LEAF, kind="Opaque")) == 403,
        what="the policy on Secrets to be in force")
    configuration = "/apis/admissionregistration.k8s.io/v1/validatingwebhookconfigurations/steadyhook-example"
    installed.wait_for(
        lambda: pods["manager"].status("PATCH", f"{configuration}?dryRun=All", {"webhooks": []}, MERGE) == 403,
        what="the policy on webhook configurations to be in force")


def secret(name: str, *, kind: str = "kubernetes.io/tls", **metadata: Any) -> Manifest:
    data = {"tls.crt": "", "tls.key": ""} if kind == "kubernetes.io/tls" else {}
    return {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": name, **metadata}, "type": kind, "data": data}


ACCOUNT_TOKEN = "kubernetes.io/service-account-token"
OF_DEFAULT = {"kubernetes.io/service-account.name": "default"}


@pytest.mark.cluster
@pytest.mark.usefixtures("policy_in_force")
@pytest.mark.parametrize("account", ["manager", "issuer"])
def test_an_issuer_creates_only_the_secrets_that_its_role_names_and_only_of_type_tls(
    installed: facade.DevCluster, pods: dict[str, accounts.Client], account: str
) -> None:
    client = pods[account]
    for name in (LEAF, AUTHORITY):
        assert client.status("POST", f"{SECRETS}?dryRun=All", secret(name)) == 201
        for kind in (ACCOUNT_TOKEN, "Opaque", "bootstrap.kubernetes.io/token", "example.com/any"):
            status, said = client.ask("POST", f"{SECRETS}?dryRun=All", secret(
                name, kind=kind, annotations=OF_DEFAULT))
            assert (status, f"is of type '{kind}', expected 'kubernetes.io/tls'" in said) == (403, True), said
    status, said = client.ask("POST", f"{SECRETS}?dryRun=All", secret("other"))
    assert (status, "expected a Secret that a Role of the issuer names" in said) == (403, True), said
    generated = {**secret("other"), "metadata": {"generateName": f"{LEAF}-"}}
    assert client.status("POST", f"{SECRETS}?dryRun=All", generated) == 403
    assert client.status("POST", "/api/v1/namespaces/default/secrets?dryRun=All", secret(LEAF)) == 403


@pytest.mark.cluster
@pytest.mark.usefixtures("policy_in_force")
@pytest.mark.parametrize("account", ["manager", "issuer"])
def test_no_update_makes_a_token_of_a_secret(
    installed: facade.DevCluster, pods: dict[str, accounts.Client], account: str
) -> None:
    client, path = pods[account], f"{SECRETS}/{LEAF}"
    assert client.status("POST", SECRETS, secret(LEAF)) == 201
    try:
        mark = {"metadata": {"annotations": OF_DEFAULT}}
        assert client.status("PATCH", path, mark, MERGE) == 200  # means nothing for this type
        status, said = client.ask("PATCH", path, {**mark, "type": ACCOUNT_TOKEN}, MERGE)
        assert status in (403, 422), said
        with pytest.raises(api.ApiError, match="field is immutable"):  # nor can an administrator
            installed.request("PATCH", path, {**mark, "type": ACCOUNT_TOKEN}, content_type=MERGE)
        assert set(installed.request("GET", path)["data"]) == {"tls.crt", "tls.key"}
    finally:
        installed.request("DELETE", path)
    # One that somebody else has made under this name cannot be turned to another account either.
    installed.request("POST", SECRETS, secret(LEAF, kind=ACCOUNT_TOKEN, annotations=OF_DEFAULT))
    try:
        status, said = client.ask("PATCH", path, {"metadata": {"annotations": {
            "kubernetes.io/service-account.name": "steadyhook-server"}}}, MERGE)
        assert (status, f"is of type '{ACCOUNT_TOKEN}'" in said) == (403, True), said
        assert client.status("DELETE", path) == 200  # it makes room for what belongs there
    finally:
        with contextlib.suppress(api.ApiError):
            installed.request("DELETE", path)


@pytest.mark.cluster
@pytest.mark.usefixtures("policy_in_force")
@pytest.mark.parametrize("account", ["manager", "issuer"])
def test_an_issuer_writes_nothing_with_a_token_of_no_pod(
    installed: facade.DevCluster, pods: dict[str, accounts.Client], account: str
) -> None:
    configuration = "/apis/admissionregistration.k8s.io/v1/validatingwebhookconfigurations/steadyhook-example"
    peering = f"/apis/kopf.dev/v1/namespaces/{NAMESPACE}/kopfpeerings/steadyhook"
    whole = installed.request("GET", f"{CERTIFICATES}/steadyhook-webhook")
    event = {"metadata": {"generateName": "one.", "namespace": NAMESPACE}, "reason": "Test", "message": "test",
             "involvedObject": {"kind": "Pod", "namespace": NAMESPACE, "name": account}, "type": "Normal"}
    writes = [
        ("POST", SECRETS, secret(LEAF), accounts.JSON, 201),
        ("POST", f"/api/v1/namespaces/{NAMESPACE}/events", event, accounts.JSON, 201),
        ("PUT", f"{CERTIFICATES}/steadyhook-webhook/status", whole, accounts.JSON, 200),
        ("PATCH", peering, {"status": {}}, MERGE, 200),
        ("PATCH", configuration, {"metadata": {"annotations": {"seen": "1"}}}, MERGE, 200),
    ]
    for method, path, body, content_type, expected in writes:
        assert pods[account].status(method, f"{path}?dryRun=All", body, content_type) == expected, path
        status, said = pods[f"unbound {account}"].ask(method, f"{path}?dryRun=All", body, content_type)
        assert (status, "with a token of no pod, expected the token of the issuer's pod" in said) == (403, True), said


def instance(pod_name: str, pod_uid: str, **changed: Any) -> Manifest:
    return {"podName": pod_name, "podUID": pod_uid, "certificate": "steadyhook-webhook", "phase": "Serving",
            "since": "2026-01-01T00:00:00Z", "fingerprint": "0a" * 32, "generation": 1, **changed}


def uid_of(cluster: facade.DevCluster, pod: str) -> str:
    return str(cluster.request("GET", f"/api/v1/namespaces/{NAMESPACE}/pods/{pod}")["metadata"]["uid"])


def put_status(
    cluster: facade.DevCluster, client: accounts.Client, node: str, instances: list[Manifest]
) -> tuple[int, str]:
    """As the reporter writes: the whole object, with the resourceVersion that was read."""
    manifest = cluster.request("GET", f"{MANAGER_NODES}/{node}")
    return client.ask("PUT", f"{MANAGER_NODES}/{node}/status", {**manifest, "status": {"instances": instances}})


def fill(cluster: facade.DevCluster, node: str, instances: list[Manifest]) -> None:
    """Write a ManagerNode as the administrator."""
    cluster.request("POST", MANAGER_NODES, manager_node(node))
    cluster.request("PATCH", f"{MANAGER_NODES}/{node}/status", {"status": {"instances": instances}},
                    content_type=MERGE)


@pytest.mark.cluster
@pytest.mark.usefixtures("policy_in_force")
@pytest.mark.parametrize("account", ["manager", "server"])
def test_a_node_writes_its_own_manager_node_and_no_other(
    installed: facade.DevCluster, pods: dict[str, accounts.Client], account: str
) -> None:
    client = pods[account]
    assert client.status("POST", MANAGER_NODES, manager_node("here")) == 201
    status, said = client.ask("POST", MANAGER_NODES, manager_node("other"))
    assert status == 403
    assert "ManagerNode 'other' was written from node 'here', expected node 'other'" in said
    assert "set its NODE_NAME" in said
    installed.request("POST", MANAGER_NODES, manager_node("other"))  # an administrator is not asked for a node
    assert put_status(installed, client, "here", [instance(account, uid_of(installed, account))])[0] == 200
    status, said = put_status(installed, client, "other", [instance(account, uid_of(installed, account))])
    assert (status, "expected node 'other'" in said) == (403, True)


@pytest.mark.cluster
@pytest.mark.usefixtures("policy_in_force")
@pytest.mark.parametrize("account", ["manager", "server"])
def test_a_token_of_no_pod_writes_no_manager_node(
    installed: facade.DevCluster, pods: dict[str, accounts.Client], account: str
) -> None:
    client = pods[f"unbound {account}"]
    status, said = client.ask("POST", MANAGER_NODES, manager_node("here"))
    assert (status, "was written with a token of no pod, expected the token of the pod" in said) == (403, True)
    fill(installed, "here", [instance("gone", "gone")])
    for instances in ([instance("gone", "gone", generation=2)], []):
        assert put_status(installed, client, "here", instances)[0] == 403


@pytest.mark.cluster
@pytest.mark.usefixtures("policy_in_force")
@pytest.mark.parametrize("account", ["manager", "server"])
def test_an_instance_speaks_for_its_own_pod_alone(
    installed: facade.DevCluster, pods: dict[str, accounts.Client], account: str
) -> None:
    client, uid = pods[account], uid_of(installed, account)
    neighbour = instance("neighbour", uid_of(installed, "neighbour"))
    gone = instance("gone", "gone")
    fill(installed, "here", [neighbour, gone])
    refused = {
        "an entry for a pod of another node": [neighbour, gone, instance("elsewhere", "1234")],
        "another leaf for the neighbour": [{**neighbour, "fingerprint": "0b" * 32}, gone],
        "another name for the neighbour": [{**neighbour, "podName": "elsewhere"}, gone],
        "own uid under another name": [neighbour, gone, instance("elsewhere", uid)],
        "own name under another uid": [neighbour, gone, instance(account, "1234")],
        "own entry right and another one wrong": [instance(account, uid), {**neighbour, "generation": 2}, gone],
    }
    for what, instances in refused.items():
        status, said = put_status(installed, client, "here", instances)
        assert status == 403, what
        assert f"expected no change but of pod '{account}' with uid '{uid}'" in said, what
    own = instance(account, uid)
    for instances in ([neighbour, gone, own], [{**own, "generation": 2}, neighbour, gone], [neighbour, own], [own], []):
        assert put_status(installed, client, "here", instances)[0] == 200, instances


@pytest.mark.cluster
@pytest.mark.usefixtures("policy_in_force")
def test_a_full_manager_node_costs_the_policy_no_more_than_it_may(
    installed: facade.DevCluster, pods: dict[str, accounts.Client]
) -> None:
    others = [instance(f"{'x' * 240}{number}", f"{'y' * 240}{number}", message="z" * 1024) for number in range(99)]
    fill(installed, "here", others)
    assert put_status(installed, pods["server"], "here", [
        *others, instance("server", uid_of(installed, "server"))])[0] == 200
    status, said = put_status(installed, pods["server"], "here", [
        *({**item, "generation": 2} for item in others), instance("server", uid_of(installed, "server"))])
    assert (status, "expected no change but of pod 'server'" in said) == (403, True)


@pytest.mark.cluster
def test_a_manager_node_has_the_name_of_its_node_for_ever(
    installed: facade.DevCluster, pods: dict[str, accounts.Client]
) -> None:
    with pytest.raises(api.ApiError, match=r"spec\.nodeName is 'there', expected 'here', the name of this object"):
        installed.request("POST", MANAGER_NODES, manager_node("here", "there"))
    installed.request("POST", MANAGER_NODES, manager_node("here"))
    with pytest.raises(api.ApiError, match="expected 'here', as it cannot be changed; create"):
        installed.request("PATCH", f"{MANAGER_NODES}/here", {"spec": {"nodeName": "there"}}, content_type=MERGE)


@pytest.mark.cluster
def test_what_instances_report_is_kept_whole_and_shown(
    installed: facade.DevCluster, pods: dict[str, accounts.Client]
) -> None:
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
def test_a_server_is_refused_every_secret_but_the_leaf(pods: dict[str, accounts.Client]) -> None:
    client = pods["server"]
    assert client.status("GET", f"{SECRETS}/{LEAF}") == 404  # allowed, but not there yet
    assert client.status("GET", f"{SECRETS}?fieldSelector=metadata.name%3D{LEAF}") == 200
    for refused in (f"{SECRETS}/{AUTHORITY}", f"{SECRETS}?fieldSelector=metadata.name%3D{AUTHORITY}", SECRETS,
                    f"{SECRETS}/other", "/api/v1/secrets", CERTIFICATES):
        assert client.status("GET", refused) == 403, refused
    assert client.status("DELETE", f"{SECRETS}/{LEAF}") == 403
    assert client.status("DELETE", f"{MANAGER_NODES}/here") == 403
    assert client.status("DELETE", MANAGER_NODES) == 403


@pytest.mark.cluster
@pytest.mark.parametrize("account", ["manager", "issuer"])
def test_an_issuer_has_two_secrets_and_patches_the_named_configurations_alone(
    installed: facade.DevCluster, pods: dict[str, accounts.Client], account: str
) -> None:
    client = pods[account]
    for name in (LEAF, AUTHORITY):
        assert client.status("GET", f"{SECRETS}/{name}") == 404  # allowed, but not there yet
    for refused in (SECRETS, f"{SECRETS}/other", "/api/v1/secrets"):
        assert client.status("GET", refused) == 403, refused
    token = f"/api/v1/namespaces/{NAMESPACE}/serviceaccounts/steadyhook-{account}/token"
    request = {"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": {}}
    assert client.status("POST", token, request) == 403
    configurations = "/apis/admissionregistration.k8s.io/v1/validatingwebhookconfigurations"
    assert client.status("GET", configurations) == 200
    patch = {"metadata": {"annotations": {"seen": "1"}}}
    assert client.status("PATCH", f"{configurations}/steadyhook-example?dryRun=All", patch, MERGE) == 200
    assert client.status("PATCH", f"{configurations}/other?dryRun=All", patch, MERGE) == 403


CHANGES: dict[str, Manifest] = {
    "another Service": {"clientConfig": {"service": {"name": "other", "namespace": "default", "port": 443}}},
    "an address": {"clientConfig": {"url": "https://example.com/"}},
    "no rule": {"rules": []},
    "other namespaces": {"namespaceSelector": {"matchLabels": {"some": "other"}}},
    "other objects": {"objectSelector": {"matchLabels": {"some": "other"}}},
    "a condition": {"matchConditions": [{"name": "never", "expression": "false"}]},
    "less time": {"timeoutSeconds": 1},
    "exact versions": {"matchPolicy": "Exact"},
    "another name": {"name": "other.example.steadyhook.io"},
}


@pytest.mark.cluster
@pytest.mark.usefixtures("policy_in_force")
@pytest.mark.parametrize("account", ["manager", "issuer"])
@pytest.mark.parametrize("kind", ["validatingwebhookconfigurations", "mutatingwebhookconfigurations"])
def test_of_a_webhook_configuration_an_issuer_changes_the_ca_bundle_and_nothing_else(
    installed: facade.DevCluster, pods: dict[str, accounts.Client], account: str, kind: str
) -> None:
    path = f"/apis/admissionregistration.k8s.io/v1/{kind}/steadyhook-example"
    (webhook,) = installed.request("GET", path)["webhooks"]

    def patch(webhooks: list[Manifest]) -> tuple[int, str]:
        return pods[account].ask("PATCH", f"{path}?dryRun=All", {"webhooks": webhooks}, MERGE)

    bundle = base64.b64encode(minting.mint_authority(policy.parse(
        {"secretName": "one", "dnsNames": ["one.example"]}, namespace="one", name="one"),
        now=datetime.datetime.now(datetime.UTC)).certificate_pem).decode()
    status, said = patch([{**webhook, "clientConfig": {**webhook["clientConfig"], "caBundle": bundle}}])
    assert status == 200, said
    fails_otherwise = {"failurePolicy": {"Fail": "Ignore", "Ignore": "Fail"}[webhook["failurePolicy"]]}
    for what, change in {**CHANGES, "fails otherwise": fails_otherwise}.items():
        status, said = patch([{**webhook, **change}])
        assert (status, "was changed beyond the caBundle" in said) == (403, True), (what, said)
    for webhooks in ([], [webhook, {**webhook, "name": "second.example.steadyhook.io"}]):
        assert patch(webhooks)[0] == 403
    nobody = {"apiVersion": "v1", "kind": "Namespace", "name": "gone", "uid": "0"}  # the garbage collector would follow
    for metadata in ({"ownerReferences": [nobody]}, {"finalizers": ["example.com/never"]}):
        status, said = pods[account].ask("PATCH", f"{path}?dryRun=All", {"metadata": metadata}, MERGE)
        assert (status, "was changed beyond the caBundle" in said) == (403, True), said


@pytest.mark.cluster
def test_an_issuer_writes_no_manager_node_and_a_server_no_certificate(pods: dict[str, accounts.Client]) -> None:
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
