"""New CAs and leaves, in a profile that strict verifiers accept (RFC 5280; ``openssl verify -x509_strict``)."""
import collections.abc
import datetime

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives import serialization as forms
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.x509 import oid

from steadyhook.core import issuing, policy
from steadyhook.pki import certificates


def mint_authority(wanted: policy.Policy, *, now: datetime.datetime) -> certificates.KeyPair:
    """A new self-signed CA for one certificate; slow for RSA keys, so not to be called in an event loop."""
    key = _generate_key(wanted.algorithm)
    # Each CA has a name of its own, so that no verifier ever confuses two of them in one bundle.
    name = x509.Name([
        x509.NameAttribute(oid.NameOID.ORGANIZATION_NAME, "steadyhook"),
        x509.NameAttribute(oid.NameOID.COMMON_NAME, f"{_shorten(wanted.name, 40)} {now:%Y%m%dT%H%M%SZ}"),
    ])
    identifier = x509.SubjectKeyIdentifier.from_public_key(key.public_key())
    builder = (
        _builder(subject=name, issuer=name, key=key)
        .not_valid_before(_start(now))
        .not_valid_after(_seconds(now) + wanted.ca_duration)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_key_usage(key_cert_sign=True, crl_sign=True), critical=True)
        .add_extension(identifier, critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(identifier), critical=False)
    )
    return _sign(builder, key=key, signing_key=key)


def mint_leaf(
    wanted: policy.Policy, *, signer: certificates.KeyPair, now: datetime.datetime
) -> certificates.KeyPair:
    """
    A new leaf for the policy's DNS names; it begins and ends within its signer's life. Slow for RSA keys.

    Raises :class:`certificates.NotPem` for a signer that cannot be read, :class:`ValueError` for a signer that is not
    in force before the leaf would end.
    """
    authority = certificates.load(signer.certificate_pem)[0]
    signing_key = certificates.load_key(signer.key_pem)
    key = _generate_key(wanted.algorithm)
    # Clients go by the SAN alone (RFC 6125); a subject is left out, which makes the SAN critical (RFC 5280, 4.1.2.6).
    names = x509.SubjectAlternativeName([x509.DNSName(name) for name in sorted(wanted.dns_names)])
    builder = (
        _builder(subject=x509.Name([]), issuer=authority.subject, key=key)
        # A leaf that begins before its signer would be served, and would not verify.
        .not_valid_before(max(_start(now), authority.not_valid_before_utc))
        .not_valid_after(min(_seconds(now) + wanted.duration, authority.not_valid_after_utc))
        .add_extension(names, critical=True)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_key_usage(digital_signature=True, key_encipherment=isinstance(key, rsa.RSAPrivateKey)),
                       critical=True)
        .add_extension(x509.ExtendedKeyUsage([oid.ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .add_extension(_authority_key_identifier(authority), critical=False)
    )
    return _sign(builder, key=key, signing_key=signing_key)


_GENERATORS: dict[policy.KeyAlgorithm, collections.abc.Callable[[], certificates.PrivateKey]] = {
    policy.KeyAlgorithm.ECDSA_P256: lambda: ec.generate_private_key(ec.SECP256R1()),
    policy.KeyAlgorithm.ECDSA_P384: lambda: ec.generate_private_key(ec.SECP384R1()),
    policy.KeyAlgorithm.ED25519: ed25519.Ed25519PrivateKey.generate,
    policy.KeyAlgorithm.RSA_2048: lambda: rsa.generate_private_key(public_exponent=65537, key_size=2048),
    policy.KeyAlgorithm.RSA_3072: lambda: rsa.generate_private_key(public_exponent=65537, key_size=3072),
    policy.KeyAlgorithm.RSA_4096: lambda: rsa.generate_private_key(public_exponent=65537, key_size=4096),
}


def _generate_key(algorithm: policy.KeyAlgorithm) -> certificates.PrivateKey:
    return _GENERATORS[algorithm]()


def _builder(*, subject: x509.Name, issuer: x509.Name, key: certificates.PrivateKey) -> x509.CertificateBuilder:
    return (x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(issuer)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number()))


def _sign(
    builder: x509.CertificateBuilder, *, key: certificates.PrivateKey, signing_key: certificates.PrivateKey
) -> certificates.KeyPair:
    certificate = builder.sign(signing_key, _digest(signing_key))
    key_pem = key.private_bytes(forms.Encoding.PEM, forms.PrivateFormat.PKCS8, forms.NoEncryption())
    return certificates.KeyPair(certificate_pem=certificate.public_bytes(forms.Encoding.PEM), key_pem=key_pem)


def _digest(key: certificates.PrivateKey) -> hashes.SHA256 | hashes.SHA384 | None:
    if isinstance(key, ed25519.Ed25519PrivateKey):
        return None
    if isinstance(key, ec.EllipticCurvePrivateKey) and key.key_size >= 384:
        return hashes.SHA384()
    return hashes.SHA256()


def _authority_key_identifier(signer: x509.Certificate) -> x509.AuthorityKeyIdentifier:
    try:
        identifier = signer.extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value
    except x509.ExtensionNotFound:
        return x509.AuthorityKeyIdentifier.from_issuer_public_key(signer.public_key())  # type: ignore[arg-type]
    return x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(identifier)


def _key_usage(
    *, digital_signature: bool = False, key_encipherment: bool = False, key_cert_sign: bool = False,
    crl_sign: bool = False,
) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=digital_signature, key_encipherment=key_encipherment, key_cert_sign=key_cert_sign,
        crl_sign=crl_sign, content_commitment=False, data_encipherment=False, key_agreement=False,
        encipher_only=False, decipher_only=False)


def _seconds(moment: datetime.datetime) -> datetime.datetime:
    return moment.replace(microsecond=0)  # X.509 knows whole seconds


def _start(now: datetime.datetime) -> datetime.datetime:
    return _seconds(now) - issuing.BACKDATE


def _shorten(text: str, length: int) -> str:
    return text if len(text) <= length else text[:length]
