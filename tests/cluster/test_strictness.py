"""A cluster's CA without the key usage extension, which Go programs accept, and Python 3.13 by itself does not."""
import asyncio
import contextlib
import datetime
import ipaddress
import json
import logging
import pathlib
import ssl
import threading
from collections.abc import Iterator

import kopf
import pytest
import yaml
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509 import oid

from steadyhook.cluster import client, embedding

NOW = datetime.datetime.now(datetime.UTC)
PATH = "/api/v1/namespaces/shop/secrets/tls"


def _certificate(
    name: str, key: ec.EllipticCurvePrivateKey, issuer: str, signer: ec.EllipticCurvePrivateKey, *, ca: bool
) -> bytes:
    """With the extensions that an API server needs, and none of key usage or key identifiers."""
    def named(text: str) -> x509.Name:
        return x509.Name([x509.NameAttribute(oid.NameOID.COMMON_NAME, text)])

    builder = (x509.CertificateBuilder().subject_name(named(name)).issuer_name(named(issuer))
               .public_key(key.public_key()).serial_number(x509.random_serial_number())
               .not_valid_before(NOW - datetime.timedelta(minutes=5)).not_valid_after(NOW + datetime.timedelta(days=1))
               .add_extension(x509.BasicConstraints(ca=ca, path_length=None), critical=True))
    if not ca:
        names = x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))])
        builder = builder.add_extension(names, critical=False)
    return builder.sign(signer, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)


async def _answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await reader.readuntil(b"\r\n\r\n")
    body = json.dumps({"kind": "Secret"}).encode()
    writer.write(b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nConnection: close\r\nContent-Length: "
                 + str(len(body)).encode() + b"\r\n\r\n" + body)
    await writer.drain()
    writer.close()


@pytest.fixture
def kubeconfig(tmp_path: pathlib.Path) -> Iterator[pathlib.Path]:
    """Of something that answers as an API server would, behind such a CA."""
    ca_key, key = ec.generate_private_key(ec.SECP256R1()), ec.generate_private_key(ec.SECP256R1())
    (tmp_path / "ca.crt").write_bytes(_certificate("ca", ca_key, "ca", ca_key, ca=True))
    (tmp_path / "server.crt").write_bytes(_certificate("server", key, "ca", ca_key, ca=False))
    (tmp_path / "server.key").write_bytes(key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(tmp_path / "server.crt", tmp_path / "server.key")
    loop = asyncio.new_event_loop()
    server = loop.run_until_complete(asyncio.start_server(_answer, "127.0.0.1", 0, ssl=context))
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    path = tmp_path / "kubeconfig"
    path.write_text(yaml.safe_dump({
        "current-context": "main", "users": [{"name": "main", "user": {"token": "none"}}],
        "contexts": [{"name": "main", "context": {"cluster": "main", "user": "main"}}],
        "clusters": [{"name": "main", "cluster": {
            "server": f"https://127.0.0.1:{server.sockets[0].getsockname()[1]}",
            "certificate-authority": str(tmp_path / "ca.crt")}}]}))
    yield path
    loop.call_soon_threadsafe(server.close)
    loop.call_soon_threadsafe(loop.stop)
    thread.join(10)
    with contextlib.closing(loop):
        loop.run_until_complete(asyncio.sleep(0))


def test_the_client_reads_from_behind_a_ca_without_key_usage(
    kubeconfig: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("kubernetes.aio.config.kube_config.KUBE_CONFIG_DEFAULT_LOCATION", str(kubeconfig))

    async def read() -> client.Manifest:
        async with client.Cluster() as cluster:
            return await cluster.get(PATH)

    assert asyncio.run(asyncio.wait_for(read(), 20)) == {"kind": "Secret"}


def test_kopf_is_logged_in_with_a_context_for_a_ca_without_key_usage(
    kubeconfig: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("kubernetes.config.kube_config.KUBE_CONFIG_DEFAULT_LOCATION", str(kubeconfig))
    information = embedding.login(logger=logging.getLogger(), settings=kopf.OperatorSettings())
    assert information is not None

    async def shake_hands() -> None:
        host, _, port = information.server.removeprefix("https://").partition(":")
        _, writer = await asyncio.open_connection(host, int(port), ssl=information.as_ssl_context())
        writer.close()

    asyncio.run(asyncio.wait_for(shake_hands(), 20))
