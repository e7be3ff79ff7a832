"""PEM certificates -> facts."""
import collections.abc
import dataclasses
import hashlib

from cryptography import exceptions, x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives import serialization as forms
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa

from steadyhook.core import facts


class NotPem(ValueError):
    """The text holds no readable PEM certificate or key."""


_MALFORMED = (ValueError, x509.InvalidVersion, x509.DuplicateExtension, x509.UnsupportedGeneralNameType,
              exceptions.UnsupportedAlgorithm)
"""What ``cryptography`` raises for certificates that are no valid ones; only some of it is a ValueError."""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class KeyPair:
    """
    A certificate (PEM, the leaf or the signer first) and its private key (PEM, unencrypted, never shown).

    Making a pair parses the whole text of the certificate, once. Raises :class:`NotPem`.
    """

    certificate_pem: bytes
    key_pem: bytes = dataclasses.field(repr=False)
    certificate: facts.Certificate = dataclasses.field(init=False, repr=False, compare=False)  # the first one

    def __post_init__(self) -> None:
        object.__setattr__(self, "certificate", parse(self.certificate_pem)[0])


def parse(pem: bytes) -> tuple[facts.Certificate, ...]:
    """Every certificate of a PEM text, in its order. Raises :class:`NotPem`."""
    try:
        return tuple(describe(certificate) for certificate in load(pem))
    except _MALFORMED as error:
        raise NotPem(f"expected certificates as in RFC 5280, found one with {_shorten(error)}") from error


def load(pem: bytes) -> list[x509.Certificate]:
    """The certificates themselves, for the rest of this layer. Raises :class:`NotPem`."""
    try:
        return x509.load_pem_x509_certificates(pem)
    except _MALFORMED as error:
        raise NotPem(f"expected PEM certificates, found {_excerpt(pem)} ({_shorten(error)})") from error


def describe(certificate: x509.Certificate) -> facts.Certificate:
    """The facts of one certificate."""
    return facts.Certificate(
        fingerprint=certificate.fingerprint(hashes.SHA256()).hex(),
        not_before=certificate.not_valid_before_utc,
        not_after=certificate.not_valid_after_utc,
        dns_names=_dns_names(certificate),
        is_ca=_is_ca(certificate),
        key_algorithm=_key_algorithm(certificate),
        pem=certificate.public_bytes(forms.Encoding.PEM).decode("ascii"),
    )


def sha1(pem: bytes) -> str:
    """The SHA-1 of the first certificate's DER in upper-case hexadecimal digits: a name for it, not a safeguard."""
    return load(pem)[0].fingerprint(hashes.SHA1()).hex().upper()


LISTENER_ORGANIZATION = "dynamiclistener-org"
"""In the subject of every CA that a dynamiclistener makes (its factory/ca.go and cert/cert.go)."""


def is_made_by_listener(pem: bytes) -> bool:
    """Whether the first certificate is a CA that a dynamiclistener has made for itself. Never raises."""
    try:
        names = load(pem)[0].subject.get_attributes_for_oid(x509.NameOID.ORGANIZATION_NAME)
    except _MALFORMED:
        return False
    return any(name.value == LISTENER_ORGANIZATION for name in names)


def bundle_pem(certificates: collections.abc.Iterable[facts.Certificate]) -> bytes:
    """The PEM text of a trust bundle, in the given order."""
    return "".join(item.pem for item in certificates).encode("ascii")


def signers(leaf_pem: bytes, candidates: collections.abc.Iterable[facts.Certificate]) -> frozenset[facts.Fingerprint]:
    """
    Which of the candidates signed the first certificate of a PEM text.

    Name and signature are verified (RFC 5280, 6.1.3), and that the candidate may sign at all; validity in time is
    the decision's to judge. Raises :class:`NotPem`.
    """
    leaf = load(leaf_pem)[0]
    found = set()
    for candidate in candidates:
        if not candidate.is_ca:
            continue
        try:
            leaf.verify_directly_issued_by(load(candidate.pem.encode("ascii"))[0])
        except (*_MALFORMED, TypeError, exceptions.InvalidSignature):
            continue
        found.add(candidate.fingerprint)
    return frozenset(found)


def matches(pair: KeyPair) -> bool:
    """Whether the private key belongs to the first certificate. Raises :class:`NotPem`."""
    key = load_key(pair.key_pem)
    form = forms.Encoding.DER, forms.PublicFormat.SubjectPublicKeyInfo
    try:
        certified = load(pair.certificate_pem)[0].public_key()
    except _MALFORMED as error:
        raise NotPem(f"expected a certificate with an EC, Ed25519 or RSA key, found {error}") from error
    return key.public_key().public_bytes(*form) == certified.public_bytes(*form)


PrivateKey = ec.EllipticCurvePrivateKey | ed25519.Ed25519PrivateKey | rsa.RSAPrivateKey


LARGEST_RSA_BITS = 4096
LONGEST_KEY_CHARACTERS = 16 * 1024
"""A key of RSA-4096 is of 3,272 characters, and other text may stand before it."""

_valid: set[bytes] = set()  # the digests of texts that hold a key that was validated
_VALID_LIMIT = 4096


def load_key(pem: bytes) -> PrivateKey:
    """
    A private key of a kind that can be issued. Raises :class:`NotPem`; the key's text is never in the message.

    An RSA key is validated, by a test of its primes: that takes 0.3 s for RSA-4096, and minutes for what fits into a
    Secret, in the loop that looks after all. So the size is looked at before, and a text is validated once.
    """
    if len(pem) > LONGEST_KEY_CHARACTERS:
        raise NotPem(f"expected a private key of at most {LONGEST_KEY_CHARACTERS} characters, found {len(pem)}")
    digest = hashlib.sha256(pem).digest()
    key = _load_key(pem, validated=True)  # not used, unless it was validated in truth
    if not isinstance(key, rsa.RSAPrivateKey) or digest in _valid:
        return key
    numbers = key.private_numbers()
    if key.key_size > LARGEST_RSA_BITS or max(numbers.p, numbers.q).bit_length() > LARGEST_RSA_BITS // 2:
        raise NotPem(f"expected an RSA key of at most {LARGEST_RSA_BITS} bits, with two primes of the same length,"
                     f" found {key.key_size} bits")
    key = _load_key(pem, validated=False)
    if len(_valid) >= _VALID_LIMIT:
        _valid.clear()
    _valid.add(digest)
    return key


def _load_key(pem: bytes, *, validated: bool) -> PrivateKey:
    try:
        key = forms.load_pem_private_key(pem, password=None, unsafe_skip_rsa_key_validation=validated)
    except (ValueError, TypeError, exceptions.UnsupportedAlgorithm) as error:
        raise NotPem("expected an unencrypted PEM private key") from error
    if not isinstance(key, PrivateKey):
        raise NotPem(f"expected an EC, Ed25519 or RSA key, found a {type(key).__name__}")
    return key


def _dns_names(certificate: x509.Certificate) -> frozenset[str]:
    try:
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except (x509.ExtensionNotFound, *_MALFORMED):
        return frozenset()
    return frozenset(names.get_values_for_type(x509.DNSName))


def _is_ca(certificate: x509.Certificate) -> bool:
    try:
        return bool(certificate.extensions.get_extension_for_class(x509.BasicConstraints).value.ca)
    except (x509.ExtensionNotFound, *_MALFORMED):
        return False


def _key_algorithm(certificate: x509.Certificate) -> str:
    try:
        key = certificate.public_key()
    except _MALFORMED:
        return "unknown"
    if isinstance(key, ec.EllipticCurvePublicKey):
        return {"secp256r1": "ECDSA-P256", "secp384r1": "ECDSA-P384"}.get(key.curve.name, f"ECDSA-{key.curve.name}")
    if isinstance(key, rsa.RSAPublicKey):
        return f"RSA-{key.key_size}"
    return "Ed25519" if isinstance(key, ed25519.Ed25519PublicKey) else type(key).__name__


def _shorten(error: Exception) -> str:
    """Some errors of ``cryptography`` carry a part of the certificate, which may be long."""
    text = str(error) or type(error).__name__
    return text if len(text) <= 200 else f"{text[:200]}..."


def _excerpt(data: bytes) -> str:
    """The beginning of a text that should have been public, for a message."""
    return f"{data[:24]!r}..." if len(data) > 24 else repr(data)
