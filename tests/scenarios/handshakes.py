"""What the pods really serve, seen by TLS handshakes, and whether it verifies under every bundle that is injected."""
import base64
import collections
import contextlib
import hashlib
import socket
import ssl
import threading
from collections.abc import Iterator

from devcluster import facade
from scenarios import installation

PORT = 9443
SECONDS = 10.0
PAUSE_SECONDS = 0.1
KINDS = ("validatingwebhookconfigurations", "mutatingwebhookconfigurations")


def served(pod: facade.PodProcess, *, trusting: str | None = None, name: str | None = None) -> str:
    """
    The fingerprint of the leaf that a new handshake with the pod gets.

    ``trusting``: PEM of a bundle to verify it under, for the DNS ``name``. Raises ssl.SSLError, OSError.
    """
    context = ssl.create_default_context(cadata=trusting)
    if trusting is None:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    with (
        socket.create_connection((pod.loopback, PORT), timeout=SECONDS) as connection,
        context.wrap_socket(connection, server_hostname=name) as secured,
    ):
        der = secured.getpeercert(binary_form=True)
    assert der is not None
    return hashlib.sha256(der).hexdigest()


def served_by_all(installed: installation.Installation) -> set[str]:
    """The leaves that the pods of an installation serve."""
    return {served(pod) for pod in installed.pods()}


def bundles(installed: installation.Installation) -> dict[str, str]:
    """The PEM of each caBundle of this installation's own webhook configurations, by webhook."""
    found = {}
    for kind in KINDS:
        path = f"/apis/admissionregistration.k8s.io/v1/{kind}/steadyhook-example-{installed.namespace}"
        for webhook in installed.cluster.request("GET", path)["webhooks"]:
            encoded = webhook["clientConfig"].get("caBundle", "")
            found[webhook["name"]] = base64.b64decode(encoded).decode("ascii", "replace")
    return found


class Sampler:
    """Handshakes with every pod under every bundle. ``broken`` counts those that failed, by what was wrong."""

    def __init__(self, installed: installation.Installation) -> None:
        self.handshakes = 0
        self.broken: collections.Counter[str] = collections.Counter()
        self.leaves: set[str] = set()
        self._installed = installed
        self._name = f"steadyhook-webhook.{installed.namespace}.svc"

    def sample(self) -> None:
        """Once around all pods."""
        injected = bundles(self._installed)
        for pod in self._installed.pods():
            for bundle in set(injected.values()):
                try:
                    self.leaves.add(served(pod, trusting=bundle, name=self._name))
                except (OSError, ValueError) as error:
                    names = sorted(name for name, text in injected.items() if text == bundle)
                    self.broken[f"{pod.name} under the bundle of {names}: {error!r}"] += 1
                self.handshakes += 1


@contextlib.contextmanager
def sampling(installed: installation.Installation) -> Iterator[Sampler]:
    """Sample as long as the context lasts."""
    sampler = Sampler(installed)
    ended = threading.Event()

    def run() -> None:
        while not ended.wait(PAUSE_SECONDS):
            sampler.sample()

    thread = threading.Thread(target=run, name="sampler", daemon=True)
    thread.start()
    try:
        yield sampler
    finally:
        ended.set()
        thread.join(60)
