"""What instances say of themselves on their health port, and handshakes with them past the API server."""
import collections
import contextlib
import dataclasses
import threading
import time
import urllib.request
from collections.abc import Iterator, Sequence

from prometheus_client import parser

from devcluster import facade
from scenarios import handshakes, installation

LIFETIME_SECONDS = 15.0  # the default of STEADYHOOK_PEERING_LIFETIME
SEATS = 3
NOISE = ("Task was destroyed", "never retrieved", "never awaited", "Traceback")
_HEALTH_PORT = 8080
_PATIENCE_SECONDS = 2.0


def samples(pod: facade.PodProcess) -> list[tuple[str, dict[str, str], float]]:
    """The metrics of an instance: name, labels and value of each."""
    with urllib.request.urlopen(f"http://{pod.loopback}:{_HEALTH_PORT}/metrics", timeout=_PATIENCE_SECONDS) as response:
        text = response.read().decode()
    return [(sample.name, dict(sample.labels), sample.value)
            for family in parser.text_string_to_metric_families(text) for sample in family.samples]


def is_active(pod: facade.PodProcess) -> bool:
    """Whether the instance itself says that it is the active one; an instance that does not answer is not."""
    with contextlib.suppress(OSError):
        address = f"http://{pod.loopback}:{_HEALTH_PORT}/metrics"
        with urllib.request.urlopen(address, timeout=_PATIENCE_SECONDS) as response:
            return b"\nsteadyhook_active 1.0\n" in response.read()
    return False


def active(installed: installation.Installation) -> list[facade.PodProcess]:
    """The instances that say that they are active."""
    return [pod for pod in installed.pods() if is_active(pod)]


def wait_settled(
    installed: installation.Installation, *, seats: int | None = None, timeout: float = 120
) -> facade.PodProcess:
    """
    Wait until one instance is active, by its own word and by the peering, and ``seats`` are taken; return it.

    All the seats by default. A seat that was lost may stay free for minutes: the reserve looks rarely.
    """
    def settled() -> facade.PodProcess:
        candidates = installed.pods("manager") or installed.pods("issuer")
        found = active(installed)
        peers = installed.peers()
        assert [pod.name for pod in found] == [installed.active().name], f"{len(found)} active, peers: {peers}"
        assert len(peers) >= (min(SEATS, len(candidates)) if seats is None else seats), f"peers: {peers}"
        assert len(peers) <= SEATS, f"peers: {peers}"
        return found[0]

    return installed.cluster.wait_for(settled, timeout, "one active instance and the seats taken")


def wait_successor(
    installed: installation.Installation, former: facade.PodProcess, since: float, *, timeout: float = 60
) -> tuple[facade.PodProcess, float]:
    """Wait until another instance says that it is active; return it and the seconds since ``since`` (monotonic)."""
    def successor() -> facade.PodProcess | None:
        # The former one may be frozen, and asking it would take up to the patience.
        return next((pod for pod in installed.pods() if pod.uid != former.uid and is_active(pod)), None)

    found = installed.cluster.wait_for(successor, timeout, f"another active instance than {former.name}", interval=0.05)
    assert found is not None
    return found, time.monotonic() - since


def keep_alives(installed: installation.Installation, since: int) -> collections.Counter[str]:
    """How many accepted writes renewed each peer's record in the peering, by identity."""
    counter: collections.Counter[str] = collections.Counter()
    for event in installed.writes("kopfpeerings", since=since):
        written = (event.get("requestObject") or {}).get("status") or {}
        counter.update(identity for identity, record in written.items() if record)
    return counter


def assert_no_noise(text: str) -> None:
    """Nothing in a log that a person would have to explain away."""
    found = [line for line in text.splitlines() if any(noise in line for noise in NOISE)]
    assert not found, found


def server_name(installed: installation.Installation) -> str:
    """The name by which the API server calls the webhook."""
    return f"steadyhook-webhook.{installed.namespace}.svc"


def trust(installed: installation.Installation) -> str:
    """The bundle that the validating webhook was given, as PEM."""
    return handshakes.bundles(installed)["validate.example.steadyhook.io"]


@dataclasses.dataclass(slots=True)
class Shaken:
    """How many handshakes were made with each pod, by its name, and the errors by their text."""

    done: collections.Counter[str] = dataclasses.field(default_factory=collections.Counter)
    failures: collections.Counter[str] = dataclasses.field(default_factory=collections.Counter)


@contextlib.contextmanager
def shaking(
    installed: installation.Installation, pods: Sequence[facade.PodProcess], *, per_second: float = 5
) -> Iterator[Shaken]:
    """Handshakes with each of the pods at a steady rate as long as the context lasts, whatever the API server does."""
    result = Shaken()
    bundle, name = trust(installed), server_name(installed)
    ended = threading.Event()

    def probe() -> None:
        while not ended.wait(1 / per_second):
            for pod in pods:
                try:
                    handshakes.served(pod, trusting=bundle, name=name)
                    result.done[pod.name] += 1
                except OSError as error:
                    result.failures[f"{pod.name}: {error}"] += 1

    thread = threading.Thread(target=probe, daemon=True)
    thread.start()
    try:
        yield result
    finally:
        ended.set()
        thread.join(60)


def served(pod: facade.PodProcess, installed: installation.Installation) -> str:
    """The fingerprint of the leaf that a verified handshake with this pod gets."""
    return handshakes.served(pod, trusting=trust(installed), name=server_name(installed))
