"""
The keeper: judges every state of the leaf Secret, and has the listener serve what is good.

It goes on with the last good certificate, whatever happens to the Secret, the issuer or the API server.
"""
import asyncio
import collections.abc
import dataclasses
import datetime
import logging
import time

from steadyhook import metrics
from steadyhook.cluster import client
from steadyhook.core import facts, reasons, serving
from steadyhook.pki import secrets
from steadyhook.serving import readiness, tls
from steadyhook.settings import Settings

logger = logging.getLogger(__name__)

OVERTAKEN_SECONDS = 60.0
"""Longer than a read of the Secret can be under way."""


class Keeper:
    """
    To be used in the event loop of the listener; ``on_verdict`` is told every verdict that differs.

    ``now``: the time, that of the API servers, who verify the certificate.
    """

    def __init__(
        self, *, settings: Settings, context: tls.SwappableContext, ready: readiness.Readiness,
        on_verdict: collections.abc.Callable[[serving.Verdict], None],
        now: collections.abc.Callable[[], datetime.datetime] = lambda: datetime.datetime.now(datetime.UTC),
    ) -> None:
        self._settings = settings
        self._context = context
        self._ready = ready
        self._on_verdict = on_verdict
        self._now = now
        self._manifest: client.Manifest | None = None
        self._served: serving.Served | None = None
        self._verdict: serving.Verdict | None = None
        self._alarm: asyncio.TimerHandle | None = None
        self._leaf: tuple[facts.Fingerprint | None, float] = (None, 0.0)  # and since when, by the monotonic clock
        self._newest: tuple[str, int, float] | None = None  # uid and version of the Secret; when that was last told
        metrics.set_certified(lambda: self.certified)

    @property
    def certified(self) -> bool:
        """Whether a certificate that is still good is being served."""
        return self._served is not None and self._now() < self._served.certificate.not_after

    @property
    def verdict(self) -> serving.Verdict | None:
        """What is thought of the Secret; None before the first look."""
        return self._verdict

    @property
    def overdue(self) -> bool:
        """Whether what is served should have been renewed long ago: less than a tenth of its life is left."""
        if self._served is None:
            return True
        certificate = self._served.certificate
        return self._now() > certificate.not_after - (certificate.not_after - certificate.not_before) / 10

    def see(self, manifest: client.Manifest | None) -> None:
        """The leaf Secret as it is now; None when there is none. What a read brings that was overtaken is ignored."""
        metrics.SECRET_SEEN.set_to_current_time()
        if manifest is not None and self._is_overtaken(manifest):
            logger.debug("Version %s of the Secret is older than what is known.", _version(manifest))
            return
        self._manifest = manifest
        self._judge()

    def _is_overtaken(self, manifest: client.Manifest) -> bool:
        """
        Whether a newer version of this very Secret was told of in the last OVERTAKEN_SECONDS, be it its deletion.

        After a longer time an older version is one that was restored from a backup of etcd.
        """
        uid, version, clock = manifest["metadata"]["uid"], _version(manifest), time.monotonic()
        if version is None:
            return False
        if self._newest is not None and self._newest[0] == uid and clock - self._newest[2] < OVERTAKEN_SECONDS and (
                version < self._newest[1] or (version == self._newest[1] and self._manifest is None)):
            return True
        self._newest = (uid, version, clock)
        return False

    def _judge(self) -> None:
        leaf = secrets.read_leaf(self._manifest) if self._manifest else None
        verdict = self._judge_leaf(leaf)
        if verdict.swap and leaf is not None and (defect := self._swap(leaf)) is not None:
            leaf = dataclasses.replace(leaf, defect=defect)
            verdict = self._judge_leaf(leaf)
        verdict = dataclasses.replace(verdict, swap=False)  # it is done; seen again, the same Secret is no news
        self._served = verdict.served
        self._set_readiness(verdict)
        self._set_alarm(verdict.wake_at)
        if verdict != self._verdict:
            self._tell(verdict, leaf)
        self._verdict = verdict

    def _judge_leaf(self, leaf: facts.Leaf | None) -> serving.Verdict:
        fingerprint = leaf.certificate.fingerprint if leaf and leaf.certificate else None
        if fingerprint != self._leaf[0]:
            self._leaf = (fingerprint, time.monotonic())
        return serving.judge(leaf, served=self._served, service_name=self._settings.service_dns_name, now=self._now(),
                             seen_seconds=time.monotonic() - self._leaf[1])

    def _swap(self, leaf: facts.Leaf) -> facts.Defect | None:
        """Put it into service, unless OpenSSL is stricter than the checks were: an RSA key that is too short, say."""
        assert self._manifest is not None
        pair = secrets.key_pair(self._manifest)
        try:
            self._context.swap(pair.certificate_pem, pair.key_pem)
        except (ValueError, OSError) as error:
            return facts.Defect(reason=reasons.Reason.NOT_USABLE, message=f"Secret {leaf.secret.name}: {error}")
        metrics.CERTIFICATE_SWAPS.inc()
        return None

    def _set_readiness(self, verdict: serving.Verdict) -> None:
        if self.certified:
            self._ready.serve(verdict.message)
        else:
            self._ready.wait(f"{verdict.reason}: {verdict.message}")

    def _set_alarm(self, wake_at: datetime.datetime | None) -> None:
        """Look again when the certificate expires (or begins to be valid), even if nothing happens until then."""
        if self._alarm is not None:
            self._alarm.cancel()
        seconds = (wake_at - self._now()).total_seconds() if wake_at else 0
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
            metrics.observe_served(
                not_after=verdict.served.certificate.not_after, generation=verdict.served.generation)
        self._on_verdict(verdict)


def _version(manifest: client.Manifest) -> int | None:
    """
    The resourceVersion, None if it is not a number. Since Kubernetes 1.35 those of one resource may be compared.

    Older API servers and etcd do the same, but promise nothing: https://kep.k8s.io/5504.
    """
    text = manifest["metadata"].get("resourceVersion") or ""
    return int(text) if text.isascii() and text.isdecimal() else None
