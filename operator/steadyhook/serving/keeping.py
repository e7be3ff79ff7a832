"""
The keeper: judges every state of the leaf Secret, and has the listener serve what is good.

It goes on with the last good certificate, whatever happens to the Secret, the issuer or the API server.
"""
import asyncio
import collections.abc
import datetime
import logging

from steadyhook import metrics
from steadyhook.cluster import client
from steadyhook.core import facts, serving
from steadyhook.pki import certificates, secrets
from steadyhook.serving import readiness, tls
from steadyhook.settings import Settings

logger = logging.getLogger(__name__)


class Keeper:
    """To be used in the event loop of the listener; ``on_verdict`` is told every verdict that differs."""

    def __init__(
        self, *, settings: Settings, context: tls.SwappableContext, ready: readiness.Readiness,
        on_verdict: collections.abc.Callable[[serving.Verdict], None],
    ) -> None:
        self._settings = settings
        self._context = context
        self._ready = ready
        self._on_verdict = on_verdict
        self._manifest: client.Manifest | None = None
        self._served: serving.Served | None = None
        self._verdict: serving.Verdict | None = None
        self._alarm: asyncio.TimerHandle | None = None

    @property
    def certified(self) -> bool:
        """Whether a certificate that is still good is being served."""
        return self._served is not None and _now() < self._served.certificate.not_after

    def see(self, manifest: client.Manifest | None) -> None:
        """The leaf Secret as it is now; None when there is none."""
        self._manifest = manifest
        self._judge()

    def _judge(self) -> None:
        leaf = secrets.read_leaf(self._manifest) if self._manifest else None
        verdict = serving.judge(leaf, served=self._served, service_name=self._settings.service_dns_name, now=_now())
        if verdict.swap:
            assert self._manifest is not None
            self._swap(secrets.key_pair(self._manifest))
        self._served = verdict.served
        self._set_readiness(verdict)
        self._set_alarm(verdict.wake_at)
        if verdict != self._verdict:
            self._tell(verdict, leaf)
        self._verdict = verdict

    def _swap(self, pair: certificates.KeyPair) -> None:
        self._context.swap(pair.certificate_pem, pair.key_pem)

    def _set_readiness(self, verdict: serving.Verdict) -> None:
        if self.certified:
            self._ready.serve(verdict.message)
        else:
            self._ready.wait(f"{verdict.reason}: {verdict.message}")

    def _set_alarm(self, wake_at: datetime.datetime | None) -> None:
        """Look again when the certificate expires (or begins to be valid), even if nothing happens until then."""
        if self._alarm is not None:
            self._alarm.cancel()
        seconds = (wake_at - _now()).total_seconds() if wake_at else 0
        # The loop's clock takes no date that is too far away; a day is soon enough to look again.
        self._alarm = asyncio.get_running_loop().call_later(
            min(seconds, 86400.0) + 0.1, self._judge) if seconds > 0 else None

    def _tell(self, verdict: serving.Verdict, leaf: facts.Leaf | None) -> None:
        if verdict.phase is serving.Phase.DEGRADED:
            logger.warning("%s: %s.", verdict.reason, verdict.message)
        else:
            logger.info("%s: %s.", verdict.reason, verdict.message)
        if verdict.phase is not serving.Phase.SERVING and leaf is not None:
            metrics.SECRET_REJECTED.labels(reason=verdict.reason).inc()
        if verdict.served is not None:
            metrics.CERTIFICATE_NOT_AFTER.set(verdict.served.certificate.not_after.timestamp())
            metrics.CERTIFICATE_GENERATION.set(verdict.served.generation)
        self._on_verdict(verdict)


def _now() -> datetime.datetime:
    return datetime.datetime.now(datetime.UTC)
