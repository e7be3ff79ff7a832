"""Certificates that nobody should make and somebody has made: ``cryptography`` refuses to build them, so by hand."""
import base64
import datetime

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from steadyhook.pki import certificates

Key = ec.EllipticCurvePrivateKey


def pair(
    key: Key, *, subject: str, now: datetime.datetime, issuer: tuple[str, Key] | None = None, organization: str = "",
    extensions: tuple[tuple[x509.ExtensionType, bool], ...] = (), **changes: object,
) -> certificates.KeyPair:
    """A pair that ``rebuilt`` may have changed; self-signed unless there is an issuer."""
    certificate = rebuilt(key, subject=subject, now=now, issuer=issuer, organization=organization,
                          extensions=extensions, **changes)
    return certificates.KeyPair(certificate_pem=certificate, key_pem=key_pem(key))


def rebuilt(
    key: Key, *, subject: str, now: datetime.datetime, issuer: tuple[str, Key] | None = None, organization: str = "",
    extensions: tuple[tuple[x509.ExtensionType, bool], ...] = (), replace: tuple[bytes, bytes] | None = None,
    days: int = 90,
) -> bytes:
    """
    A certificate as PEM, signed anew after ``replace`` (old, new; of one length) was applied to what is signed.
    """
    issuer_name, signing_key = issuer or (subject, key)
    builder = (x509.CertificateBuilder().subject_name(_name(subject, organization))
               .issuer_name(_name(issuer_name, organization)).public_key(key.public_key()).serial_number(0x41)
               .not_valid_before(now - datetime.timedelta(hours=1))
               .not_valid_after(now + datetime.timedelta(days=days)))
    for extension, critical in extensions:
        builder = builder.add_extension(extension, critical=critical)
    certificate = builder.sign(signing_key, hashes.SHA256())
    if replace is None:
        return certificate.public_bytes(serialization.Encoding.PEM)
    old, new = replace
    assert certificate.tbs_certificate_bytes.count(old) == 1 and len(old) == len(new)
    signed = certificate.tbs_certificate_bytes.replace(old, new)
    signature = signing_key.sign(signed, ec.ECDSA(hashes.SHA256()))
    algorithm = bytes.fromhex("300a06082a8648ce3d040302")  # ecdsa-with-SHA256 (RFC 5758)
    return _pem(_der(0x30, signed + algorithm + _der(0x03, b"\0" + signature)))


SERIAL_ZERO = (b"\x02\x01\x41", b"\x02\x01\x00")
"""As in every CA that a dynamiclistener has made before 2024."""


def year_zero(end: datetime.datetime) -> tuple[bytes, bytes]:
    """In place of the year of the end, in the form of GeneralizedTime, which is that of years from 2050 on."""
    return b"\x18\x0f%04d" % end.year, b"\x18\x0f0000"


def key_pem(key: Key) -> bytes:
    return key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8,
                             serialization.NoEncryption())


def _name(common_name: str, organization: str) -> x509.Name:
    organizations = [x509.NameAttribute(x509.NameOID.ORGANIZATION_NAME, organization)] if organization else []
    return x509.Name([*organizations, x509.NameAttribute(x509.NameOID.COMMON_NAME, common_name)])


def _der(tag: int, body: bytes) -> bytes:
    length = len(body)
    if length < 0x80:
        return bytes([tag, length]) + body
    size = length.to_bytes((length.bit_length() + 7) // 8, "big")
    return bytes([tag, 0x80 | len(size)]) + size + body


def _pem(der: bytes) -> bytes:
    body = base64.encodebytes(der).decode("ascii")
    return f"-----BEGIN CERTIFICATE-----\n{body}-----END CERTIFICATE-----\n".encode("ascii")


def rsa_key_pem(p: int, q: int) -> bytes:
    """A valid RSA key (RFC 8017, A.1.2) of these primes, however large, which is made in no time."""
    n, e = p * q, 65537
    d = pow(e, -1, (p - 1) * (q - 1))
    numbers = (0, n, e, d, p, q, d % (p - 1), d % (q - 1), pow(q, -1, p))
    text = base64.encodebytes(_tagged(0x30, b"".join(
        _tagged(0x02, number.to_bytes(number.bit_length() // 8 + 1, "big")) for number in numbers)))
    return b"-----BEGIN RSA PRIVATE KEY-----\n" + text + b"-----END RSA PRIVATE KEY-----\n"


def _tagged(tag: int, content: bytes) -> bytes:
    """DER: tag, length, content."""
    length = len(content)
    if length < 128:
        return bytes([tag, length]) + content
    digits = length.to_bytes((length.bit_length() + 7) // 8, "big")
    return bytes([tag, 0x80 | len(digits)]) + digits + content
