"""The cluster's own certificate authorities, keys and kubeconfig files.

The certificates have the profile of RFC 5280: Python verifies by it from 3.13 on (ssl.VERIFY_X509_STRICT).
"""

import base64
import datetime
import ipaddress
import json
import pathlib

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

_LIFETIME = datetime.timedelta(days=30)
# Clocks of the machines do not differ here, but a test may set one back.
_BACKDATE = datetime.timedelta(hours=1)


class Authority:
    """A certificate authority that signs with ECDSA P-256 and keeps its key in memory."""

    def __init__(self, name: str) -> None:
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._certificate = self._sign(
            _name(name), self._key.public_key(), issuer=_name(name), authority=True, usage=None, names=()
        )

    @property
    def pem(self) -> bytes:
        """The CA certificate."""
        return self._certificate.public_bytes(serialization.Encoding.PEM)

    def issue(
        self, name: str, *, organization: str | None = None, server_names: tuple[str, ...] = ()
    ) -> tuple[bytes, bytes]:
        """Return a certificate and its PKCS#8 key, both PEM: for a server if it has names, else for a client.

        `server_names` are DNS names and IP addresses. A client's `name` and `organization` are its Kubernetes user and
        group (https://kubernetes.io/docs/reference/access-authn-authz/authentication/).
        """
        key = ec.generate_private_key(ec.SECP256R1())
        usage = ExtendedKeyUsageOID.SERVER_AUTH if server_names else ExtendedKeyUsageOID.CLIENT_AUTH
        certificate = self._sign(
            _name(name, organization),
            key.public_key(),
            issuer=self._certificate.subject,
            authority=False,
            usage=usage,
            names=server_names,
        )
        return certificate.public_bytes(serialization.Encoding.PEM), private_key_pem(key)

    def _sign(
        self,
        subject: x509.Name,
        public_key: ec.EllipticCurvePublicKey,
        *,
        issuer: x509.Name,
        authority: bool,
        usage: x509.ObjectIdentifier | None,
        names: tuple[str, ...],
    ) -> x509.Certificate:
        now = datetime.datetime.now(datetime.UTC)
        builder = (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(issuer)
            .public_key(public_key)
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - _BACKDATE)
            .not_valid_after(now + _LIFETIME)
            .add_extension(x509.BasicConstraints(ca=authority, path_length=None), critical=True)
            .add_extension(_key_usage(authority=authority), critical=True)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(public_key), critical=False)
            .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(self._key.public_key()), critical=False)
        )
        if usage is not None:
            builder = builder.add_extension(x509.ExtendedKeyUsage([usage]), critical=False)
        if names:
            builder = builder.add_extension(x509.SubjectAlternativeName([_general_name(n) for n in names]), False)
        return builder.sign(self._key, hashes.SHA256())


def signing_key() -> tuple[bytes, bytes]:
    """A new private and public key, both PEM, for ServiceAccount tokens."""
    key = ec.generate_private_key(ec.SECP256R1())
    public = key.public_key().public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
    return private_key_pem(key), public


def private_key_pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    """The key as PKCS#8 PEM without a password."""
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )


def write_kubeconfig(
    path: pathlib.Path,
    *,
    server: str,
    ca_pem: bytes,
    client: tuple[bytes, bytes] | None = None,
    token: str | None = None,
    namespace: str = "default",
) -> None:
    """Write a kubeconfig file, as JSON (which is YAML), readable by its owner only."""
    user: dict[str, str] = {}
    if client is not None:
        user["client-certificate-data"] = base64.b64encode(client[0]).decode()
        user["client-key-data"] = base64.b64encode(client[1]).decode()
    if token is not None:
        user["token"] = token
    cluster = {"server": server, "certificate-authority-data": base64.b64encode(ca_pem).decode()}
    context = {"cluster": "devcluster", "user": "devcluster", "namespace": namespace}
    document = {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": "devcluster", "cluster": cluster}],
        "users": [{"name": "devcluster", "user": user}],
        "contexts": [{"name": "devcluster", "context": context}],
        "current-context": "devcluster",
    }
    path.touch(mode=0o600)
    path.write_text(json.dumps(document, indent=2))


def _key_usage(*, authority: bool) -> x509.KeyUsage:
    """To sign certificates and lists of revoked ones, or to sign handshakes (RFC 5280, 4.2.1.3)."""
    return x509.KeyUsage(
        digital_signature=not authority, key_cert_sign=authority, crl_sign=authority, content_commitment=False,
        key_encipherment=False, data_encipherment=False, key_agreement=False, encipher_only=False, decipher_only=False)


def _name(common_name: str, organization: str | None = None) -> x509.Name:
    attributes = [x509.NameAttribute(NameOID.COMMON_NAME, common_name)]
    if organization is not None:
        attributes.append(x509.NameAttribute(NameOID.ORGANIZATION_NAME, organization))
    return x509.Name(attributes)


def _general_name(name: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(name))
    except ValueError:
        return x509.DNSName(name)
