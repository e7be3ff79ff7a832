"""The paths of the API objects in use (Kubernetes API conventions, "Resources")."""

GROUP = "steadyhook.io"
VERSION = "v1alpha1"
CONFIGURATION_KINDS = {
    "ValidatingWebhookConfiguration": "admissionregistration.k8s.io/v1/validatingwebhookconfigurations",
    "MutatingWebhookConfiguration": "admissionregistration.k8s.io/v1/mutatingwebhookconfigurations",
    "CustomResourceDefinition": "apiextensions.k8s.io/v1/customresourcedefinitions",
    "APIService": "apiregistration.k8s.io/v1/apiservices",
}
"""The kinds that hold a caBundle: group, version and plural."""


def secrets(namespace: str) -> str:
    return f"/api/v1/namespaces/{namespace}/secrets"


def secret(namespace: str, name: str) -> str:
    return f"{secrets(namespace)}/{name}"


def events(namespace: str) -> str:
    return f"/api/v1/namespaces/{namespace}/events"


def node(name: str) -> str:
    return f"/api/v1/nodes/{name}"


def pod(namespace: str, name: str) -> str:
    return f"/api/v1/namespaces/{namespace}/pods/{name}"


def certificate(namespace: str, name: str) -> str:
    return f"/apis/{GROUP}/{VERSION}/namespaces/{namespace}/webhookcertificates/{name}"


def all_certificates() -> str:
    """Those of every namespace."""
    return f"/apis/{GROUP}/{VERSION}/webhookcertificates"


def manager_nodes(namespace: str) -> str:
    return f"/apis/{GROUP}/{VERSION}/namespaces/{namespace}/managernodes"


def manager_node(namespace: str, name: str) -> str:
    return f"{manager_nodes(namespace)}/{name}"


def peering(namespace: str, name: str) -> str:
    return f"/apis/kopf.dev/v1/namespaces/{namespace}/kopfpeerings/{name}"


def endpoint_slices(namespace: str, service: str) -> str:
    """Those of one Service, by the label that its controller sets."""
    return (f"/apis/discovery.k8s.io/v1/namespaces/{namespace}/endpointslices"
            f"?labelSelector=kubernetes.io%2Fservice-name%3D{service}")


def configurations(kind: str) -> str:
    return f"/apis/{CONFIGURATION_KINDS[kind]}"


def configuration(kind: str, name: str) -> str:
    return f"{configurations(kind)}/{name}"
