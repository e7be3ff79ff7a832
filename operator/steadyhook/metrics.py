"""
Every metric of the program, in one place, in prometheus_client's default registry.

Names follow https://prometheus.io/docs/practices/naming/: base units, and ``_total`` for counters.
"""
import prometheus_client

import steadyhook

_INFO = prometheus_client.Info("steadyhook", "The running program.")
_INFO.info({"version": steadyhook.__version__})

RESTARTS = prometheus_client.Counter(
    "steadyhook_restarts_total", "How often a part of this instance has ended by itself and was started again.",
    ["part"])
CLOCK_SKEW_SECONDS = prometheus_client.Gauge(
    "steadyhook_clock_skew_seconds",
    "How far the clock of this machine is ahead of the API server's, by its last answer.")

# The serving half.
SERVING = prometheus_client.Gauge(
    "steadyhook_serving", "1 while this instance serves a certificate that has not expired, else 0.")
ADMISSION_REQUESTS = prometheus_client.Counter(
    "steadyhook_admission_requests_total", "HTTP requests to the webhook port that were answered, by status code.",
    ["code"])
ADMISSION_REQUEST_SECONDS = prometheus_client.Histogram(
    "steadyhook_admission_request_seconds", "Time from a request's headers to its answer, the handlers included.",
    # From an async handler that only looks at the object up to the 30 s that Kubernetes allows a webhook.
    buckets=(0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30))
CERTIFICATE_SWAPS = prometheus_client.Counter(
    "steadyhook_certificate_swaps_total", "Certificates put into service, the first one included.")
CERTIFICATE_NOT_AFTER = prometheus_client.Gauge(
    "steadyhook_certificate_not_after_timestamp_seconds", "When the served certificate expires, as Unix time.")
CERTIFICATE_GENERATION = prometheus_client.Gauge(
    "steadyhook_certificate_generation", "The generation of the served certificate.")
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
