"""
Every metric of the program, in one place, in prometheus_client's default registry.

Names follow https://prometheus.io/docs/practices/naming/: base units, and ``_total`` for counters. A metric that
several facts decide is set by a function here and nowhere else; the facts are told to it by those who know them.
"""
import collections.abc
import contextlib
import datetime
import time
from typing import Any

import prometheus_client
from prometheus_client import metrics_core, registry

import steadyhook

_INFO = prometheus_client.Info("steadyhook", "The running program.")
_INFO.info({"version": steadyhook.__version__})

# Every instance.
RESTARTS = prometheus_client.Counter(
    "steadyhook_restarts_total", "How often a part of this instance has ended by itself and was started again.",
    ["part"])
CLOCK_SKEW_SECONDS = prometheus_client.Gauge(
    "steadyhook_clock_skew_seconds",
    "How far the clock of this machine is ahead of the API server's, by its last answer.")
PEERING_RECORDS = prometheus_client.Gauge(
    "steadyhook_peering_records", "Live records in the peering at the last look: the seats that are taken.")
ISSUER_SEEN = prometheus_client.Gauge(
    "steadyhook_issuer_seen_timestamp_seconds",
    "When this instance last saw in the peering that somebody issues, as Unix time; 0 if it never did.")

# The serving half.
ADMISSION_REQUESTS = prometheus_client.Counter(
    "steadyhook_admission_requests_total",
    "HTTP requests to the webhook port that were answered, by status code; 499: the client was gone.", ["code"])
ADMISSION_REQUEST_SECONDS = prometheus_client.Histogram(
    "steadyhook_admission_request_seconds", "Time from a request's headers to its answer, the handlers included.",
    # From an async handler that only looks at the object up to the 30 s that Kubernetes allows a webhook.
    buckets=(0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30))
CERTIFICATE_SWAPS = prometheus_client.Counter(
    "steadyhook_certificate_swaps_total", "Certificates put into service, the first one included.")
CERTIFICATE_NOT_AFTER = prometheus_client.Gauge(
    "steadyhook_certificate_not_after_timestamp_seconds",
    "When the served certificate expires, as Unix time; 0 if none was served yet.")
CERTIFICATE_GENERATION = prometheus_client.Gauge(
    "steadyhook_certificate_generation", "The generation of the served certificate; 0 if none was served yet.")
SECRET_SEEN = prometheus_client.Gauge(
    "steadyhook_secret_seen_timestamp_seconds",
    "When this instance last read the leaf Secret or was told of it, as Unix time; 0 if it never was.")
SECRET_REJECTED = prometheus_client.Counter(
    "steadyhook_secret_rejected_total", "Contents of the Secret that were seen and not served, by reason.", ["reason"])
CONNECTIONS = prometheus_client.Gauge(
    "steadyhook_connections", "Open connections, those in their handshake included, by port.", ["port"])
CONNECTIONS_CUT = prometheus_client.Counter(
    "steadyhook_connections_cut_total",
    "Connections ended here: to make room for another one (full), or as too slow (slow).", ["port", "reason"])
HANDSHAKE_FAILURES = prometheus_client.Counter(
    "steadyhook_handshake_failures_total", "TLS handshakes that failed: a client that does not trust the CA, say.")

# The issuing half.
ACTIVE = prometheus_client.Gauge("steadyhook_active", "1 while this instance is the elected issuer, else 0.")
WRITES = prometheus_client.Counter(
    "steadyhook_writes_total", "Writes that the API server accepted from this instance.", ["object", "verb"])
CONFLICTS = prometheus_client.Counter(
    "steadyhook_conflicts_total", "Writes refused with 409 because the object had changed.", ["object"])

# Each certificate, in the active issuer alone: another instance would only know how it once was.
_CERTIFICATE = ["namespace", "name"]
LEAF_NOT_AFTER = prometheus_client.Gauge(
    "steadyhook_webhookcertificate_not_after_timestamp_seconds", "When the leaf expires, as Unix time.", _CERTIFICATE)
CA_NOT_AFTER = prometheus_client.Gauge(
    "steadyhook_webhookcertificate_ca_not_after_timestamp_seconds",
    "When the CA that has signed the leaf expires, as Unix time.", _CERTIFICATE)
BUNDLE_NOT_AFTER = prometheus_client.Gauge(
    "steadyhook_webhookcertificate_bundle_not_after_timestamp_seconds",
    "When the first of the CAs in the trust bundle expires, as Unix time.", _CERTIFICATE)
CONDITION = prometheus_client.Gauge(
    "steadyhook_webhookcertificate_condition", "1 while the condition of this type is True, else 0.",
    [*_CERTIFICATE, "type"])
ROTATION_PHASE = prometheus_client.Gauge(
    "steadyhook_webhookcertificate_rotation_phase", "1 for the phase that a rotation of the CA is in, else 0.",
    [*_CERTIFICATE, "phase"])
LAST_LOOK = prometheus_client.Gauge(
    "steadyhook_webhookcertificate_last_look_timestamp_seconds",
    "When everything about this certificate was last looked at, and the look was completed, as Unix time.",
    _CERTIFICATE)
INSTANCES = prometheus_client.Gauge(
    "steadyhook_webhookcertificate_instances", "Serving instances that the issuer counts.", _CERTIFICATE)
INSTANCES_ACKNOWLEDGED = prometheus_client.Gauge(
    "steadyhook_webhookcertificate_instances_acknowledged", "Those of them that say that they serve the leaf.",
    _CERTIFICATE)
_OF_A_CERTIFICATE = (LEAF_NOT_AFTER, CA_NOT_AFTER, BUNDLE_NOT_AFTER, CONDITION, ROTATION_PHASE, LAST_LOOK, INSTANCES,
                     INSTANCES_ACKNOWLEDGED)

CONDITIONS = ("Ready", "Issuing", "Injected", "Rotating", "Degraded")
PHASES = ("NotRotating", "Distributing", "Acknowledging", "Retiring")


class _Serving(registry.Collector):
    """
    ``steadyhook_serving``, asked at each scrape: a certificate expires without anybody doing anything.

    An instance without a serving half has no such metric.
    """

    def __init__(self) -> None:
        self.is_open = False
        self.is_certified: collections.abc.Callable[[], bool] | None = None

    def collect(self) -> collections.abc.Iterator[prometheus_client.Metric]:
        if self.is_certified is not None:
            yield metrics_core.GaugeMetricFamily(
                "steadyhook_serving",
                "1 while the webhook port is open, with a certificate that has not expired, else 0."
                " A draining instance serves.",
                value=self.is_open and self.is_certified())


_serving = _Serving()
prometheus_client.REGISTRY.register(_serving)


def set_port_open(is_open: bool) -> None:
    """Whether the webhook port accepts."""
    _serving.is_open = is_open


def set_certified(is_certified: collections.abc.Callable[[], bool] | None) -> None:
    """Whom to ask whether there is a certificate that is good; None where there is no serving half."""
    _serving.is_certified = is_certified


def observe_served(*, not_after: datetime.datetime, generation: int) -> None:
    """What new handshakes get."""
    CERTIFICATE_NOT_AFTER.set(not_after.timestamp())
    CERTIFICATE_GENERATION.set(generation)


def observe_peering(*, records: int) -> None:
    """The live records at a look; of those that there are, one issues."""
    PEERING_RECORDS.set(records)
    if records:
        ISSUER_SEEN.set(time.time())


_issuing = False


def set_active(is_active: bool) -> None:
    """Whether this instance issues. One that does not knows nothing current of any certificate."""
    global _issuing
    _issuing = is_active
    ACTIVE.set(is_active)
    if not is_active:
        for metric in _OF_A_CERTIFICATE:
            metric.clear()


def observe_certificate(namespace: str, name: str, status: collections.abc.Mapping[str, Any]) -> None:
    """The status of a WebhookCertificate as it was just found to be, written or not; only while this one issues."""
    if not _issuing:
        return
    labels = {"namespace": namespace, "name": name}
    for metric, field in ((LEAF_NOT_AFTER, "notAfter"), (CA_NOT_AFTER, "caNotAfter")):
        if field in status:
            metric.labels(**labels).set(datetime.datetime.fromisoformat(status[field]).timestamp())
        else:
            _remove(metric, namespace, name)
    holds = {item["type"]: item["status"] == "True" for item in status.get("conditions", [])}
    for kind in CONDITIONS:
        CONDITION.labels(**labels, type=kind).set(holds.get(kind, False))
    current = status.get("rotation", {}).get("phase", PHASES[0])
    for phase in PHASES:
        ROTATION_PHASE.labels(**labels, phase=phase).set(phase == current)
    done, _, total = status.get("acknowledged", "0/0").partition("/")
    INSTANCES.labels(**labels).set(int(total))
    INSTANCES_ACKNOWLEDGED.labels(**labels).set(int(done))


def observe_look(
    namespace: str, name: str, *, bundle: collections.abc.Iterable[datetime.datetime], now: datetime.datetime
) -> None:
    """A look at everything was completed, by the one that issues; ``bundle``: the ends of the CAs in the bundle."""
    if not _issuing:
        return
    LAST_LOOK.labels(namespace=namespace, name=name).set(now.timestamp())
    first = min(bundle, default=None)
    if first is None:
        _remove(BUNDLE_NOT_AFTER, namespace, name)
    else:
        BUNDLE_NOT_AFTER.labels(namespace=namespace, name=name).set(first.timestamp())


def forget_certificate(namespace: str, name: str) -> None:
    """The certificate is gone, or is no longer looked after by this instance: so are its series."""
    for metric in _OF_A_CERTIFICATE:
        _remove(metric, namespace, name)


def _remove(metric: prometheus_client.Gauge, namespace: str, name: str) -> None:
    variants = {CONDITION: CONDITIONS, ROTATION_PHASE: PHASES}.get(metric)
    for labels in ((namespace, name, variant) for variant in variants) if variants else ((namespace, name),):
        with contextlib.suppress(KeyError):
            metric.remove(*labels)
