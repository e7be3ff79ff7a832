"""Certificates, a bare HTTPS client that shows each connection, and kopf's side of an admission server."""
import asyncio
import contextlib
import dataclasses
import datetime
import functools
import ipaddress
import json
import ssl
from collections.abc import AsyncIterator, Callable
from typing import Any

import kopf
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from kopf._cogs.structs import ephemera, references
from kopf._core.engines import admission as kopf_admission
from kopf._core.engines import indexing
from kopf._core.reactor import inventory

from steadyhook.serving import admission, readiness, tls

HOST = "127.0.0.1"
NAME = "webhook.example.svc"
CONFIGMAPS = references.Resource(group="", version="v1", plural="configmaps", kind="ConfigMap", namespaced=True)


class Authority:
    """A CA of the test's own."""

    def __init__(self) -> None:
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._subject = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "test CA")])
        self.pem = self._sign(self._subject, self._key, ca=True).public_bytes(serialization.Encoding.PEM).decode()

    def issue(self) -> tuple[bytes, bytes]:
        """A fresh leaf for NAME and HOST, and its key, both as PEM."""
        key = ec.generate_private_key(ec.SECP256R1())
        subject = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, NAME)])
        return self._sign(subject, key, ca=False).public_bytes(serialization.Encoding.PEM), key_pem(key)

    def client(self, **attributes: Any) -> ssl.SSLContext:
        """What trusts this CA only; ``attributes`` are set on it."""
        context = ssl.create_default_context(cadata=self.pem)
        for name, value in attributes.items():
            setattr(context, name, value)
        return context

    def _sign(self, subject: x509.Name, key: ec.EllipticCurvePrivateKey, *, ca: bool) -> x509.Certificate:
        now = datetime.datetime.now(datetime.UTC)
        names = x509.SubjectAlternativeName([x509.DNSName(NAME), x509.IPAddress(ipaddress.ip_address(HOST))])
        builder = (
            x509.CertificateBuilder().subject_name(subject).issuer_name(self._subject)
            .public_key(key.public_key()).serial_number(x509.random_serial_number())
            .not_valid_before(now - datetime.timedelta(minutes=5)).not_valid_after(now + datetime.timedelta(hours=1))
            .add_extension(x509.BasicConstraints(ca=ca, path_length=None), critical=True)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
            .add_extension(
                x509.AuthorityKeyIdentifier.from_issuer_public_key(self._key.public_key()), critical=False))
        if ca:
            builder = builder.add_extension(x509.KeyUsage(
                digital_signature=False, content_commitment=False, key_encipherment=False, data_encipherment=False,
                key_agreement=False, key_cert_sign=True, crl_sign=True, encipher_only=False, decipher_only=False,
            ), critical=True)
        else:
            builder = builder.add_extension(names, critical=False)
        return builder.sign(self._key, hashes.SHA256())


def key_pem(key: ec.EllipticCurvePrivateKey, password: bytes | None = None) -> bytes:
    encryption = serialization.BestAvailableEncryption(password) if password else serialization.NoEncryption()
    return key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, encryption)


def der(certificate_pem: bytes) -> bytes:
    return ssl.PEM_cert_to_DER_cert(certificate_pem.decode())


@dataclasses.dataclass(frozen=True)
class Answer:
    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def text(self) -> str:
        return self.body.decode()


class Connection:
    """One connection; several requests can follow each other on it."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader, self._writer = reader, writer

    @classmethod
    async def open(cls, port: int, context: ssl.SSLContext | None = None, name: str | None = NAME) -> "Connection":
        """``name`` None: without SNI."""
        options = {"ssl": context, "server_hostname": name or ""} if context else {}
        return cls(*await asyncio.open_connection(HOST, port, **options))

    @property
    def certificate(self) -> bytes:
        return self._tls.getpeercert(binary_form=True)

    @property
    def _tls(self) -> ssl.SSLObject:
        return self._writer.get_extra_info("ssl_object")

    @property
    def tls_version(self) -> str | None:
        return self._tls.version()

    async def request(self, path: str, body: bytes | None = None) -> Answer:
        """POST the body, or GET without one."""
        method = "GET" if body is None else "POST"
        head = f"{method} {path} HTTP/1.1\r\nHost: {NAME}\r\nContent-Length: {len(body or b'')}\r\n\r\n"
        self._writer.write(head.encode() + (body or b""))
        await self._writer.drain()
        first, *lines = (await self._reader.readuntil(b"\r\n\r\n")).decode().strip().split("\r\n")
        headers = {name.lower(): value for name, value in (line.split(": ", 1) for line in lines)}
        content = await self._reader.readexactly(int(headers.get("content-length", 0)))
        return Answer(int(first.split()[1]), headers, content)

    async def at_end(self) -> bool:
        return await self._reader.read(1) == b""

    async def close(self) -> None:
        self._writer.close()
        with contextlib.suppress(OSError):
            await self._writer.wait_closed()


async def ask(port: int, path: str, body: bytes | None = None, context: ssl.SSLContext | None = None) -> Answer:
    """One request on a connection of its own."""
    connection = await Connection.open(port, context)
    try:
        return await connection.request(path, body)
    finally:
        await connection.close()


def review(
    resource: references.Resource = CONFIGMAPS, *, uid: str = "1", operation: str = "CREATE", **content: Any,
) -> dict[str, Any]:
    """An AdmissionReview as the API server sends it, for an object with ``content``."""
    body = {"apiVersion": "v1", "kind": resource.kind,
            "metadata": {"name": f"object-{uid}", "namespace": "default", "uid": uid}, **content}
    return {
        "apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview",
        "request": {
            "uid": f"request-{uid}", "operation": operation, "namespace": "default",
            "kind": {"group": resource.group, "version": resource.version, "kind": resource.kind},
            "resource": {"group": resource.group, "version": resource.version, "resource": resource.plural},
            "userInfo": {"username": "someone"}, "object": body,
            "oldObject": body if operation == "UPDATE" else None,
        },
    }


def encode(data: Any) -> bytes:
    return json.dumps(data).encode()


@dataclasses.dataclass
class Kopf:
    """What kopf binds into the function that it gives to an admission server."""

    registry: kopf.OperatorRegistry = dataclasses.field(default_factory=kopf.OperatorRegistry)
    memories: inventory.ResourceMemories = dataclasses.field(default_factory=inventory.ResourceMemories)
    insights: references.Insights = dataclasses.field(
        default_factory=lambda: references.Insights(webhook_resources={CONFIGMAPS}))

    @property
    def fn(self) -> functools.partial[Any]:
        return functools.partial(
            kopf_admission.serve_admission_request, settings=kopf.OperatorSettings(), registry=self.registry,
            insights=self.insights, memories=self.memories, memobase=ephemera.Memo(),
            indices=indexing.OperatorIndexers().indices)


async def allow(review: Any, **_: Any) -> Any:
    """A review function as simple as can be."""
    return {"response": {"uid": review["request"]["uid"], "allowed": True}}


def make_server(pair: tuple[bytes, bytes] | None, **options: Any) -> admission.AdmissionServer:
    """A server on free ports of the loopback interface, with the certificate swapped in already, if one is given."""
    context, ready = tls.SwappableContext(), readiness.Readiness()
    if pair:
        context.swap(*pair)
        ready.serve()
    return admission.AdmissionServer(**{
        "tls": context, "readiness": ready, "address": HOST, "port": 0, "health_port": None, "drain_seconds": 0,
        **options})


async def wait_until(condition: Callable[[], bool]) -> None:
    """As long as it takes: a test that hangs is ended from outside."""
    while not condition():
        await asyncio.sleep(0.005)


async def wait_until_refused(port: int) -> None:
    """Until nobody listens on the port any more."""
    with contextlib.suppress(ConnectionError):
        while True:
            await (await Connection.open(port)).close()
            await asyncio.sleep(0.005)


def drain_until(server: admission.AdmissionServer) -> asyncio.Event:
    """Let the server drain not for some seconds but until the event is set."""
    over = asyncio.Event()
    server._drain = over.wait  # type: ignore[method-assign, assignment]
    return over


class Iteration:
    """The task in which kopf iterates an admission server."""

    def __init__(self, server: admission.AdmissionServer, fn: Any) -> None:
        self.configs: list[kopf.WebhookClientConfig] = []
        self.up = asyncio.Event()
        self.task = asyncio.create_task(self._iterate(server, fn))

    async def _iterate(self, server: admission.AdmissionServer, fn: Any) -> None:
        async for config in server(fn):
            self.configs.append(config)
            self.up.set()

    async def wait_until_up(self) -> None:
        waiting = asyncio.create_task(self.up.wait())
        await asyncio.wait({waiting, self.task}, return_when=asyncio.FIRST_COMPLETED, timeout=10)
        waiting.cancel()
        if self.task.done():
            self.task.result()
        assert self.up.is_set()


@contextlib.asynccontextmanager
async def iterate(server: admission.AdmissionServer, fn: Any = allow) -> AsyncIterator[Iteration]:
    """Iterate the server as kopf does; cancelled, if it still runs, and awaited at the end."""
    iteration = Iteration(server, fn)
    try:
        yield iteration
    finally:
        iteration.task.cancel()
        await asyncio.wait({iteration.task}, timeout=30)
        assert iteration.task.done(), "the server did not end"


@contextlib.asynccontextmanager
async def serve(server: admission.AdmissionServer, fn: Any = allow) -> AsyncIterator[Iteration]:
    """As :func:`iterate`, with the port open."""
    async with iterate(server, fn) as iteration:
        await iteration.wait_until_up()
        yield iteration
