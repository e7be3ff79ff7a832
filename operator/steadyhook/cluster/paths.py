"""
The paths of the API objects in use (Kubernetes API conventions, "Resources").

Names come from objects that others write. Each is quoted, and refused if it would lead to another path: a client
resolves ``..`` before it sends, and the API server decodes ``%2F`` before it looks at the path.
"""
import re
import urllib.parse

from steadyhook.cluster import client

GROUP = "steadyhook.io"
VERSION = "v1alpha1"
CONFIGURATION_KINDS = {
    "ValidatingWebhookConfiguration": "admissionregistration.k8s.io/v1/validatingwebhookconfigurations",
    "MutatingWebhookConfiguration": "admissionregistration.k8s.io/v1/mutatingwebhookconfigurations",
    "CustomResourceDefinition": "apiextensions.k8s.io/v1/customresourcedefinitions",
    "APIService": "apiregistration.k8s.io/v1/apiservices",
}
"""The kinds that hold a caBundle: group, version and plural."""


_LABEL_VALUE = re.compile(r"[A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?")


def segment(name: str) -> str:
    """
    A name as one segment of a path, quoted. Raises :class:`client.Malformed` if the API server could not have it.

    The rule is that of the API server itself (``IsValidPathSegmentName``).
    """
    if name in ("", ".", "..") or "/" in name or "%" in name:
        raise client.Malformed(
            method="name", path=repr(name[:253]), status=0,
            message="no object can have it, expected a name that is neither empty nor '.' nor '..' and holds no '/' and"
                    " no '%'; nothing was asked, correct the name")
    return urllib.parse.quote(name, safe="")


def _in_namespace(prefix: str, namespace: str, plural: str) -> str:
    return f"{prefix}/namespaces/{segment(namespace)}/{plural}"


def secrets(namespace: str) -> str:
    return _in_namespace("/api/v1", namespace, "secrets")


def secret(namespace: str, name: str) -> str:
    return f"{secrets(namespace)}/{segment(name)}"


def events(namespace: str) -> str:
    return _in_namespace("/api/v1", namespace, "events")


def node(name: str) -> str:
    return f"/api/v1/nodes/{segment(name)}"


def pod(namespace: str, name: str) -> str:
    return f"{_in_namespace('/api/v1', namespace, 'pods')}/{segment(name)}"


def service(namespace: str, name: str) -> str:
    return f"{_in_namespace('/api/v1', namespace, 'services')}/{segment(name)}"


def certificates(namespace: str) -> str:
    return _in_namespace(f"/apis/{GROUP}/{VERSION}", namespace, "webhookcertificates")


def certificate(namespace: str, name: str) -> str:
    return f"{certificates(namespace)}/{segment(name)}"


def all_certificates() -> str:
    """Those of every namespace."""
    return f"/apis/{GROUP}/{VERSION}/webhookcertificates"


def manager_nodes(namespace: str) -> str:
    return _in_namespace(f"/apis/{GROUP}/{VERSION}", namespace, "managernodes")


def manager_node(namespace: str, name: str) -> str:
    return f"{manager_nodes(namespace)}/{segment(name)}"


def peering(namespace: str, name: str) -> str:
    return f"{_in_namespace('/apis/kopf.dev/v1', namespace, 'kopfpeerings')}/{segment(name)}"


def endpoint_slices(namespace: str, service: str) -> str:
    """Those of one Service, by the label that its controller sets. Raises :class:`client.Malformed`."""
    if not _LABEL_VALUE.fullmatch(service):  # a selector has a syntax of its own, with commas and parentheses
        raise client.Malformed(
            method="name", path=repr(service[:253]), status=0,
            message="no Service can have it, expected a DNS label; nothing was asked, correct the name")
    return (f"{_in_namespace('/apis/discovery.k8s.io/v1', namespace, 'endpointslices')}"
            f"?labelSelector=kubernetes.io%2Fservice-name%3D{service}")


def configurations(kind: str) -> str:
    return f"/apis/{CONFIGURATION_KINDS[kind]}"


def configuration(kind: str, name: str) -> str:
    return f"{configurations(kind)}/{segment(name)}"
