"""The trust bundle in each kind of object that holds one, beside its owner's own applies and other writers."""
import base64
import datetime
from collections.abc import Iterator
from typing import Any

import pytest
import yaml

from scenarios import installation
from scenarios.conftest import Install
from steadyhook.core import policy
from steadyhook.pki import minting, secrets

pytestmark = pytest.mark.cluster

JsonObject = dict[str, Any]


@pytest.fixture
def converting(install: Install) -> installation.Installation:
    """Two nodes whose pods also serve a conversion webhook."""
    installed = install(nodes=2, modules=("converting",), without=lambda item: False)
    installed.wait_serving()
    installed.wait_ready()
    return installed


@pytest.fixture
def widgets(converting: installation.Installation) -> Iterator[JsonObject]:
    """A definition with two versions that the pods convert, applied with a Role that lets the issuer patch it."""
    definition = _definition(converting)
    _permit(converting, "apiextensions.k8s.io", "customresourcedefinitions", definition["metadata"]["name"])
    _apply(converting, definition)
    yield definition
    converting.cluster.kubectl("delete", "crd", definition["metadata"]["name"], "--wait=false", check=False)


def test_a_definition_with_two_versions_is_converted_by_the_pods(
    converting: installation.Installation, widgets: JsonObject
) -> None:
    _wait_injected(converting, widgets)
    group = widgets["spec"]["group"]
    path = f"/apis/{group}/%s/namespaces/{converting.namespace}/widgets"

    def create() -> JsonObject:
        return converting.cluster.request("POST", path % "v1", {
            "apiVersion": f"{group}/v1", "kind": "Widget", "metadata": {"name": "one"}, "spec": {"size": 3}})

    converting.cluster.wait_for(create, 30, "the definition to be served")
    converted = converting.cluster.wait_for(
        lambda: converting.cluster.request("GET", (path % "v2") + "/one"), 30, "the conversion webhook to be trusted")
    assert converted["spec"] == {"count": 3}


def test_the_owners_own_server_side_applies_keep_working_and_keep_the_bundle(
    converting: installation.Installation, widgets: JsonObject
) -> None:
    cluster = converting.cluster
    before = _wait_injected(converting, widgets)
    _apply(converting, widgets)  # the same again: nothing of ours is taken away
    assert _bundle(converting, widgets) == before
    # The owner needs no conversion any more: no entry of ours stands in the way.
    plain = {**widgets, "spec": {**widgets["spec"], "conversion": {"strategy": "None"}}}
    _apply(converting, plain)
    read = cluster.request("GET", _path(widgets))["spec"]["conversion"]
    assert read["strategy"] == "None"
    _apply(converting, widgets)
    _wait_injected(converting, widgets)


def test_a_webhook_entry_can_be_added_and_removed_by_server_side_apply(serving: installation.Installation) -> None:
    name = f"steadyhook-example-{serving.namespace}"
    mine = next(item for item in serving.objects
                if item["kind"] == "ValidatingWebhookConfiguration" and item["metadata"]["name"] == name)
    second = {**mine["webhooks"][0], "name": "second.example.steadyhook.io"}
    _apply(serving, {**mine, "webhooks": [*mine["webhooks"], second]}, force=True)
    path = f"/apis/admissionregistration.k8s.io/v1/validatingwebhookconfigurations/{name}"

    def all_injected(count: int) -> bool:
        webhooks = serving.cluster.request("GET", path)["webhooks"]
        return len(webhooks) == count and len({item["clientConfig"].get("caBundle", "") for item in webhooks}) == 1

    serving.cluster.wait_for(lambda: all_injected(2), 30, "the bundle in both entries")
    _apply(serving, mine, force=True)
    serving.cluster.wait_for(lambda: all_injected(1), 30, "one entry to be left, with its bundle")
    serving.admit()


def test_an_api_service_gets_the_bundle(serving: installation.Installation) -> None:
    group = f"{serving.namespace}.example.com"
    name = f"v1.{group}"
    _permit(serving, "apiregistration.k8s.io", "apiservices", name)
    service: JsonObject = {
        "apiVersion": "apiregistration.k8s.io/v1", "kind": "APIService",
        "metadata": {"name": name, "annotations": _asking(serving)},
        "spec": {"group": group, "version": "v1", "groupPriorityMinimum": 100, "versionPriority": 10,
                 "service": {"name": "steadyhook-webhook", "namespace": serving.namespace, "port": 443}}}
    try:
        _apply(serving, service)
        _wait_injected(serving, service)
    finally:
        serving.cluster.kubectl("delete", "apiservice", name, "--wait=false", check=False)


def test_a_working_webhook_is_taken_over_and_given_back_without_a_failed_request(
    serving: installation.Installation
) -> None:
    """Its certificate is from elsewhere; the configuration trusts both from the moment it asks for ours."""
    wanted = policy.parse({"secretName": "x", "service": {"name": "x"}}, namespace="x", name="by-hand")
    foreign = minting.mint_authority(wanted, now=datetime.datetime.now(datetime.UTC)).certificate
    name = f"taken-over-{serving.namespace}"
    mine = next(item for item in serving.objects if item["kind"] == "ValidatingWebhookConfiguration")
    webhook = {**mine["webhooks"][0], "namespaceSelector": {"matchLabels": {"nobody": serving.namespace}}}
    webhook["clientConfig"] = {**webhook["clientConfig"], "caBundle": secrets.write_ca_bundle([foreign])}
    taken: JsonObject = {"apiVersion": mine["apiVersion"], "kind": mine["kind"], "metadata": {"name": name},
                         "webhooks": [webhook]}
    _permit(serving, "admissionregistration.k8s.io", "validatingwebhookconfigurations", name)
    try:
        with serving.load() as load:
            serving.cluster.kubectl("create", "-f", "-", input=yaml.safe_dump(taken))
            serving.cluster.kubectl("annotate", "validatingwebhookconfiguration", name,
                                    *(f"{key}={value}" for key, value in _asking(serving).items()))
            ours = serving.cluster.wait_for(lambda: _trusted(serving, taken) - {foreign.fingerprint}, 30, "our bundle")
            assert foreign.fingerprint in _trusted(serving, taken)
            serving.cluster.wait_for(lambda: all(
                foreign.fingerprint in found for found in _all_trusted(serving)), 30, "the foreign CA in every bundle")
            # Given back: nobody undoes anything, whichever certificate is served.
            serving.cluster.kubectl("annotate", "validatingwebhookconfiguration", name,
                                    *(f"{key}-" for key in _asking(serving)))
            load.wait_for(40)
            assert _trusted(serving, taken) == ours | {foreign.fingerprint}
        assert load.failures == {}
    finally:
        serving.cluster.kubectl("delete", "validatingwebhookconfiguration", name, "--wait=false", check=False)


def test_an_annotation_that_points_nowhere_is_told_and_breaks_nothing(serving: installation.Installation) -> None:
    name = f"stray-{serving.namespace}"
    mine = next(item for item in serving.objects if item["kind"] == "ValidatingWebhookConfiguration")
    webhook = {**mine["webhooks"][0], "namespaceSelector": {"matchLabels": {"nobody": serving.namespace}}}
    stray = {"apiVersion": mine["apiVersion"], "kind": mine["kind"], "webhooks": [webhook], "metadata": {
        "name": name, "annotations": {"steadyhook.io/inject-ca-from": f"{serving.namespace}/nobody"}}}
    try:
        serving.cluster.kubectl("create", "-f", "-", input=yaml.safe_dump(stray))
        serving.cluster.wait_for(lambda: serving.conditions()["Degraded"]["reason"] == "NoSuchCertificate", 60,
                                 "the condition")
        message = serving.conditions()["Degraded"]["message"]
        assert f"{name} asks for the bundle of {serving.namespace}/nobody, which does not exist" in message
        serving.cluster.wait_for(lambda: serving.events("NoSuchCertificate"), 30, "the Event")
        assert serving.conditions()["Ready"]["status"] == "True"
        serving.admit()
    finally:
        serving.cluster.kubectl("delete", "validatingwebhookconfiguration", name, "--wait=false", check=False)
    serving.cluster.wait_for(lambda: serving.conditions()["Degraded"]["status"] == "False", 60, "the condition to go")


# ---- what the tests need ----


def _definition(installed: installation.Installation) -> JsonObject:
    group = f"{installed.namespace}.example.com"
    versions = [{
        "name": version, "served": True, "storage": version == "v1",
        "schema": {"openAPIV3Schema": {"type": "object", "properties": {
            "spec": {"type": "object", "properties": {field: {"type": "integer"}}}}}},
    } for version, field in (("v1", "size"), ("v2", "count"))]
    return {
        "apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition",
        "metadata": {"name": f"widgets.{group}", "annotations": _asking(installed)},
        "spec": {
            "group": group, "scope": "Namespaced", "versions": versions,
            "names": {"kind": "Widget", "plural": "widgets", "singular": "widget"},
            "conversion": {"strategy": "Webhook", "webhook": {
                "conversionReviewVersions": ["v1"],
                "clientConfig": {"service": {"name": "steadyhook-webhook", "namespace": installed.namespace,
                                             "path": "/convert", "port": 443}}}},
        },
    }


def _asking(installed: installation.Installation) -> dict[str, str]:
    return {"steadyhook.io/inject-ca-from": f"{installed.namespace}/{installation.CERTIFICATE}"}


def _permit(installed: installation.Installation, group: str, resource: str, name: str) -> None:
    """Let the issuer patch one object more, as a person would for an object of theirs."""
    role = f"more-{installed.namespace}-{resource}"
    account = "steadyhook-manager"
    objects = [
        {"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRole", "metadata": {"name": role},
         "rules": [{"apiGroups": [group], "resources": [resource], "resourceNames": [name], "verbs": ["patch"]}]},
        {"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRoleBinding", "metadata": {"name": role},
         "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": role},
         "subjects": [{"kind": "ServiceAccount", "name": account, "namespace": installed.namespace}]},
    ]
    installed.objects.extend(objects)
    installed.apply(objects)


def _apply(installed: installation.Installation, manifest: JsonObject, *, force: bool = False) -> None:
    """The owner's own server-side apply."""
    arguments = ["apply", "--server-side", "--field-manager=owner", *(["--force-conflicts"] if force else [])]
    installed.cluster.kubectl(*arguments, "-f", "-", input=yaml.safe_dump(manifest))


def _path(manifest: JsonObject) -> str:
    plural = {"CustomResourceDefinition": "customresourcedefinitions", "APIService": "apiservices",
              "ValidatingWebhookConfiguration": "validatingwebhookconfigurations"}[manifest["kind"]]
    return f"/apis/{manifest['apiVersion']}/{plural}/{manifest['metadata']['name']}"


def _bundle(installed: installation.Installation, manifest: JsonObject) -> str:
    read = installed.cluster.request("GET", _path(manifest))
    if read["kind"] == "APIService":
        return str(read["spec"].get("caBundle", ""))
    if read["kind"] == "CustomResourceDefinition":
        return str(((read["spec"]["conversion"].get("webhook") or {}).get("clientConfig") or {}).get("caBundle", ""))
    return str(read["webhooks"][0]["clientConfig"].get("caBundle", ""))


def _trusted(installed: installation.Installation, manifest: JsonObject) -> set[str]:
    return {item.fingerprint for item in secrets.read_ca_bundle(_bundle(installed, manifest))[0]}


def _all_trusted(installed: installation.Installation) -> list[set[str]]:
    return [_trusted(installed, item) for item in installed.objects if item["kind"] == "ValidatingWebhookConfiguration"]


def _wait_injected(installed: installation.Installation, manifest: JsonObject) -> str:
    """Wait until the object carries the bundle of the CA Secret; return it."""
    def injected() -> str:
        authority = installed.secret(installation.AUTHORITY)
        assert authority is not None
        expected = {item.fingerprint for item in secrets.read_authority(authority).bundle}
        assert _trusted(installed, manifest) == expected
        return _bundle(installed, manifest)

    found = installed.cluster.wait_for(injected, 60, f"the bundle in {manifest['kind']} {manifest['metadata']['name']}")
    assert base64.b64decode(found).startswith(b"-----BEGIN CERTIFICATE-----")
    return found


