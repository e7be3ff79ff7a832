"""
An instance's part in the election: win a seat, keep it while it lasts, leave it at once when asked to stop.

With a seat, kopf's own peering does the rest: keep-alives, and pausing all but the peer of the highest priority. An
instance without one sends a single GET now and then.
"""
import asyncio
import collections.abc
import datetime
import logging
import random
import time

import kopf

from steadyhook import metrics
from steadyhook.cluster import client, embedding, paths, peering
from steadyhook.core import election
from steadyhook.issuing import operator, reconciling, roster
from steadyhook.settings import Settings

logger = logging.getLogger(__name__)

MOMENT_SECONDS = 0.5
"""How long a new active instance waits before it looks again whether it still is: peers see each other late."""


def start(
    settings: Settings, *, kopf_settings: kopf.OperatorSettings,
    on_role: collections.abc.Callable[[election.Role], None] = lambda role: None,
    on_problem: collections.abc.Callable[[str | None], None] = lambda problem: None,
    work_due: collections.abc.Callable[[], bool] = lambda: True,
) -> "Candidacy":
    """
    Begin an instance's candidacy with what kopf's command line put into its settings for the peering.

    The main operator itself stays out of the peering: it would pause, and it has nothing to pause for.
    """
    result = Candidacy(
        settings=settings, identity=settings.instance.pod_name, standalone=kopf_settings.peering.standalone,
        priority=kopf_settings.peering.priority or None, on_role=on_role, on_problem=on_problem, work_due=work_due)
    kopf_settings.peering.standalone = True
    result.start()
    return result


class Candidacy:
    """
    The issuing half of one instance, in a task of its own from :meth:`start` to :meth:`stop`.

    ``on_role`` is told each change of the role. ``on_problem`` is told what keeps the instance out, None when nothing
    does. ``work_due`` says whether a certificate is visibly wanted, so that a reserve looks for a seat sooner.
    """

    def __init__(
        self, *, settings: Settings, identity: str, standalone: bool = False, priority: int | None = None,
        on_role: collections.abc.Callable[[election.Role], None],
        on_problem: collections.abc.Callable[[str | None], None],
        work_due: collections.abc.Callable[[], bool],
    ) -> None:
        self._settings = settings
        self._identity = identity
        self._standalone = standalone
        self._priority = priority
        self._on_role = on_role
        self._on_problem = on_problem
        self._work_due = work_due
        self._role: election.Role | None = None
        self._troubled = False
        self._cluster = client.Cluster()
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        self._task = asyncio.create_task(self._run(), name="candidacy")

    async def stop(self) -> None:
        """Give up the seat, if there is one, and return once it is given up. May be called again."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait({self._task})

    def trouble(self) -> str | None:
        """What has gone wrong beyond repair, for the liveness probe."""
        if self._task is not None and self._task.done() and not self._task.cancelled():
            return f"the candidacy has ended: {self._task.exception()}"
        return None

    async def _run(self) -> None:
        async with self._cluster:
            if self._standalone:
                await self._issue(None)
                return
            self._change_role(election.Role.RESERVE)
            await asyncio.sleep(random.uniform(0.0, 1.0))
            while True:
                seat = await self._look_for_seat()
                if seat is not None:
                    await self._issue(seat)
                    self._change_role(election.Role.RESERVE)
                await asyncio.sleep(self._pause_seconds())

    async def _look_for_seat(self) -> election.Join | None:
        """Take a seat if there is one, else None."""
        try:
            while True:
                manifest = await self._cluster.get(self._path)
                self._troubled = False
                self._on_problem(None)
                seat = election.find_seat(
                    election.parse(manifest), identity=self._identity, seats=self._settings.seats, now=_now(),
                    priority=self._priority)
                if seat is None:
                    return None
                try:
                    await peering.join(
                        self._cluster, manifest, namespace=self._settings.namespace, identity=self._identity,
                        seat=seat, lifetime_seconds=self._settings.peering_lifetime, now=_now())
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

    async def _issue(self, seat: election.Join | None) -> None:
        """Stand by or issue until the seat is lost (or for ever, when standalone)."""
        own = reconciling.Target(namespace=self._settings.namespace, certificate=self._settings.certificate,
                                 secret_name=self._settings.secret_name)
        work: roster.Roster | reconciling.Reconciler = roster.Roster(
            cluster=self._cluster, settings=self._settings, confirm=self._confirm,
        ) if self._settings.all_certificates else reconciling.Reconciler(
            cluster=self._cluster, settings=self._settings, target=own, confirm=self._confirm)
        watching = operator.build(
            self._settings, work=work if isinstance(work, reconciling.Reconciler) else None,
            identity=self._identity if seat else None, priority=seat.priority if seat else None)
        watching.start()
        loop_task = asyncio.create_task(work.run(), name="issuing")
        try:
            await self._keep_seat(watching, work.wake)
        finally:
            loop_task.cancel()
            await asyncio.shield(watching.stop())
            await asyncio.wait({loop_task})

    async def _keep_seat(self, watching: embedding.EmbeddedOperator, wake: operator.Wake) -> None:
        last_read = time.monotonic()
        while watching.alive:
            await asyncio.sleep(self._settings.peering_lifetime / 2)
            if self._standalone:
                continue
            before = self._role
            records = await self._records()
            if records is None:
                if time.monotonic() - last_read > self._settings.peering_lifetime:
                    self._change_role(election.Role.CANDIDATE)  # by now another one is active, for all it knows
                continue
            last_read = time.monotonic()
            if election.is_surplus(records, identity=self._identity, seats=self._settings.seats, now=_now()):
                logger.info("More peers than seats, and this one has the lowest priority: leaving.")
                return
            if self._standing(records) is not before:
                wake(0.0)

    async def _confirm(self) -> bool:
        """Whether this is the active instance, by a fresh read; a newly active one looks twice."""
        if self._standalone:
            self._change_role(election.Role.ACTIVE)
            return True
        was_active = self._role is election.Role.ACTIVE
        role = await self._read_role()
        if role is election.Role.ACTIVE and not was_active:
            await asyncio.sleep(MOMENT_SECONDS)
            role = await self._read_role()
        self._change_role(role)
        return role is election.Role.ACTIVE

    async def _read_role(self) -> election.Role:
        return self._standing(election.parse(await self._cluster.get(self._path)))

    def _standing(self, records: tuple[election.Record, ...]) -> election.Role:
        """Active or candidate: a holder whose record has expired stands by until kopf has renewed it."""
        role = election.role(records, identity=self._identity, now=_now())
        return role if role is election.Role.ACTIVE else election.Role.CANDIDATE

    async def _records(self) -> tuple[election.Record, ...] | None:
        try:
            return election.parse(await self._cluster.get(self._path))
        except client.APIError as error:
            logger.debug("The peering could not be read: %s", error)
            return None

    def _change_role(self, role: election.Role) -> None:
        if role is not self._role:
            what = "all certificates" if self._settings.all_certificates else (
                f"{self._settings.namespace}/{self._settings.certificate}")
            logger.info("This instance is now %s for the issuing of %s.", role, what)
            self._role = role
            metrics.ACTIVE.set(role is election.Role.ACTIVE)
            self._on_role(role)

    def _complain(self, problem: str) -> None:
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


def _now() -> datetime.datetime:
    return datetime.datetime.now(datetime.UTC)
