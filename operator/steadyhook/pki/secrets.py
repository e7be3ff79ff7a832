"""
Secrets -> facts, and back: the layout of the two Secrets of a certificate.

Leaf Secret: ``tls.crt``, ``tls.key``, ``ca.crt``, with the ready mark and the generation as annotations.
CA Secret: ``tls.crt`` and ``tls.key`` of the present signer, ``ca-bundle.crt`` with all that is trusted, and during a
rotation ``next.crt`` and ``next.key`` of the next signer.

For programs with dynamiclistener the CA Secret is laid out otherwise: ``tls.crt`` holds whoever signs now and after it
all else that is trusted, ``tls.key`` the key of the first; once the next one signs, ``next.*`` holds the former. Such a
program copies the whole of ``tls.crt`` into its webhook configurations.
"""
import base64
import collections.abc
import datetime
import hashlib
from typing import Any

from steadyhook.core import bounds, facts, policy, reasons
from steadyhook.pki import certificates, trial

SECRET_TYPE = "kubernetes.io/tls"
CERTIFICATE, KEY, LEAF_TRUST, BUNDLE = "tls.crt", "tls.key", "ca.crt", "ca-bundle.crt"
NEXT_CERTIFICATE, NEXT_KEY = "next.crt", "next.key"
READY_MARK = "steadyhook.io/ready"
GENERATION = "steadyhook.io/generation"
RETIRED = "steadyhook.io/retired"
STATIC = "listener.cattle.io/static"
LISTENER_FINGERPRINT = "listener.cattle.io/fingerprint"
LISTENER_PREFIX = "listener.cattle.io/"
LISTENER_NAME = LISTENER_PREFIX + "cn-"
PREFIX = "steadyhook.io/"
ADOPT = PREFIX + "adopt"
"""What a person sets to "true" on a Secret that may be written over though it was made by somebody else."""
MANAGED_BY = ("app.kubernetes.io/managed-by", "steadyhook")
SWITCHED = "steadyhook.io/switched"  # the fingerprint of the next signer, once it signs
REQUEST = "steadyhook.io/request"  # the request for a rotation that was taken up last
GENERATION_DIGITS = 18
"""So that it fits into the int64 of a status. Whether it is too far ahead is the decision's to judge, by its clock."""

Manifest = collections.abc.Mapping[str, Any]


class _Unreadable(Exception):
    def __init__(self, reason: reasons.Reason, message: str) -> None:
        super().__init__(message)
        self.reason = reason
        self.message = message


def read_secret(manifest: Manifest, *, by_listener: bool) -> facts.Secret:
    """The API object itself, whatever it holds, and whose it is. Never raises."""
    metadata = manifest["metadata"]
    return facts.Secret(
        name=metadata["name"], uid=metadata["uid"], resource_version=metadata["resourceVersion"],
        recreate=manifest.get("type") != SECRET_TYPE or bool(manifest.get("immutable")),
        static=_annotations(manifest).get(STATIC) == "true", ours=_is_ours(manifest, by_listener=by_listener))


def read_leaf(
    manifest: Manifest, *, authorities: collections.abc.Iterable[facts.Certificate] = (), by_listener: bool = False,
) -> facts.Leaf:
    """
    The facts of the leaf Secret. Never raises: what cannot be read is the defect.

    ``authorities``: further CA certificates that may have signed the leaf, besides those in its ``ca.crt``.
    ``by_listener``: whether a leaf will do that a dynamiclistener has made.
    """
    annotations = _annotations(manifest)
    secret = read_secret(manifest, by_listener=by_listener)
    try:
        pair = _pair(manifest)
        adopted = by_listener and annotations.get(READY_MARK) != pair.certificate.fingerprint
        trusted = () if adopted else _certificates(manifest, LEAF_TRUST)
    except _Unreadable as problem:
        return facts.Leaf(secret=secret, defect=_defect(secret, problem),
                          trusted=_authorities(_salvage(manifest, LEAF_TRUST)), generation=_generation(annotations))
    candidates = {item.fingerprint: item for item in (*trusted, *authorities)}
    return facts.Leaf(
        secret=secret,
        certificate=pair.certificate,
        trusted=_authorities(trusted),
        signers=certificates.signers(pair.certificate_pem, candidates.values()),
        ready_mark=annotations.get(READY_MARK),
        generation=_generation(annotations),
        request=annotations.get(REQUEST),
        adopted=adopted,
    )


def read_authority(manifest: Manifest, *, by_listener: bool = False) -> facts.Authority:
    """The facts of the CA Secret. Never raises; the bundle is read as far as it can be, whatever the defect."""
    secret = read_secret(manifest, by_listener=by_listener)
    manifest = _in_our_layout(manifest, by_listener=by_listener)
    annotations = _annotations(manifest)
    # A bundle may hold what is no CA's: the self-signed certificate of a webhook that was taken over.
    signers = (item for key in (CERTIFICATE, NEXT_CERTIFICATE) for item in _salvage(manifest, key) if item.is_ca)
    salvaged = {item.fingerprint: item for item in (*_salvage(manifest, BUNDLE), *signers)}
    bundle = tuple(salvaged.values())
    retired = tuple(dict.fromkeys(annotations.get(RETIRED, "").split()))[-bounds.RETIRED:]
    successor, successor_damaged = _successor(manifest)
    switched = successor is not None and annotations.get(SWITCHED) == successor.fingerprint
    try:
        certificate = _pair(manifest).certificate
        if not certificate.is_ca:
            raise _Unreadable(reasons.Reason.NOT_A_CA, "holds a certificate that is no CA's")
    except _Unreadable as problem:
        return facts.Authority(secret=secret, defect=_defect(secret, problem), bundle=bundle, retired=retired,
                               successor=successor, successor_damaged=successor_damaged,
                               switched=switched, request=annotations.get(REQUEST))
    return facts.Authority(
        secret=secret, certificate=certificate, bundle=bundle, bundle_damaged=_is_damaged(manifest, certificate),
        successor=successor, successor_damaged=successor_damaged, switched=switched, retired=retired,
        request=annotations.get(REQUEST))


def read_provided(
    manifest: Manifest, *, wanted: policy.Policy, now: datetime.datetime
) -> facts.Certificate | facts.Defect:
    """
    The CA in a Secret of the user's, or what is wrong with it. Never raises.

    A trial leaf shows that it can sign. One that has yet to begin is no defect: the decision waits for it.
    """
    authority = read_authority(manifest)
    certificate = authority.certificate
    if certificate is None:
        assert authority.defect is not None
        return authority.defect
    if now >= certificate.not_after:
        return facts.Defect(reason=reasons.Reason.EXPIRED, message=f"Secret {authority.secret.name} holds a CA that"
                            f" expired at {certificate.not_after:%Y-%m-%dT%H:%M:%SZ}")
    refusal = trial.defect(_pair(manifest), wanted, now=now)
    if refusal is not None:
        return facts.Defect(
            reason=reasons.Reason.NOT_USABLE,
            message=f"Secret {authority.secret.name} holds a CA that is of no use for this certificate: {refusal};"
                    " issue one with the key usage keyCertSign that may sign server certificates for its DNS names")
    return certificate


def key_pair(manifest: Manifest) -> certificates.KeyPair:
    """The pair of a Secret whose facts showed no defect. Raises ValueError if it has one after all."""
    try:
        return _pair(manifest)
    except _Unreadable as problem:
        raise ValueError(problem.message) from problem


def signing_pairs(manifest: Manifest) -> dict[facts.Fingerprint, certificates.KeyPair]:
    """The usable pairs of a CA Secret, present and next, by the fingerprint of their certificate."""
    pairs = {}
    for certificate_key, key_key in ((CERTIFICATE, KEY), (NEXT_CERTIFICATE, NEXT_KEY)):
        try:
            pair = _pair(manifest, certificate_key, key_key)
        except _Unreadable:
            continue
        pairs[pair.certificate.fingerprint] = pair
    return pairs


def leaf_data(
    pair: certificates.KeyPair, bundle: collections.abc.Iterable[facts.Certificate]
) -> dict[str, str | None]:
    """The ``data`` of a leaf Secret."""
    return dict(_encode(
        {CERTIFICATE: pair.certificate_pem, KEY: pair.key_pem, LEAF_TRUST: certificates.bundle_pem(bundle)}))


def listener_annotations(pair: certificates.KeyPair) -> dict[str, str]:
    """The annotations that a dynamiclistener expects beside a leaf."""
    names = pair.certificate.dns_names
    return {STATIC: "true", LISTENER_FINGERPRINT: f"SHA1={certificates.sha1(pair.certificate_pem)}",
            **{_listener_key(name): name for name in sorted(names)}}


def authority_data(
    pair: certificates.KeyPair, bundle: collections.abc.Iterable[facts.Certificate],
    successor: certificates.KeyPair | None = None, *, for_listener: bool = False, switched: bool = False,
) -> dict[str, str | None]:
    """The ``data`` of a CA Secret, with None for what must not be in it."""
    if for_listener:
        return _listener_data(pair, tuple(bundle), successor, switched=switched)
    data = _encode({CERTIFICATE: pair.certificate_pem, KEY: pair.key_pem, BUNDLE: certificates.bundle_pem(bundle)})
    if successor is None:
        return {**data, NEXT_CERTIFICATE: None, NEXT_KEY: None}
    return {**data, **_encode({NEXT_CERTIFICATE: successor.certificate_pem, NEXT_KEY: successor.key_pem})}


def _listener_data(
    pair: certificates.KeyPair, bundle: tuple[facts.Certificate, ...], successor: certificates.KeyPair | None, *,
    switched: bool,
) -> dict[str, str | None]:
    signing, other = (successor, pair) if successor is not None and switched else (pair, successor)
    first = signing.certificate
    further = [item for item in bundle if item.fingerprint != first.fingerprint]
    data: dict[str, str | None] = dict(_encode(
        {CERTIFICATE: certificates.bundle_pem([first, *further]), KEY: signing.key_pem}))
    following = _encode({NEXT_CERTIFICATE: certificates.bundle_pem([other.certificate]), NEXT_KEY: other.key_pem}
                        ) if other is not None else {NEXT_CERTIFICATE: None, NEXT_KEY: None}
    return {**data, **following, BUNDLE: None}


def _in_our_layout(manifest: Manifest, *, by_listener: bool) -> Manifest:
    """
    The CA Secret as it would be in our own layout.

    The content itself tells in which layout it was written: ``compatibility`` may have been set or taken away since.
    """
    data = dict(_data(manifest))
    annotations = _annotations(manifest)
    switched = annotations.get(SWITCHED)
    first = _salvage(manifest, CERTIFICATE)[:1] if switched or by_listener else ()
    in_theirs = bool(first) and switched == first[0].fingerprint
    if (by_listener or in_theirs) and CERTIFICATE in data and BUNDLE not in data:
        data[BUNDLE] = data[CERTIFICATE]
    if in_theirs:
        for mine, other in ((CERTIFICATE, NEXT_CERTIFICATE), (KEY, NEXT_KEY)):
            exchanged = {mine: data.get(other), other: data.get(mine)}
            data = {**data, **exchanged}
    return {**manifest, "data": {key: value for key, value in data.items() if value is not None}}


def _listener_key(name: str) -> str:
    """The key of the annotation for a name, as dynamiclistener makes it: an annotation's key has its limits."""
    key = LISTENER_NAME + name
    if len(key) < 64:
        return key
    return f"{key[:56]}-{hashlib.sha256(key.encode()).hexdigest()[:6]}"


def read_ca_bundle(encoded: str | None) -> tuple[tuple[facts.Certificate, ...], bool]:
    """
    The certificates in a ``caBundle`` (base64 of PEM), and whether all of it could be read.

    Each block is read by itself: a Go program skips a broken one, and trusts the others. What holds no certificate at
    all, as the placeholder of some manifests, is read as empty.
    """
    if not encoded:
        return (), True
    try:
        text = base64.b64decode(encoded, validate=True)
    except (ValueError, TypeError):
        return (), False
    found, broken = _blocks(text)
    return found, not broken


def write_ca_bundle(bundle: collections.abc.Iterable[facts.Certificate]) -> str:
    """A ``caBundle``: base64 of PEM."""
    return base64.b64encode(certificates.bundle_pem(bundle)).decode("ascii")


def _is_ours(manifest: Manifest, *, by_listener: bool) -> bool:
    """
    Whether it bears our marks, or those of a listener where listeners' Secrets are wanted, or a person's leave.

    Of our own marks some are empty most of the time. That it is static says nothing: anything can be frozen.
    """
    label, value = MANAGED_BY
    annotations = _annotations(manifest)
    if (manifest["metadata"].get("labels") or {}).get(label) == value or annotations.get(ADOPT) == "true":
        return True
    if any(key in annotations for key in (READY_MARK, GENERATION, RETIRED, SWITCHED, REQUEST)):
        return True
    return by_listener and (any(key.startswith(LISTENER_PREFIX) and key != STATIC for key in annotations) or (
        manifest.get("type") == SECRET_TYPE and certificates.is_made_by_listener(_salvaged_text(manifest))))


def _annotations(manifest: Manifest) -> collections.abc.Mapping[str, str]:
    return manifest["metadata"].get("annotations") or {}


def _data(manifest: Manifest) -> collections.abc.Mapping[str, Any]:
    return manifest.get("data") or {}


def _successor(manifest: Manifest) -> tuple[facts.Certificate | None, bool]:
    """The next signer, and whether there is one that cannot be used."""
    data = _data(manifest)
    if NEXT_CERTIFICATE not in data and NEXT_KEY not in data:
        return None, False
    try:
        certificate = _pair(manifest, NEXT_CERTIFICATE, NEXT_KEY).certificate
    except _Unreadable:
        return None, True
    return (certificate, False) if certificate.is_ca else (None, True)


def _pair(manifest: Manifest, certificate_key: str = CERTIFICATE, key_key: str = KEY) -> certificates.KeyPair:
    if manifest.get("type") != SECRET_TYPE:
        raise _Unreadable(reasons.Reason.WRONG_TYPE, f"is of type {manifest.get('type')!r}, expected {SECRET_TYPE!r}")
    certificate_pem, key_pem = _bytes(manifest, certificate_key), _bytes(manifest, key_key)
    try:
        pair = certificates.KeyPair(certificate_pem=certificate_pem, key_pem=key_pem)
        matches = certificates.matches(pair)
    except certificates.NotPem as problem:
        raise _Unreadable(reasons.Reason.NOT_PEM, f"has {certificate_key} or {key_key} that cannot be read:"
                          f" {problem}") from problem
    if not matches:
        raise _Unreadable(reasons.Reason.KEY_MISMATCH,
                          f"has a {key_key} that does not belong to its {certificate_key}")
    return pair


def _is_damaged(manifest: Manifest, signer: facts.Certificate) -> bool:
    try:
        return signer.fingerprint not in {item.fingerprint for item in _certificates(manifest, BUNDLE)}
    except _Unreadable:
        return True


def _certificates(manifest: Manifest, key: str) -> tuple[facts.Certificate, ...]:
    try:
        return certificates.parse(_bytes(manifest, key))
    except certificates.NotPem as problem:
        raise _Unreadable(reasons.Reason.NOT_PEM, f"has {key} that cannot be read: {problem}") from problem


def _bytes(manifest: Manifest, key: str) -> bytes:
    encoded = _data(manifest).get(key)
    if not encoded:
        raise _Unreadable(reasons.Reason.KEY_MISSING, f"lacks the data key {key}")
    try:
        return base64.b64decode(encoded)  # the API server has checked that it is base64; a test has not
    except (ValueError, TypeError) as problem:
        raise _Unreadable(reasons.Reason.NOT_PEM, f"has {key} that is not base64") from problem


def _salvage(manifest: Manifest, key: str) -> tuple[facts.Certificate, ...]:
    """Each PEM block by itself, so that one damaged block does not cost the trust in the others."""
    return _blocks(_salvaged_text(manifest, key))[0]


def _salvaged_text(manifest: Manifest, key: str = CERTIFICATE) -> bytes:
    try:
        return _bytes(manifest, key)
    except _Unreadable:
        return b""


def _blocks(text: bytes) -> tuple[tuple[facts.Certificate, ...], bool]:
    """The certificates that can be read, each once, and whether there are some that cannot."""
    begin, end = b"-----BEGIN CERTIFICATE-----", b"-----END CERTIFICATE-----"
    found: dict[facts.Fingerprint, facts.Certificate] = {}
    broken = False
    for block in text.split(begin)[1:]:
        body, mark, _ = block.partition(end)
        try:
            found |= {item.fingerprint: item for item in certificates.parse(begin + body + (mark or end))}
        except certificates.NotPem:
            broken = True
    return tuple(found.values()), broken


def _authorities(found: collections.abc.Iterable[facts.Certificate]) -> tuple[facts.Certificate, ...]:
    return tuple(item for item in found if item.is_ca)


def _generation(annotations: collections.abc.Mapping[str, str]) -> int | None:
    text = annotations.get(GENERATION, "")
    return int(text) if text.isascii() and text.isdecimal() and len(text) <= GENERATION_DIGITS else None


def _defect(secret: facts.Secret, problem: _Unreadable) -> facts.Defect:
    return facts.Defect(reason=problem.reason, message=f"Secret {secret.name} {problem.message}")


def _encode(data: collections.abc.Mapping[str, bytes]) -> dict[str, str]:
    return {key: base64.b64encode(value).decode("ascii") for key, value in data.items()}
