"""What is to be issued: the spec of a WebhookCertificate, checked and with its defaults filled in."""
import collections.abc
import dataclasses
import datetime
import enum
import re
from typing import Any


class KeyAlgorithm(enum.StrEnum):
    """The private keys that can be asked for."""

    ECDSA_P256 = "ECDSA-P256"
    ECDSA_P384 = "ECDSA-P384"
    ED25519 = "Ed25519"
    RSA_2048 = "RSA-2048"
    RSA_3072 = "RSA-3072"
    RSA_4096 = "RSA-4096"


class Compatibility(enum.StrEnum):
    """Who reads the Secrets, if not the serving half."""

    DYNAMICLISTENER = "Dynamiclistener"  # the library in the webhooks of Longhorn and Rancher


class InvalidSpec(Exception):
    """A spec that nothing can be issued from. The data are comparable; the text is for people."""

    def __init__(self, *, field: str, found: object, expected: str, remedy: str) -> None:
        super().__init__(f"{field} is {found!r}, expected {expected}; {remedy}")
        self.field = field
        self.found = found
        self.expected = expected
        self.remedy = remedy


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Policy:
    """A valid spec."""

    namespace: str
    name: str
    secret_name: str
    dns_names: frozenset[str]
    algorithm: KeyAlgorithm
    duration: datetime.timedelta
    renew_before: datetime.timedelta
    ca_duration: datetime.timedelta
    ca_renew_before: datetime.timedelta
    settle_seconds: float
    services: frozenset[tuple[str, str]] = frozenset()  # (namespace, name) of the Services whose endpoints serve it
    authority_name: str | None = None  # of a Secret with a CA of the user's own
    rotate_authority: str | None = None  # a request: any value that was not taken up yet
    rotate_leaf: str | None = None
    compatibility: Compatibility | None = None
    ca_secret_name: str | None = None

    @property
    def authority_secret_name(self) -> str:
        return self.ca_secret_name or f"{self.secret_name}-ca"


_LABEL = r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?"
_SUBDOMAIN = re.compile(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*")
_SERVICE_NAME = re.compile(r"[a-z]([-a-z0-9]{0,61}[a-z0-9])?")
_NAMESPACE_NAME = re.compile(_LABEL)
_DNS_NAME = re.compile(rf"(\*\.)?({_LABEL}\.)*{_LABEL}")
_DURATION = re.compile(r"(?=.)(?:(?P<hours>\d+)h)?(?:(?P<minutes>\d+)m)?(?:(?P<seconds>\d+)s)?")

DEFAULT_DURATIONS = {"duration": "2160h", "renewBefore": "720h", "caDuration": "87600h", "caRenewBefore": "17520h"}
LONGEST_SECRET_NAME = 250
"""Leaves room for '-ca' within the 253 characters of a name."""

LONGEST = datetime.timedelta(days=100 * 366)
RENEWED_BY_OTHERS = datetime.timedelta(days=90)
"""What has less left than this, programs with dynamiclistener renew by themselves, or complain about."""


ROTATE_AUTHORITY = "steadyhook.io/rotate-ca"
ROTATE_LEAF = "steadyhook.io/rotate-leaf"
LOOK = "steadyhook.io/look"
"""Any new value has the issuer look at once: after a right was granted, say, of which nothing tells it."""
LONGEST_REQUEST = 253
"""So much of a request is looked at: it is written down beside what fulfils it, where there is little room."""


def requests(annotations: collections.abc.Mapping[str, str]) -> dict[str, str]:
    """The requests among the annotations."""
    return {key: annotations[key][:LONGEST_REQUEST] for key in (ROTATE_AUTHORITY, ROTATE_LEAF, LOOK)
            if key in annotations}


def parse(
    spec: collections.abc.Mapping[str, Any], *, namespace: str, name: str,
    annotations: collections.abc.Mapping[str, str] | None = None,
) -> Policy:
    """
    Turn the spec of a WebhookCertificate, and the requests in its annotations, into a policy.

    The CustomResourceDefinition rejects most mistakes when they are applied; this is the check of what an older
    or a hand-edited definition let through. Raises :class:`InvalidSpec` for the first mistake, and nothing else.
    """
    try:
        return _parse(spec, namespace=namespace, name=name, annotations=annotations or {})
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise InvalidSpec(field="spec", found=type(error).__name__, expected="values of the types in the definition",
                          remedy="apply manifests/crds, which refuses others, and then the object once more") from error


def _parse(
    spec: collections.abc.Mapping[str, Any], *, namespace: str, name: str,
    annotations: collections.abc.Mapping[str, str],
) -> Policy:
    asked = requests(annotations)
    secret_name = _secret_name("spec.secretName", spec.get("secretName"), most=LONGEST_SECRET_NAME)
    if secret_name.endswith("-ca"):
        raise InvalidSpec(field="spec.secretName", found=secret_name,
                          expected="a name without '-ca' at its end, which is how the Secrets of CAs are named",
                          remedy=f"choose another name, such as '{secret_name}-tls'")
    algorithm = spec.get("privateKey", {}).get("algorithm", KeyAlgorithm.ECDSA_P256)
    if algorithm not in list(KeyAlgorithm):
        raise InvalidSpec(field="spec.privateKey.algorithm", found=algorithm,
                          expected="one of " + ", ".join(KeyAlgorithm), remedy="choose one of these")
    settle_seconds = spec.get("settleSeconds", 10)
    if not isinstance(settle_seconds, int | float) or not 0 <= settle_seconds <= 3600:
        raise InvalidSpec(field="spec.settleSeconds", found=settle_seconds, expected="a number from 0 to 3600",
                          remedy="leave it out for the default of 10")
    policy = Policy(
        namespace=namespace,
        name=name,
        secret_name=secret_name,
        dns_names=_dns_names(spec, namespace=namespace),
        algorithm=KeyAlgorithm(algorithm),
        duration=_duration(spec, "duration"),
        renew_before=_duration(spec, "renewBefore"),
        ca_duration=_duration(spec, "caDuration"),
        ca_renew_before=_duration(spec, "caRenewBefore"),
        settle_seconds=float(settle_seconds),
        services=_services(spec, namespace=namespace),
        authority_name=_authority_name(spec),
        rotate_authority=asked.get(ROTATE_AUTHORITY),
        rotate_leaf=asked.get(ROTATE_LEAF),
        compatibility=_compatibility(spec),
        ca_secret_name=_secret_name("spec.caSecretName", spec["caSecretName"]) if "caSecretName" in spec else None,
    )
    for field, found, relation, bound in (
        ("renewBefore", policy.renew_before, "shorter than spec.duration", policy.renew_before < policy.duration),
        ("caRenewBefore", policy.ca_renew_before, "longer than spec.duration",
         policy.ca_renew_before > policy.duration),
        ("caRenewBefore", policy.ca_renew_before, "shorter than spec.caDuration",
         policy.ca_renew_before < policy.ca_duration),
    ):
        if not bound:
            raise InvalidSpec(field=f"spec.{field}", found=str(found), expected=f"a duration {relation}",
                              remedy=f"change spec.{field} or the duration that it is measured against")
    if policy.authority_secret_name == policy.secret_name:
        raise InvalidSpec(field="spec.caSecretName", found=policy.ca_secret_name,
                          expected="another Secret than spec.secretName", remedy="name the CA's Secret")
    if policy.authority_name in (policy.secret_name, policy.authority_secret_name):
        raise InvalidSpec(field="spec.authority.secretName", found=policy.authority_name,
                          expected="another Secret than the two that are written here",
                          remedy="put the CA of your own into a Secret of its own")
    if policy.compatibility is Compatibility.DYNAMICLISTENER:
        _check_dynamiclistener(policy)
    return policy


def _secret_name(field: str, found: object, *, most: int = 253) -> str:
    """The issuer asks the API server for a Secret of this name with its own rights, so it has to be a name."""
    if not isinstance(found, str) or len(found) > most or not _SUBDOMAIN.fullmatch(found):
        raise InvalidSpec(field=field, found=found,
                          expected=f"the name of a Secret, a DNS subdomain (RFC 1123) of at most {most} characters",
                          remedy="use lower-case letters, digits, '-' and '.'")
    return found


def _authority_name(spec: collections.abc.Mapping[str, Any]) -> str | None:
    authority = spec.get("authority")
    return _secret_name("spec.authority.secretName", authority.get("secretName")) if authority is not None else None


def _check_dynamiclistener(policy: Policy) -> None:
    """longhorn-manager v1.11 and later replaces what is not so, which would be a fight."""
    if policy.algorithm not in (KeyAlgorithm.RSA_2048, KeyAlgorithm.RSA_3072, KeyAlgorithm.RSA_4096):
        raise InvalidSpec(field="spec.privateKey.algorithm", found=str(policy.algorithm),
                          expected="an RSA key for compatibility: Dynamiclistener", remedy="set it to RSA-2048")
    if wildcards := sorted(name for name in policy.dns_names if name.startswith("*")):
        raise InvalidSpec(field="spec.dnsNames", found=wildcards[0],
                          expected="no wildcard for compatibility: Dynamiclistener, which notes each name as the key of"
                                   " an annotation",
                          remedy="name each Service as NAME.NAMESPACE.svc")
    if not policy.services:
        raise InvalidSpec(field="spec.dnsNames", found=sorted(policy.dns_names),
                          expected="at least one NAME.NAMESPACE.svc for compatibility: Dynamiclistener, by which its"
                                   " endpoints and the configurations that call it are found",
                          remedy="add the name by which the API server calls the webhook's Service")
    if policy.renew_before <= RENEWED_BY_OTHERS:
        raise InvalidSpec(field="spec.renewBefore", found=str(policy.renew_before),
                          expected="more than 2160h (90 days) for compatibility: Dynamiclistener",
                          remedy="set spec.duration to 8760h and spec.renewBefore to 2400h")


def _compatibility(spec: collections.abc.Mapping[str, Any]) -> Compatibility | None:
    value = spec.get("compatibility")
    if value is not None and value not in list(Compatibility):
        raise InvalidSpec(field="spec.compatibility", found=value, expected="one of " + ", ".join(Compatibility),
                          remedy="leave it out for a webhook that steadyhook serves")
    return Compatibility(value) if value is not None else None


def service_names(*, name: str, namespace: str) -> frozenset[str]:
    """The DNS names by which a Service is called; the API server verifies ``NAME.NAMESPACE.svc``."""
    base = f"{name}.{namespace}"
    return frozenset({base, f"{base}.svc", f"{base}.svc.cluster.local"})


def _dns_names(spec: collections.abc.Mapping[str, Any], *, namespace: str) -> frozenset[str]:
    names = spec.get("dnsNames") or []
    for index, dns_name in enumerate(names):
        if not isinstance(dns_name, str) or not _is_dns_name(dns_name):
            raise InvalidSpec(field=f"spec.dnsNames[{index}]", found=dns_name, expected="a DNS name (RFC 1123)",
                              remedy="use lower-case letters, digits, '-' and '.', optionally after a leading '*.'")
    service = _service(spec, namespace=namespace)
    if not names and service is None:
        raise InvalidSpec(field="spec.dnsNames", found=names, expected="at least one DNS name, or spec.service",
                          remedy="name the webhook's Service in spec.service")
    derived = service_names(namespace=service[0], name=service[1]) if service is not None else ()
    return frozenset(names) | frozenset(derived)


def _service(spec: collections.abc.Mapping[str, Any], *, namespace: str) -> tuple[str, str] | None:
    """(namespace, name) of spec.service."""
    service = spec.get("service")
    if not service:
        return None
    name, home = service.get("name"), service.get("namespace", namespace)
    for field, found, rule, expected in (
        ("name", name, _SERVICE_NAME, "the name of a Service, a DNS label (RFC 1035)"),
        ("namespace", home, _NAMESPACE_NAME, "the name of a namespace, a DNS label (RFC 1123)"),
    ):
        if not isinstance(found, str) or not rule.fullmatch(found):
            raise InvalidSpec(field=f"spec.service.{field}", found=found, expected=expected,
                              remedy="use lower-case letters, digits and '-'")
    return home, name


def _services(spec: collections.abc.Mapping[str, Any], *, namespace: str) -> frozenset[tuple[str, str]]:
    """Those that are named, and those that DNS names are of; a wildcard is no Service that could be asked about."""
    service = _service(spec, namespace=namespace)
    found = {service} if service is not None else set()
    return frozenset(found | {one for name in spec.get("dnsNames") or [] if (one := service_of(name)) is not None})


def service_of(dns_name: str) -> tuple[str, str] | None:
    """(namespace, name) of the Service that the API server calls by this very name, ``NAME.NAMESPACE.svc``."""
    name, _, rest = dns_name.partition(".")
    home, _, suffix = rest.partition(".")
    is_one = suffix == "svc" and _SERVICE_NAME.fullmatch(name) and _NAMESPACE_NAME.fullmatch(home)
    return (home, name) if is_one else None


def _is_dns_name(value: str) -> bool:
    return len(value) <= 253 and _DNS_NAME.fullmatch(value) is not None


def _duration(spec: collections.abc.Mapping[str, Any], field: str) -> datetime.timedelta:
    text = spec.get(field, DEFAULT_DURATIONS[field])
    match = _DURATION.fullmatch(text) if isinstance(text, str) else None
    try:
        value = datetime.timedelta(**{k: int(v) for k, v in match.groupdict("0").items()}) if match else None
    except OverflowError:
        value = None
    if value is None or not datetime.timedelta(0) < value <= LONGEST:
        raise InvalidSpec(field=f"spec.{field}", found=text, expected="a duration such as '2160h' or '90m'",
                          remedy="write whole hours, minutes and seconds, in this order, of at most 100 years")
    return value
