"""What the reconcile loop of one certificate tells the metrics."""
import asyncio
import types
from typing import Any

import prometheus_client
import pytest

from core import builders
from steadyhook import metrics, settings
from steadyhook.cluster import applying, client
from steadyhook.core import steps
from steadyhook.issuing import reconciling

TARGET = reconciling.Target(namespace="ns", certificate="hook", secret_name="tls")


def reconciler() -> reconciling.Reconciler:
    async def confirm() -> bool:
        return True

    return reconciling.Reconciler(
        cluster=client.Cluster(), settings=settings.load({}, namespaces=["ns"]), target=TARGET, confirm=confirm)


def test_a_write_that_is_refused_as_the_object_has_changed_is_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    def conflicts() -> float:
        return prometheus_client.REGISTRY.get_sample_value("steadyhook_conflicts_total", {"object": "Secret"}) or 0.0

    async def refuse(*_: Any, **__: Any) -> None:
        raise client.Conflict(method="PATCH", path="/x", status=409, message="the object has been modified")

    observation = types.SimpleNamespace(pairs={})

    async def main() -> None:
        action = steps.Freeze(secrets=(builders.secret(),))
        with pytest.raises(client.Conflict):
            await reconciler()._carry_out(
                {}, action, builders.wanted(), observation, None)  # type: ignore[arg-type]

    monkeypatch.setattr(applying, "apply", refuse)
    before = conflicts()
    asyncio.run(main())
    assert conflicts() == before + 1


def test_a_loop_that_ends_takes_the_series_of_its_certificate_with_it(monkeypatch: pytest.MonkeyPatch) -> None:
    def series() -> float | None:
        return prometheus_client.REGISTRY.get_sample_value(
            "steadyhook_webhookcertificate_instances", {"namespace": "ns", "name": "hook"})

    async def main() -> None:
        metrics.set_active(True)
        loop = asyncio.create_task(reconciler().run())
        await asyncio.sleep(0)
        metrics.observe_certificate("ns", "hook", {"acknowledged": "1/2"})
        assert series() == 2
        loop.cancel()
        await asyncio.wait({loop})
        assert series() is None
        metrics.set_active(False)

    async def wait_for_ever(_: Any) -> float:
        await asyncio.Event().wait()
        return 0.0

    monkeypatch.setattr(reconciling.Reconciler, "_reconcile", wait_for_ever)
    asyncio.run(main())
