"""What the accounts of an installation may do: what a stolen token is good for, and that no right is without a use."""
import base64
import contextlib
import dataclasses
import json
import signal
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from devcluster import api, audit, facade
from scenarios import accounts, installation, test_many, test_rotation
from scenarios.conftest import Install

pytestmark = [pytest.mark.cluster, pytest.mark.slow]

JsonObject = dict[str, Any]

POLICIES = ("ValidatingAdmissionPolicy", "ValidatingAdmissionPolicyBinding")
ACCOUNT_TOKEN = "kubernetes.io/service-account-token"
VICTIM = "cluster-admins-own"


# ---- what a stolen token of an issuer is good for ----


def is_policy(item: JsonObject) -> bool:
    return item["kind"] in POLICIES


@contextlib.contextmanager
def frozen(installed: installation.Installation) -> Iterator[None]:
    """Nobody repairs what an attacker does meanwhile."""
    running = installed.pods()
    for pod in running:
        installed.cluster.kill(pod, signal.SIGSTOP)
    try:
        yield
    finally:
        for pod in running:
            with contextlib.suppress(LookupError):
                installed.cluster.kill(pod, signal.SIGCONT)


@contextlib.contextmanager
def victim(cluster: facade.DevCluster, namespace: str) -> Iterator[None]:
    """Another account of the namespace, which may do everything, as that of Rancher does."""
    cluster.kubectl("create", "serviceaccount", VICTIM, "-n", namespace)
    cluster.kubectl("create", "clusterrolebinding", f"{VICTIM}-{namespace}", "--clusterrole=cluster-admin",
                    f"--serviceaccount={namespace}:{VICTIM}")
    try:
        yield
    finally:
        cluster.kubectl("delete", "clusterrolebinding", f"{VICTIM}-{namespace}")


def replace_by_account_token(client: accounts.Client, namespace: str, name: str) -> tuple[int, str]:
    """Delete a Secret that the account may read, and ask for a token of the victim under its name."""
    path = f"/api/v1/namespaces/{namespace}/secrets"
    assert client.status("DELETE", f"{path}/{name}") in (200, 404)
    return client.ask("POST", path, {
        "metadata": {"name": name, "annotations": {"kubernetes.io/service-account.name": VICTIM}},
        "type": ACCOUNT_TOKEN})


def read_token(client: accounts.Client, cluster: facade.DevCluster, namespace: str, name: str) -> accounts.Client:
    """What the cluster has filled in."""
    def token() -> str:
        status, text = client.ask("GET", f"/api/v1/namespaces/{namespace}/secrets/{name}")
        assert status == 200
        return base64.b64decode(json.loads(text)["data"]["token"]).decode()

    return accounts.Client.of_token(cluster, cluster.wait_for(token, 20, "the token of the victim"))


@pytest.fixture
def home(request: pytest.FixtureRequest, install: Install) -> Iterator[tuple[installation.Installation, str, str]]:
    """An installation without its policies, and the namespace and name of a Secret that its issuers may read."""
    layout = request.param
    installed = install(layout=layout, nodes=1, without=is_policy)
    if layout != "issuer":
        installed.wait_serving()
        yield installed, installed.namespace, installation.AUTHORITY
        return
    installed.cluster.wait_for(lambda: installed.peers() and installed.active(), 60, "an active issuer")
    application = test_many.Application(installed, "longhorn")
    application.apply()
    application.wait_ready()
    yield installed, application.namespace, test_many.AUTHORITY
    installed.cluster.kubectl("delete", "namespace", application.namespace, "--wait=false")


@pytest.mark.parametrize("home", ["manager", "split", "issuer"], indirect=True)
def test_who_has_the_token_of_an_issuer_cannot_make_it_the_token_of_another_account(
    home: tuple[installation.Installation, str, str]
) -> None:
    installed, namespace, name = home
    cluster = installed.cluster
    component = "manager" if installed.pods("manager") else "issuer"
    client = accounts.Client.of_pod(cluster, installed.pods(component)[0])
    with frozen(installed), victim(cluster, namespace):
        # Without the policies: from one Secret in one namespace to everything.
        assert replace_by_account_token(client, namespace, name)[0] == 201
        stolen = read_token(client, cluster, namespace, name)
        assert client.status("GET", "/api/v1/secrets") == 403
        assert stolen.status("GET", "/api/v1/secrets") == 200

        policies = [item for item in installed.render() if is_policy(item)]
        installed.objects += policies
        installed.apply(policies)
        path = f"/api/v1/namespaces/{namespace}/secrets"
        opaque = {"metadata": {"name": name}, "type": "Opaque"}
        cluster.wait_for(lambda: client.status("POST", f"{path}?dryRun=All", opaque) == 403, 30, "the policies")
        status, said = replace_by_account_token(client, namespace, name)
        assert (status, f"is of type '{ACCOUNT_TOKEN}', expected 'kubernetes.io/tls'" in said) == (403, True), said
        with pytest.raises(api.ApiError) as caught:
            cluster.request("GET", f"{path}/{name}")
        assert caught.value.status == 404
    # The issuers themselves are not in their own way: what was deleted is issued anew.
    def issued() -> bool:
        return bool(cluster.request("GET", f"{path}/{name}")["type"] == "kubernetes.io/tls")

    cluster.wait_for(issued, 120, f"Secret {name} to be issued anew")


def test_an_issuer_that_cannot_take_part_in_the_election_is_not_ready(install: Install) -> None:
    installed = install(layout="issuer", nodes=1, without=lambda item: item["kind"] == "KopfPeering")
    cluster = installed.cluster

    def told() -> bool:
        pods = installed.pods()
        return len(pods) == 2 and all("KopfPeering" in pod.log() for pod in pods)

    cluster.wait_for(told, 60, "both issuers to complain")
    assert not any(pod.ready for pod in installed.pods())
    installed.apply([item for item in installed.render() if item["kind"] == "KopfPeering"])
    cluster.wait_for(lambda: all(pod.ready for pod in installed.pods()), 60, "both issuers to be ready")


# ---- no right is without a use ----


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True, order=True)
class Right:
    """One verb on one resource; ``name`` and ``namespace`` are "" for all."""

    account: str
    verb: str
    group: str
    resource: str
    name: str = ""
    namespace: str = ""

    def covers(self, use: "Right") -> bool:
        return (self.account, self.verb, self.group, self.resource) == (
            use.account, use.verb, use.group, use.resource) and self.name in ("", use.name) and self.namespace in (
            "", use.namespace)


UNUSED = {
    ("", "get", "customresourcedefinitions", ""): "read only while one asks for the bundle: test_injection.py",
    ("", "get", "apiservices", ""): "read only while one asks for the bundle: test_injection.py",
    ("", "get", "services", ""): "read only while a configuration names a port of the Service: servers.py",
    ("steadyhook-server", "get", "kopfpeerings", ""): "read after half an hour: serving/issuers.py",
    ("", "list", "secrets", test_many.AUTHORITY): "watched only by an issuer of all certificates",
    ("", "watch", "secrets", test_many.AUTHORITY): "watched only by an issuer of all certificates",
}
"""Account, verb, resource and name, "" for any, of what the run below may end without; and what needs it."""


def may_be_unused(right: Right) -> bool:
    return any((right.verb, right.resource) == (verb, resource) and account in ("", right.account)
               and name in ("", right.name) for account, verb, resource, name in UNUSED)


def granted(objects: list[JsonObject]) -> set[Right]:
    """All that the Roles give to the accounts that are bound to them."""
    found = set()
    for binding in objects:
        if not binding["kind"].endswith("RoleBinding"):
            continue
        reference = binding["roleRef"]
        namespace = binding["metadata"].get("namespace", "")
        (role,) = [item for item in objects if item["kind"] == reference["kind"]
                   and item["metadata"]["name"] == reference["name"]
                   and (reference["kind"] == "ClusterRole" or item["metadata"]["namespace"] == namespace)]
        found |= {
            Right(account=subject["name"], verb=verb, group=group, resource=resource, name=name, namespace=namespace)
            for subject in binding["subjects"] for rule in role["rules"] for verb in rule["verbs"]
            for group in rule["apiGroups"] for resource in rule["resources"]
            for name in rule.get("resourceNames") or [""]}
    return found


def used(installed: installation.Installation) -> set[Right]:
    """All that the accounts of an installation have asked for, and were allowed."""
    prefix = f"system:serviceaccount:{installed.namespace}:"
    found = set()
    for event in installed.cluster.audit.events(stages=("ResponseStarted", *audit.COMPLETE)):
        username, target = event["user"]["username"], event.get("objectRef")
        if target is None or not username.startswith(prefix) or audit.code_of(event) == 403:
            continue
        subresource = f"/{target['subresource']}" if target.get("subresource") else ""
        found.add(Right(
            account=username.removeprefix(prefix), verb=event["verb"], group=target.get("apiGroup", ""),
            resource=target["resource"] + subresource, name=target.get("name", ""),
            namespace=target.get("namespace", "")))
    return found


def unused(installed: installation.Installation, objects: list[JsonObject]) -> list[Right]:
    asked = used(installed)
    assert asked
    return sorted(right for right in granted(objects) if not any(right.covers(use) for use in asked)
                  and not may_be_unused(right))


def wait_all_used(installed: installation.Installation, objects: list[JsonObject]) -> None:
    def all_used() -> bool:
        left = unused(installed, objects)
        assert left == []
        return True

    installed.cluster.wait_for(all_used, 60, "every right to be used")


def add_ghost(cluster: facade.DevCluster, namespace: str, certificate: str) -> None:
    """A ManagerNode of a node that is gone, with an entry of a pod that is gone, as a failed clean-up leaves it."""
    path = f"/apis/steadyhook.io/v1alpha1/namespaces/{namespace}/managernodes"
    cluster.request("POST", path, {"apiVersion": "steadyhook.io/v1alpha1", "kind": "ManagerNode",
                                   "metadata": {"name": "ghost"}, "spec": {"nodeName": "ghost"}})
    cluster.request("PATCH", f"{path}/ghost/status", {"status": {"instances": [{
        "podUID": "gone", "podName": "gone", "certificate": certificate, "phase": "Serving",
        "since": "2026-01-01T00:00:00Z"}]}}, content_type=accounts.MERGE)


@contextlib.contextmanager
def configurations(cluster: facade.DevCluster, name: str) -> Iterator[None]:
    """One of each kind, of somebody else, of which an issuer has to find out whom they call."""
    webhook = {"name": "none.example.steadyhook.io", "admissionReviewVersions": ["v1"], "sideEffects": "None",
               "clientConfig": {"service": {"name": "none", "namespace": "default"}}, "rules": [
                   {"apiGroups": ["none.example.steadyhook.io"], "apiVersions": ["v1"], "operations": ["CREATE"],
                    "resources": ["none"]}]}
    paths = [f"/apis/admissionregistration.k8s.io/v1/{kind}webhookconfigurations" for kind in (
        "validating", "mutating")]
    for path in paths:
        cluster.request("POST", path, {"metadata": {"name": name}, "webhooks": [webhook]})
    try:
        yield
    finally:
        for path in paths:
            cluster.request("DELETE", f"{path}/{name}")


def spoil(cluster: facade.DevCluster, namespace: str, name: str, issued: Callable[[], bool]) -> None:
    """Put a Secret of a wrong type in the place of one, and wait until it is as it should be."""
    path = f"/api/v1/namespaces/{namespace}/secrets"

    def put() -> bool:
        cluster.kubectl("delete", "secret", name, "-n", namespace, "--ignore-not-found")
        try:
            cluster.request("POST", path, {"metadata": {"name": name}, "type": "Opaque"})
        except api.ApiError as error:
            if error.status != 409:
                raise
            return False  # the issuer was faster
        return True

    cluster.wait_for(put, 30, f"a Secret {name} of a wrong type", interval=0.01)
    cluster.wait_for(lambda: cluster.request("GET", f"{path}/{name}")["type"] == "kubernetes.io/tls" and issued(),
                     120, f"Secret {name} to be issued anew")


@pytest.mark.parametrize("layout", ["manager", "split"])
def test_no_account_of_a_layout_has_a_right_that_it_does_not_use(install: Install, layout: str) -> None:
    installed = install(layout=layout, nodes=2)
    cluster, namespace = installed.cluster, installed.namespace
    installed.wait_serving()
    installed.wait_ready()
    add_ghost(cluster, namespace, installation.CERTIFICATE)
    before = test_rotation.authorities(installed)
    test_rotation.rotate(installed, "one")
    test_rotation.wait_rotated(installed, before)
    cluster.request("DELETE", f"/apis/steadyhook.io/v1alpha1/namespaces/{namespace}/managernodes/ghost")
    for name in (installation.SECRET, installation.AUTHORITY):
        spoil(cluster, namespace, name, lambda: bool(installed.wait_serving()))
    # One server goes without a word, and the next one on its node clears away what it has said.
    gone = installed.pods("manager" if layout == "manager" else "server")[0]
    cluster.kubectl("delete", "pod", gone.name, "-n", namespace, "--grace-period=0", "--force")
    cluster.wait_for(lambda: gone.name not in {item["podName"] for item in installed.instances()}, 90,
                     "the entry of the pod that is gone to be cleared away")
    wait_all_used(installed, installed.objects)


def states(application: test_many.Application) -> dict[str, str]:
    return {kind: condition["status"] for kind, condition in application.conditions().items()}


def test_issuers_for_an_application_have_no_right_that_they_do_not_use(install: Install) -> None:
    installed = install(layout="issuer", nodes=1)
    cluster = installed.cluster
    application = test_many.Application(installed, "longhorn")
    try:
        with configurations(cluster, installed.namespace):
            application.apply()
            application.wait_ready()
            add_ghost(cluster, application.namespace, test_many.CERTIFICATE)
            path = (f"/apis/steadyhook.io/v1alpha1/namespaces/{application.namespace}/webhookcertificates/"
                    f"{test_many.CERTIFICATE}")
            cluster.request("PATCH", path, {**test_rotation.SETTLE, "metadata": {"annotations": {
                "steadyhook.io/rotate-ca": "one"}}}, content_type=accounts.MERGE)
            cluster.wait_for(lambda: states(application)["Rotating"] == "True", 60, "the rotation to begin")
            cluster.wait_for(lambda: states(application)["Rotating"] == "False", 120, "the rotation to end")
            for name in (test_many.LEAF, test_many.AUTHORITY):
                spoil(cluster, application.namespace, name, lambda: states(application)["Ready"] == "True")
            kinds = ("roles", "rolebindings")
            path = f"/apis/rbac.authorization.k8s.io/v1/namespaces/{application.namespace}"
            theirs = [{**item, "kind": {"roles": "Role", "rolebindings": "RoleBinding"}[kind]} for kind in kinds
                      for item in cluster.request("GET", f"{path}/{kind}")["items"]]
            objects = [*installed.objects, *theirs]
            wait_all_used(installed, objects)
    finally:
        cluster.kubectl("delete", "namespace", application.namespace, "--wait=false")
