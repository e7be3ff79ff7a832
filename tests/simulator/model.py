"""
The API server, as far as compare-and-swap needs it, and what the objects hold.

Objects carry uids and resourceVersions; a write is a create, or names the resourceVersion that it replaces. There is no
PEM: a certificate is a value. The ``pem`` of a CA's holds the name of its key, that of a leaf the name of the key that
has signed it; so a CA that is renewed with its key verifies what the former one has signed.
"""
import collections.abc
import dataclasses
import datetime
from typing import Any

from steadyhook.core import facts, issuing, policy, reasons

LEAF, AUTHORITY, PROVIDED, CERTIFICATE, PEERING = "leaf", "ca", "own-ca", "whcert", "peering"
CONFIGURATION, NODE = "configuration/", "node/"

Certificates = tuple[facts.Certificate, ...]


class Conflict(Exception):
    """409, or a failed test of a patch (422): not what the decision was made from."""


class Forbidden(Exception):
    """403."""


class Rejected(Exception):
    """An admission policy or webhook is against it."""


class Unreachable(Exception):
    """No answer: whether a write took effect is not known."""


@dataclasses.dataclass(frozen=True, slots=True)
class Object:
    """One version of an object in the store; ``author`` is who has written it."""

    key: str
    uid: str
    resource_version: int
    value: Any
    author: str


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class LeafContent:
    """The leaf Secret; ``unreadable`` is why the pair in it cannot be read."""

    certificate: facts.Certificate
    trusted: Certificates
    mark: str | None
    generation: int | None
    request: str | None = None
    unreadable: reasons.Reason | None = None
    recreate: bool = False
    static: bool = False
    ours: bool = True


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class AuthorityContent:
    """The CA Secret. A pair whose certificate is None is damaged; ``has_successor`` is whether there was to be one."""

    certificate: facts.Certificate | None
    bundle: Certificates
    successor: facts.Certificate | None = None
    has_successor: bool = False
    switched: str | None = None  # the fingerprint of the successor, once it signs
    retired: tuple[str, ...] = ()
    request: str | None = None
    bundle_unreadable: bool = False
    recreate: bool = False
    static: bool = False
    ours: bool = True


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class CertificateContent:
    """The WebhookCertificate: the policy that its spec and annotations come to, and its status."""

    wanted: policy.Policy
    status: dict[str, Any]
    generation: int = 1


class Store:
    """The objects. ``on_write(old, new)`` is told each change; None stands for no object."""

    def __init__(self, on_write: collections.abc.Callable[[Object | None, Object | None], None]) -> None:
        self.objects: dict[str, Object] = {}
        self._on_write = on_write
        self._version = 0

    def get(self, key: str) -> Object | None:
        return self.objects.get(key)

    def list(self, prefix: str) -> list[Object]:
        return [item for key, item in sorted(self.objects.items()) if key.startswith(prefix)]

    def create(self, key: str, value: Any, *, author: str) -> Object:
        if key in self.objects:
            raise Conflict(f"{key} exists already")
        self._version += 1
        return self._put(None, Object(key, f"uid-{self._version}", self._version, value, author))

    def update(self, key: str, value: Any, *, resource_version: int | None, author: str) -> Object:
        """``resource_version`` None is for people, who overwrite what they like."""
        old = self.objects.get(key)
        if old is None or resource_version not in (None, old.resource_version):
            raise Conflict(f"{key} is not at {resource_version}")
        self._version += 1
        return self._put(old, Object(key, old.uid, self._version, value, author))

    def delete(self, key: str, *, resource_version: int | None) -> None:
        old = self.objects.get(key)
        if old is None or resource_version not in (None, old.resource_version):
            raise Conflict(f"{key} is not at {resource_version}")
        self._version += 1
        del self.objects[key]
        self._on_write(old, None)

    def _put(self, old: Object | None, new: Object) -> Object:
        self.objects[new.key] = new
        self._on_write(old, new)
        return new


class Mint:
    """Makes certificates with the profile of ``pki.minting``."""

    def __init__(self) -> None:
        self._count = 0
        self.keys: dict[facts.Fingerprint, str] = {}  # the names of the keys of CAs

    def authority(
        self, wanted: policy.Policy, now: datetime.datetime, name: str = "CA", *, key: str | None = None,
    ) -> facts.Certificate:
        """``key``: the name of a key that there is already."""
        made = self._certificate(name, None, now, wanted.ca_duration, wanted, is_ca=True)
        made = dataclasses.replace(made, pem=key or f"key of {made.fingerprint}")
        self.keys[made.fingerprint] = made.pem
        return made

    def leaf(self, wanted: policy.Policy, signer: facts.Certificate, now: datetime.datetime) -> facts.Certificate:
        return self._certificate("leaf", signer, now, wanted.duration, wanted, is_ca=False)

    def _certificate(
        self, name: str, signer: facts.Certificate | None, now: datetime.datetime, life: datetime.timedelta,
        wanted: policy.Policy, *, is_ca: bool,
    ) -> facts.Certificate:
        self._count += 1
        start = now.replace(microsecond=0)
        end = start + life
        fingerprint = f"{name}-{self._count}"
        begin = start - issuing.BACKDATE
        return facts.Certificate(
            fingerprint=fingerprint, not_before=max(begin, signer.not_before) if signer else begin,
            not_after=min(end, signer.not_after) if signer else end, is_ca=is_ca, pem=signer.pem if signer else "",
            dns_names=frozenset() if is_ca else wanted.dns_names, key_algorithm=wanted.algorithm)


def read_leaf(item: Object, authorities: Certificates = (), *, by_listener: bool = False) -> facts.Leaf:
    """As ``pki.secrets.read_leaf``."""
    content: LeafContent = item.value
    secret = _secret(item)
    if content.unreadable is not None:
        return facts.Leaf(secret=secret, trusted=content.trusted, generation=content.generation, defect=facts.Defect(
            reason=content.unreadable, message=f"Secret leaf is damaged ({content.unreadable})"))
    key = content.certificate.pem
    adopted = by_listener and content.mark != content.certificate.fingerprint
    trusted = () if adopted else content.trusted
    signers = frozenset(one.fingerprint for one in (*trusted, *authorities) if one.is_ca and one.pem == key)
    return facts.Leaf(
        secret=secret, certificate=content.certificate, trusted=trusted, ready_mark=content.mark,
        signers=signers, generation=content.generation, request=content.request,
        adopted=adopted)


def read_authority(item: Object) -> facts.Authority:
    """As ``pki.secrets.read_authority``."""
    content: AuthorityContent = item.value
    salvaged = {one.fingerprint: one for one in (*content.bundle, content.certificate, content.successor) if one}
    defect = None if content.certificate else facts.Defect(
        reason=reasons.Reason.KEY_MISMATCH, message="Secret ca is damaged")
    lacks_signer = content.certificate is not None and content.certificate not in content.bundle
    return facts.Authority(
        secret=_secret(item), defect=defect, certificate=content.certificate,
        successor=content.successor, successor_damaged=content.has_successor and content.successor is None,
        switched=content.successor is not None and content.switched == content.successor.fingerprint,
        retired=content.retired, request=content.request, bundle=tuple(salvaged.values()),
        bundle_damaged=defect is None and (content.bundle_unreadable or lacks_signer))


def _secret(item: Object) -> facts.Secret:
    return facts.Secret(
        name=item.key, uid=item.uid, resource_version=str(item.resource_version), recreate=item.value.recreate,
        static=item.value.static, ours=item.value.ours)
