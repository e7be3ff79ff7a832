"""
The settings of a process: read once from its environment, checked, and passed on as a value.

In a pod the downward API fills POD_NAME, POD_UID, POD_NAMESPACE, NODE_NAME and POD_IP; on a workstation the host's
name and the process stand in for them.
"""
import collections.abc
import dataclasses
import os
import re
import socket

import click


class SettingsError(Exception):
    """A setting that cannot be used; the text names it, the value found, what was expected and the remedy."""


class _WrongSettings(click.ClickException):
    exit_code = 2


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Instance:
    """Which process this is. ``pod_uid`` tells two instances on one node apart."""

    pod_name: str
    pod_uid: str
    node_name: str
    address: str


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """All durations are in seconds."""

    instance: Instance
    namespace: str
    everywhere: bool  # whether the user's own handlers look at all namespaces
    certificate: str  # the name of the WebhookCertificate
    all_certificates: bool  # whether the issuing half looks after those of every namespace instead
    secret_name: str
    service_dns_name: str | None  # has to be among the names of a leaf that is served
    listen_address: str | None  # None: all interfaces
    webhook_port: int
    health_port: int
    max_connections: int  # at once, on the webhook port; each takes about 0.3 MiB
    drain_seconds: float
    seats: int
    peering_name: str
    peering_lifetime: int
    peering_look_seconds: float
    dial: bool  # whether endpoints are looked at on the wire before a CA leaves
    dial_proxy: tuple[str, int] | None


_NAME = re.compile(r"[a-z0-9]([-a-z0-9.]{0,251}[a-z0-9])?")


def from_command_line(
    environ: collections.abc.Mapping[str, str] = os.environ, *, elects: bool = True
) -> Settings:
    """
    The settings of a process started by ``kopf run``: its --namespace and --peering go before the environment.

    kopf tells its handlers neither, but its command line is click's. ``elects``: whether its --peering is the election
    of the issuer, and not that of an operator of the user's own. Raises :class:`SettingsError`.
    """
    context = click.get_current_context(silent=True)
    options = context.params if context is not None else {}
    return load(environ, namespaces=options.get("namespaces") or (),
                peering_name=options.get("peering_name") if elects else None,
                everywhere=bool(options.get("clusterwide")))


def check_command_line() -> None:
    """
    For an entry module, at its import: where kopf's command line imports it, wrong settings end the process at once.

    They do so with one line and exit code 2. From a handler it would be a traceback of kopf's, and code 1.
    """
    if click.get_current_context(silent=True) is None:
        return
    try:
        from_command_line()
    except SettingsError as error:
        raise _WrongSettings(str(error)) from None


def load(
    environ: collections.abc.Mapping[str, str] = os.environ, *,
    namespaces: collections.abc.Sequence[str] = (), peering_name: str | None = None, everywhere: bool = False,
) -> Settings:
    """
    Read and check the environment.

    ``namespaces``, ``peering_name``: what goes before it. ``everywhere``: whether the user's own handlers, if there are
    any, look at all namespaces; the instance itself has its home in one all the same. Raises :class:`SettingsError`.
    """
    if len(namespaces) > 1:
        raise SettingsError(f"--namespace is given {len(namespaces)} times ({', '.join(namespaces)}), expected one;"
                            " run one instance for each namespace")
    namespace = namespaces[0] if namespaces else environ.get("STEADYHOOK_NAMESPACE") or environ.get("POD_NAMESPACE")
    if not namespace:
        raise SettingsError("the namespace of this instance is not known; give kopf --namespace=NAMESPACE, or set"
                            " POD_NAMESPACE by the downward API")
    certificate = _name(environ, "STEADYHOOK_CERTIFICATE", "steadyhook-webhook")
    service = environ.get("STEADYHOOK_SERVICE", "steadyhook-webhook")
    return Settings(
        instance=_instance(environ),
        namespace=namespace,
        everywhere=everywhere,
        certificate=certificate,
        all_certificates=_choice(environ, "STEADYHOOK_CERTIFICATES", ("own", "all")) == "all",
        secret_name=_name(environ, "STEADYHOOK_SECRET", f"{certificate}-tls"),
        service_dns_name=f"{service}.{namespace}.svc" if service else None,
        listen_address=environ.get("STEADYHOOK_LISTEN_ADDRESS") or None,
        webhook_port=_integer(environ, "STEADYHOOK_WEBHOOK_PORT", 9443, lowest=1, highest=65535),
        health_port=_integer(environ, "STEADYHOOK_HEALTH_PORT", 8080, lowest=1, highest=65535),
        max_connections=_integer(environ, "STEADYHOOK_MAX_CONNECTIONS", 256, lowest=16, highest=4096),
        drain_seconds=_integer(environ, "STEADYHOOK_DRAIN_SECONDS", 8, lowest=0, highest=600),
        seats=_integer(environ, "STEADYHOOK_SEATS", 3, lowest=1, highest=20),
        peering_name=peering_name or _name(environ, "STEADYHOOK_PEERING", "steadyhook"),
        peering_lifetime=_integer(environ, "STEADYHOOK_PEERING_LIFETIME", 15, lowest=10, highest=3600),
        peering_look_seconds=_integer(environ, "STEADYHOOK_PEERING_LOOK_SECONDS", 120, lowest=1, highest=3600),
        dial=_choice(environ, "STEADYHOOK_DIAL", ("on", "off")) == "on",
        dial_proxy=_host_and_port(environ, "STEADYHOOK_DIAL_PROXY"),
    )


def _instance(environ: collections.abc.Mapping[str, str]) -> Instance:
    host = re.sub(r"[^a-z0-9.-]", "-", socket.gethostname().lower()).strip(".-") or "localhost"
    pod_name = environ.get("POD_NAME") or f"{host}-{os.getpid()}"
    return Instance(
        pod_name=pod_name,
        pod_uid=environ.get("POD_UID") or pod_name,
        node_name=environ.get("NODE_NAME") or host,
        address=environ.get("POD_IP") or "127.0.0.1",
    )


def _name(environ: collections.abc.Mapping[str, str], variable: str, default: str) -> str:
    value = environ.get(variable) or default
    if not _NAME.fullmatch(value):
        raise SettingsError(f"{variable} is {value!r}, expected the name of a Kubernetes object;"
                            " use lower-case letters, digits, '-' and '.'")
    return value


def _integer(
    environ: collections.abc.Mapping[str, str], variable: str, default: int, *, lowest: int, highest: int
) -> int:
    text = environ.get(variable) or str(default)
    if not text.isdecimal() or not lowest <= int(text) <= highest:
        raise SettingsError(f"{variable} is {text!r}, expected a whole number from {lowest} to {highest};"
                            f" leave it out for the default of {default}")
    return int(text)


def _choice(environ: collections.abc.Mapping[str, str], variable: str, choices: tuple[str, ...]) -> str:
    value = environ.get(variable) or choices[0]
    if value not in choices:
        raise SettingsError(f"{variable} is {value!r}, expected one of {', '.join(choices)}; leave it out for"
                            f" {choices[0]!r}")
    return value


def _host_and_port(environ: collections.abc.Mapping[str, str], variable: str) -> tuple[str, int] | None:
    text = environ.get(variable)
    if not text:
        return None
    host, _, port = text.removeprefix("http://").rstrip("/").rpartition(":")
    if not host or not port.isdecimal() or not 0 < int(port) < 65536:
        raise SettingsError(f"{variable} is {text!r}, expected HOST:PORT of an HTTP proxy; leave it out to dial"
                            " directly")
    return host, int(port)
