"""
An instance's part in the election: win a seat, keep it while it lasts, leave it at once when asked to stop.

With a seat, kopf's own peering does the rest: keep-alives, and pausing all but the peer of the highest priority. An
instance without one sends a single GET now and then.
"""
import asyncio
import collections.abc
import dataclasses
import datetime
import logging
import random
import time

import kopf

from steadyhook import metrics, supervision
from steadyhook.cluster import client, paths, peering
from steadyhook.core import election
from steadyhook.issuing import handlers, operator, reconciling, roster
from steadyhook.settings import Settings

logger = logging.getLogger(__name__)

MOMENT_SECONDS = 0.5
"""How long a new active instance waits before it looks again whether it still is: peers see each other late."""

GIVEN_UP_SECONDS = 5.0
"""How long an instance stays out at most that has given up its seat: others may have no reason to look for one."""

SELDOM_SECONDS = 60.0
"""The same problem is logged as often as this at most; it is found every few seconds."""

STUCK_SECONDS = 600.0
"""An election that does not come to its next look within this time is stuck: each request takes 10 s at most."""


Work = roster.Roster | reconciling.Reconciler


def start(
    settings: Settings, *, kopf_settings: kopf.OperatorSettings,
    on_role: collections.abc.Callable[[election.Role], None] = lambda role: None,
    on_problem: collections.abc.Callable[[str | None], None] = lambda problem: None,
    work_due: collections.abc.Callable[[], bool] = lambda: True,
    user_handlers: handlers.Handlers | None = None,
) -> "Candidacy":
    """
    Begin an instance's candidacy with what kopf's command line put into its settings for the peering.

    The main operator itself stays out of the peering: it would pause, and it has nothing to pause for.
    """
    result = Candidacy(
        settings=settings, identity=settings.instance.pod_name, standalone=kopf_settings.peering.standalone,
        priority=kopf_settings.peering.priority or None, on_role=on_role, on_problem=on_problem, work_due=work_due,
        user_handlers=user_handlers)
    kopf_settings.peering.standalone = True
    kopf_settings.peering.mandatory = False  # set by --peering: kopf would wait for one, and fill no index until then
    result.start()
    return result


class Candidacy:
    """
    The issuing half of one instance, in a task of its own from :meth:`start` to :meth:`stop`.

    ``on_role`` is told each change of the role. ``on_problem`` is told what keeps the instance out, None when nothing
    does. ``work_due`` says whether a certificate is visibly wanted, so that a reserve looks for a seat sooner.
    ``user_handlers`` run while this instance is active.
    """

    def __init__(
        self, *, settings: Settings, identity: str, standalone: bool = False, priority: int | None = None,
        on_role: collections.abc.Callable[[election.Role], None],
        on_problem: collections.abc.Callable[[str | None], None],
        work_due: collections.abc.Callable[[], bool],
        user_handlers: handlers.Handlers | None = None,
    ) -> None:
        self._settings = settings
        self._identity = identity
        self._standalone = standalone
        self._priority = priority
        self._on_role = on_role
        self._on_problem = on_problem
        self._work_due = work_due
        self._user_handlers = user_handlers
        self._role: election.Role | None = None
        self._troubled = False
        self._complaint, self._complained_at = "", float("-inf")
        self._work_trouble: str | None = None
        self._overdue_at = time.monotonic() + STUCK_SECONDS
        self._cluster = client.Cluster()
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        self._task = asyncio.create_task(self._run(), name="candidacy")

    async def stop(self) -> None:
        """Give up the seat, if there is one, and return once it is given up. May be called again."""
        if self._task is not None:
            if not self._task.cancelling():  # twice would cut short the first one's end
                self._task.cancel()
            await asyncio.wait({self._task})

    def trouble(self) -> str | None:
        """
        What a new process would mend, for the liveness probe: the election has not got anywhere for long.

        Whatever ends by itself is started again here, and an API server that is away comes back by itself.
        """
        if self._task is None or self._task.cancelled() or time.monotonic() < self._overdue_at:
            return None
        return f"the election has not come to its next look within {STUCK_SECONDS:.0f} s"

    async def _run(self) -> None:
        await supervision.keep("election", self._enter)

    async def _enter(self) -> None:
        async with self._cluster:
            await self._stand()

    async def _stand(self) -> None:
        """Look for a seat, issue while there is one, and so on (standalone: issue)."""
        if self._standalone:
            await self._issue(None)
            raise supervision.Ended("the reconcile loop makes no progress")
        self._change_role(election.Role.RESERVE)
        await asyncio.sleep(random.uniform(0.0, 1.0))
        while True:
            seat = await self._look_for_seat()
            given_up = False
            if seat is not None:
                given_up = await self._issue(seat)
            await self._pause(random.uniform(0.5, GIVEN_UP_SECONDS) if given_up else self._pause_seconds())

    async def _pause(self, seconds: float) -> None:
        self._overdue_at = time.monotonic() + seconds + STUCK_SECONDS
        await asyncio.sleep(seconds)

    async def _look_for_seat(self) -> election.Join | None:
        """Take a seat if there is one, else None."""
        try:
            while True:
                manifest = await self._cluster.get(self._path)
                records = self._parse(manifest)
                if (problem := self._clock_problem(records)) is not None:
                    self._complain(problem)
                    return None
                self._troubled = False
                self._on_problem(None)
                seat = election.find_seat(
                    records, identity=self._identity, seats=self._settings.seats, now=self._cluster.clock.now(),
                    priority=self._priority)
                if seat is None:
                    return None
                self._tell_unreadable(election.unreadable(manifest))
                try:
                    await peering.join(
                        self._cluster, manifest, namespace=self._settings.namespace, identity=self._identity,
                        seat=seat, lifetime_seconds=self._settings.peering_lifetime, now=self._cluster.clock.read())
                except client.Conflict:
                    await asyncio.sleep(random.uniform(0.0, 0.2))
                    continue
                return seat
        except client.NotFound as error:
            self._complain(f"KopfPeering {self._settings.namespace}/{self._settings.peering_name} does not exist"
                           f" ({error.message}); apply manifests/crds and a KopfPeering of this name")
        except client.Forbidden as error:
            self._complain(f"a permission is missing: {error}; apply the manifests of this version")
        except client.APIError as error:
            self._complain(f"the API server did not answer: {error}")
        return None

    def _clock_problem(self, records: collections.abc.Iterable[election.Record]) -> str | None:
        now = self._cluster.clock.now()
        return election.clock_problem(
            self._cluster.clock.skew_seconds, lifetime_seconds=self._settings.peering_lifetime,
            others=any(record.is_live(now) for record in records if record.identity != self._identity))

    def _tell_unreadable(self, identities: tuple[str, ...]) -> None:
        for identity in identities:
            logger.warning("The record of %r in KopfPeering %s/%s cannot be read, which ends every operator that"
                           " watches it; it is dropped.", identity, self._settings.namespace,
                           self._settings.peering_name)

    async def _issue(self, seat: election.Join | None) -> bool:
        """Stand by or issue until the seat is lost; returns whether it was given up, for a new start with another."""
        own = reconciling.Target(namespace=self._settings.namespace, certificate=self._settings.certificate,
                                 secret_name=self._settings.secret_name)
        work: Work = roster.Roster(
            cluster=self._cluster, settings=self._settings, confirm=self._confirm,
        ) if self._settings.all_certificates else reconciling.Reconciler(
            cluster=self._cluster, settings=self._settings, target=own, confirm=self._confirm)
        watching = operator.build(
            self._settings, work=work if isinstance(work, reconciling.Reconciler) else None,
            identity=self._identity if seat else None, priority=seat.priority if seat else None)
        parts = [
            asyncio.create_task(supervision.keep("operator that watches for the issuer", watching.run)),
            asyncio.create_task(supervision.keep("reconcile loop", work.run)),
        ]
        handling = [] if self._user_handlers is None else [
            asyncio.create_task(supervision.keep("handlers", self._user_handlers.run))]
        try:
            return await self._keep_seat(work)
        finally:
            # The seat goes last: the next active instance begins with the handlers when these have ended.
            try:
                await supervision.end(handling)
            finally:
                try:
                    await supervision.end(parts)
                finally:
                    self._work_trouble = None
                    self._change_role(election.Role.RESERVE)

    async def _keep_seat(self, work: Work) -> bool:
        """Return when the seat is lost (False), or does not do what it is there for (True)."""
        last_read = fresh = time.monotonic()
        while True:
            await self._pause(self._settings.peering_lifetime / 2)
            if (seconds := work.woken_unserved_seconds()) > STUCK_SECONDS:
                logger.error("The reconcile loop has not come round for %.0f s since it was woken; it starts anew,"
                             " with a new seat.", seconds)
                metrics.RESTARTS.labels(part="seat").inc()
                return True
            self._note_trouble(work.trouble())
            if self._standalone:
                continue
            before = self._role
            manifest = await self._read_peering()
            if manifest is None:
                if time.monotonic() - last_read > self._settings.peering_lifetime:
                    self._change_role(election.Role.CANDIDATE)  # by now another one is active, for all it knows
                continue
            last_read = time.monotonic()
            records = self._parse(manifest)
            if (problem := self._clock_problem(records)) is not None:
                self._complain(problem)
                return False
            if election.is_surplus(records, identity=self._identity, seats=self._settings.seats,
                                   now=self._cluster.clock.now()):
                logger.info("More peers than seats, and this one has the lowest priority: leaving.")
                return False
            if any(record.identity == self._identity and record.is_live(self._cluster.clock.now())
                   for record in records):
                fresh = time.monotonic()
            elif time.monotonic() - fresh > 2 * self._settings.peering_lifetime:
                # Whether its thread lives or not: kopf does not renew the record, so another one has to be made.
                logger.error("The record of this instance in KopfPeering %s/%s was not renewed for %.0f s; it gives up"
                             " its seat and looks for one again.", self._settings.namespace,
                             self._settings.peering_name, time.monotonic() - fresh)
                metrics.RESTARTS.labels(part="seat").inc()
                return True
            if (standing := self._standing(records)) is not before:
                if standing is not election.Role.ACTIVE:
                    self._change_role(standing)  # the handlers have to end now, whatever the loop is busy with
                work.wake(0.0)

    async def _read_peering(self) -> client.Manifest | None:
        """The peering, None if it could not be read. Records that nobody can read are dropped from it."""
        try:
            manifest = await self._cluster.get(self._path)
        except client.APIError as error:
            logger.debug("The peering could not be read: %s", error)
            return None
        if identities := election.unreadable(manifest):
            self._tell_unreadable(identities)
            try:
                await peering.drop(
                    self._cluster, manifest, namespace=self._settings.namespace, identities=identities)
            except client.APIError as error:
                logger.info("They could not be dropped, trying again soon: %s", error)  # as a rule, another one has
        return manifest

    def _parse(self, manifest: client.Manifest) -> tuple[election.Record, ...]:
        """The records by the API server's time: kopf has stamped the one of this instance by this machine's."""
        ahead = datetime.timedelta(seconds=self._cluster.clock.skew_seconds or 0.0)
        records = tuple(
            dataclasses.replace(record, expires_at=record.expires_at - ahead)
            if record.identity == self._identity and record.readable else record
            for record in election.parse(manifest))
        now = self._cluster.clock.now()
        metrics.observe_peering(records=sum(record.is_live(now) for record in records))
        return records

    async def _confirm(self) -> bool:
        """Whether this is the active instance, by a fresh read; a newly active one looks twice."""
        if self._standalone:
            return self._confirm_alone()
        was_active = self._role is election.Role.ACTIVE
        role = await self._read_role()
        if role is election.Role.ACTIVE and not was_active:
            await asyncio.sleep(MOMENT_SECONDS)
            role = await self._read_role()
        self._change_role(role)
        return role is election.Role.ACTIVE

    def _confirm_alone(self) -> bool:
        """Standalone there is no election, but a clock all the same."""
        problem = self._clock_problem(())
        if problem is not None:
            self._complain(problem)
        else:
            self._on_problem(self._work_trouble)
        self._change_role(election.Role.CANDIDATE if problem else election.Role.ACTIVE)
        return problem is None

    async def _read_role(self) -> election.Role:
        records = self._parse(await self._cluster.get(self._path))
        if self._clock_problem(records) is not None:
            return election.Role.CANDIDATE
        return self._standing(records)

    def _standing(self, records: tuple[election.Record, ...]) -> election.Role:
        """Active or candidate: a holder whose record has expired stands by until kopf has renewed it."""
        role = election.role(records, identity=self._identity, now=self._cluster.clock.now())
        return role if role is election.Role.ACTIVE else election.Role.CANDIDATE

    def _change_role(self, role: election.Role) -> None:
        if role is not self._role:
            what = "all certificates" if self._settings.all_certificates else (
                f"{self._settings.namespace}/{self._settings.certificate}")
            logger.info("This instance is now %s for the issuing of %s.", role, what)
            self._role = role
            metrics.set_active(role is election.Role.ACTIVE)
            if self._user_handlers is not None:
                self._user_handlers.set_active(role is election.Role.ACTIVE)
            self._on_role(role)

    def _note_trouble(self, trouble: str | None) -> None:
        """What keeps the work from being done; another instance would do no better, so the seat is kept."""
        if trouble is not None:
            self._complain(trouble)
        elif self._work_trouble is not None:
            self._on_problem(None)
        self._work_trouble = trouble

    def _complain(self, problem: str) -> None:
        now = time.monotonic()
        if problem != self._complaint or now - self._complained_at >= SELDOM_SECONDS:
            self._complaint, self._complained_at = problem, now
            logger.error("This instance cannot issue: %s.", problem)
        self._troubled = True
        self._on_problem(problem)

    def _pause_seconds(self) -> float:
        """Soon while a certificate is wanted, else rarely; jittered, since every node asks."""
        if self._work_due() and self._troubled:  # often, objects of one installation arrive in any order
            return random.uniform(2.0, 8.0)
        if self._work_due():
            return self._settings.peering_lifetime + random.uniform(0.0, 5.0)
        return self._settings.peering_look_seconds * random.uniform(0.5, 1.5)

    @property
    def _path(self) -> str:
        return paths.peering(self._settings.namespace, self._settings.peering_name)
