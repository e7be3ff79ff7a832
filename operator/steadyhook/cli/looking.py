"""Looking at a Secret and all around it for a while: the reading that a diagnosis needs."""
import collections.abc
import concurrent.futures
import threading
from typing import TypeVar

from steadyhook.cli import cluster, diagnosis, issuers
from steadyhook.core import facts, leaf
from steadyhook.pki import certificates, entries, secrets

CONFIGURATIONS = {
    "ValidatingWebhookConfiguration": "/apis/admissionregistration.k8s.io/v1/validatingwebhookconfigurations",
    "MutatingWebhookConfiguration": "/apis/admissionregistration.k8s.io/v1/mutatingwebhookconfigurations",
    "CustomResourceDefinition": "/apis/apiextensions.k8s.io/v1/customresourcedefinitions",
    "APIService": "/apis/apiregistration.k8s.io/v1/apiservices",
}
LOOKS = 3
Result = TypeVar("Result")
Call = tuple[str, facts.Entry]


def calls(found: cluster.Cluster) -> list[Call]:
    """Every entry of every configuration that calls a Service, with what it is in words."""
    result = []
    for kind, path in CONFIGURATIONS.items():
        for item in found.list(path):
            result += [(f"{kind} {item['metadata']['name']} ({entry.name})", entry)
                       for entry in entries.read(kind, item) if entry.service is not None]
    return result


def installations(found: cluster.Cluster) -> issuers.Seen:
    """Every installation of steadyhook: of the whole cluster, or else of the namespace, as far as one may look."""
    selector = "labelSelector=app.kubernetes.io%2Fname%3Dsteadyhook"
    hidden: list[str] = []

    def listed(group: str, kind: str) -> list[cluster.Manifest]:
        try:
            return found.list(f"{group}/{kind}?{selector}")
        except cluster.NotFound:
            return []  # without the definition there is no object
        except cluster.Forbidden:
            hidden.append(kind)
        try:
            return found.list(f"{group}/namespaces/{found.namespace}/{kind}?{selector}")
        except (cluster.NotFound, cluster.Forbidden):
            return []

    elections = [issuers.read_election(item) for item in listed("/apis/kopf.dev/v1", "kopfpeerings")]
    programs = [issuers.read_program({**item, "kind": kind}) for kind, plural in (
        ("Deployment", "deployments"), ("DaemonSet", "daemonsets")) for item in listed("/apis/apps/v1", plural)]
    return issuers.Seen(
        elections=tuple(elections), programs=tuple(item for item in programs if item is not None),
        hidden=f"you may not list {', '.join(hidden)} outside of namespace {found.namespace}" if hidden else None)


def where(found: cluster.Cluster, standing: issuers.Standing) -> str:
    """The active issuer and where it runs, in words."""
    if standing.identity is None:
        return standing.problem or f"not known: {standing.hidden}"
    path = f"/api/v1/namespaces/{standing.namespace}/pods/{standing.identity}"
    try:
        pod = found.find(path) if issuers.is_name(standing.identity) else None
    except cluster.Forbidden:
        return f"{standing.identity} in {standing.namespace}"
    if pod is None:
        return (f"{standing.identity}, by the election in {standing.namespace}, which has no pod of that name: it runs"
                " outside of the cluster, or it is kopf freeze")
    return f"{standing.identity} in {standing.namespace}, on {pod['spec'].get('nodeName', 'no node yet')}"


def rights(found: cluster.Cluster, account: str, *, leaf_secret: str, ca_secret: str) -> tuple[list[str], str | None]:
    """What an issuer's account, "namespace:name", may not do with these Secrets, and what could not be checked."""
    namespace, _, name = account.partition(":")
    missing = []
    for verb, each in (("create", ""), ("patch", leaf_secret), ("patch", ca_secret)):  # few: each takes long in a storm
        review = {
            "apiVersion": "authorization.k8s.io/v1", "kind": "LocalSubjectAccessReview",
            "metadata": {"namespace": found.namespace},
            "spec": {"user": f"system:serviceaccount:{account}",
                     "groups": ["system:serviceaccounts", f"system:serviceaccounts:{namespace}",
                                "system:authenticated"],
                     "resourceAttributes": {"namespace": found.namespace, "verb": verb, "resource": "secrets",
                                            "name": each, "version": "v1"}}}
        path = f"/apis/authorization.k8s.io/v1/namespaces/{found.namespace}/localsubjectaccessreviews"
        try:
            answer = found.create(path, review)
        except cluster.Forbidden:
            return [], (f"whether ServiceAccount {namespace}/{name} may write Secrets in namespace {found.namespace}"
                        " (you may not create localsubjectaccessreviews)")
        if not (answer.get("status") or {}).get("allowed"):
            missing.append(f"{verb} {each or 'Secrets'}")
    return missing, None


def candidates(found: cluster.Cluster, namespace: str, called: collections.abc.Iterable[Call]) -> list[str]:
    """The Secrets of a namespace that a webhook may serve from, by name."""
    services = {entry.service for _, entry in called}
    names = []
    for item in found.list(f"/api/v1/namespaces/{namespace}/secrets"):
        annotations = item["metadata"].get("annotations") or {}
        certificate = secrets.read_leaf(item, by_listener=True).certificate
        ours = any(key.startswith(secrets.LISTENER_NAME) or key == secrets.READY_MARK for key in annotations)
        for_service = certificate is not None and any(
            service is not None and leaf.covers(certificate.dns_names, f"{service[1]}.{service[0]}.svc")
            for service in services)
        if ours or for_service:
            names.append(item["metadata"]["name"])
    return names


def is_listeners(secret: cluster.Manifest) -> bool:
    """Whether listeners of dynamiclistener have it, or had it: they alone set these annotations."""
    annotations = secret["metadata"].get("annotations") or {}
    return any(key.startswith("listener.cattle.io/") for key in annotations)


def certificate_name(secret: str) -> str:
    """Of the WebhookCertificate that adopting a Secret makes."""
    return secret.removesuffix("-tls")


def ca_name(secret: str) -> str:
    """The Secret of its CA, as dynamiclistener's users name them."""
    return f"{certificate_name(secret)}-ca"


def look(
    found: cluster.Cluster, namespace: str, name: str, *, seconds: float, called: list[Call],
) -> diagnosis.Looked:
    """
    Look for so many seconds, and again for as long if what has changed by then does not tell enough.

    Raises :class:`cluster.Failed`.
    """
    first = secret(found, namespace, name)
    versions = [diagnosis.Version(at=0.0, fingerprint=_fingerprint(first))]
    last = latest = first
    looked_for = 0.0
    owner = _owner(found, namespace, name)
    asks = owner is not None or is_listeners(first)
    issuing = _meanwhile(_issuing, found.again(namespace), name, owner) if asks else None
    for _ in range(LOOKS):
        for at, kind, item in found.watch(
                f"/api/v1/namespaces/{namespace}/secrets", selector=f"metadata.name={name}",
                resource_version=latest["metadata"]["resourceVersion"], seconds=seconds):
            latest = item
            if kind != "DELETED":
                versions.append(diagnosis.Version(at=looked_for + at, fingerprint=_fingerprint(item)))
                last = item
        looked_for += seconds
        if not 1 < len(versions) <= diagnosis.TELLING_UPDATES:
            break
    services = {entry.service for _, entry in called if entry.service is not None}
    held = secrets.read_leaf(last, by_listener=True)
    mounting = _mounting(found, namespace, name)
    pods = {service: _pods(found, *service) for service in sorted(services)
            if service[0] == namespace or _covers(held, service)}
    mine = [service for service in pods if _covers(held, service) or _should_cover(
        held, service, served_by_its_pods=any(pod.name in mounting for pod in pods[service]))]
    annotations = last["metadata"].get("annotations") or {}
    standing, missing = issuing.result() if issuing is not None else (None, ())
    ahead = found.clock_ahead
    return diagnosis.Looked(
        listened=is_listeners(last), cert_manager=annotations.get("cert-manager.io/certificate-name"), issuing=standing,
        rights_missing=missing,
        clock_ahead=ahead if ahead is not None and abs(ahead) >= cluster.CLOCK_DIFFERS else None,
        namespace=namespace, name=name, seconds=looked_for, versions=tuple(versions), leaf=held,
        static=annotations.get(secrets.STATIC) == "true",
        owner=owner,
        writers=tuple(sorted({item["manager"] for item in last["metadata"].get("managedFields") or []})),
        callers=tuple(diagnosis.Caller(what=what, service=entry.service, verifies=_verifies(last, entry))
                      for what, entry in called if entry.service in mine and entry.service is not None),
        pods=tuple(pod for service in mine for pod in pods[service]),
        instances=tuple(_instances(found, namespace, owner)) if owner is not None else ())


def _meanwhile(
    function: collections.abc.Callable[..., Result], *arguments: object
) -> concurrent.futures.Future[Result]:
    """Call it beside what follows (in a storm each answer takes its time), in a thread that no exit waits for."""
    future: concurrent.futures.Future[Result] = concurrent.futures.Future()

    def call() -> None:
        try:
            future.set_result(function(*arguments))
        except BaseException as error:
            future.set_exception(error)

    threading.Thread(target=call, daemon=True).start()
    return future


def _issuing(
    found: cluster.Cluster, secret_name: str, owner: str | None
) -> tuple[issuers.Standing, tuple[str, ...]]:
    """Who issues the Secret's WebhookCertificate, or would if it were adopted; and the rights that are missing then."""
    seen = installations(found)
    standing = issuers.standing(seen, namespace=found.namespace, certificate=owner or certificate_name(secret_name),
                                now=found.now())
    if owner is not None or standing.account is None:
        return standing, ()
    missing, _ = rights(found, standing.account, leaf_secret=secret_name, ca_secret=ca_name(secret_name))
    return standing, tuple(missing)


def secret(found: cluster.Cluster, namespace: str, name: str) -> cluster.Manifest:
    """The Secret. Raises :class:`cluster.NotFound` with what is missing."""
    try:
        return found.get(f"/api/v1/namespaces/{namespace}/secrets/{name}")
    except cluster.NotFound as error:
        where = f"namespace {namespace}" if found.find(f"/api/v1/namespaces/{namespace}") else (
            f"namespace {namespace}, which does not exist itself")
        raise cluster.NotFound(f"there is no Secret {name} in {where}; name another one, or -n for another"
                               " namespace") from error


def _fingerprint(manifest: cluster.Manifest) -> str:
    """Of the leaf, or what stands for it where there is no readable one."""
    certificate = secrets.read_leaf(manifest, by_listener=True).certificate
    if certificate is not None:
        return certificate.fingerprint
    return str((manifest["metadata"].get("annotations") or {}).get(secrets.LISTENER_FINGERPRINT, "unreadable"))


def _covers(held: facts.Leaf, service: tuple[str, str]) -> bool:
    certificate = held.certificate
    return certificate is not None and leaf.covers(certificate.dns_names, f"{service[1]}.{service[0]}.svc")


def _should_cover(held: facts.Leaf, service: tuple[str, str], *, served_by_its_pods: bool) -> bool:
    """Whether a Service of the Secret's namespace is meant, though the leaf is not for it, or cannot be read."""
    if held.certificate is None or served_by_its_pods:
        return True
    return any(name.partition(".")[0] == service[1] for name in held.certificate.dns_names)


def _mounting(found: cluster.Cluster, namespace: str, name: str) -> set[str]:
    """The pods that have the Secret as a volume, as far as one may look."""
    try:
        listed = found.list(f"/api/v1/namespaces/{namespace}/pods")
    except cluster.Forbidden:
        return set()
    return {item["metadata"]["name"] for item in listed for volume in item["spec"].get("volumes") or []
            if (volume.get("secret") or {}).get("secretName") == name}


def _instances(found: cluster.Cluster, namespace: str, certificate: str) -> list[diagnosis.Instance]:
    """What each of our own servers says that it serves."""
    try:
        listed = found.list(f"/apis/steadyhook.io/v1alpha1/namespaces/{namespace}/managernodes")
    except (cluster.NotFound, cluster.Forbidden):
        return []
    return [diagnosis.Instance(pod=item["podName"], node=node["metadata"]["name"], fingerprint=item["fingerprint"])
            for node in listed for item in (node.get("status") or {}).get("instances", [])
            if item.get("certificate") == certificate and item.get("fingerprint")]


def _verifies(manifest: cluster.Manifest, entry: facts.Entry) -> bool:
    try:
        pair = secrets.key_pair(manifest)
    except ValueError:
        return False
    itself = pair.certificate.fingerprint in {item.fingerprint for item in entry.trusted}
    return itself or bool(certificates.signers(pair.certificate_pem, entry.trusted))


def _owner(found: cluster.Cluster, namespace: str, name: str) -> str | None:
    try:
        listed = found.list(f"/apis/steadyhook.io/v1alpha1/namespaces/{namespace}/webhookcertificates")
    except (cluster.NotFound, cluster.Forbidden):
        return None
    return next((item["metadata"]["name"] for item in listed if item["spec"].get("secretName") == name), None)


def _pods(found: cluster.Cluster, namespace: str, service: str) -> list[diagnosis.Pod]:
    path = (f"/apis/discovery.k8s.io/v1/namespaces/{namespace}/endpointslices"
            f"?labelSelector=kubernetes.io%2Fservice-name%3D{service}")
    return [diagnosis.Pod(name=(item.get("targetRef") or {}).get("name", item["addresses"][0]),
                          ready=(item.get("conditions") or {}).get("ready") is not False)
            for part in found.list(path) for item in part.get("endpoints") or []]


