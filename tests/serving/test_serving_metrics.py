"""What the metrics of the serving half say in each state, by value."""
import asyncio
import datetime
import time
from typing import Any

import prometheus_client
import pytest

from serving import support
from serving.test_keeping import AUTHORITY, NOW, WANTED, manifest
from steadyhook import metrics, settings
from steadyhook.pki import certificates, minting
from steadyhook.serving import admission, keeping, readiness, tls


def value(name: str, **labels: str) -> float:
    return prometheus_client.REGISTRY.get_sample_value(name, labels) or 0.0


def serving() -> float:
    return value("steadyhook_serving")


class Instance:
    """A listener and its keeper, without an API server; ``now`` is what the keeper takes for the time."""

    def __init__(self, **options: Any) -> None:
        self.now = NOW
        context, ready = tls.SwappableContext(), readiness.Readiness()
        self.keeper = keeping.Keeper(
            settings=settings.load({"STEADYHOOK_SERVICE": "hook"}, namespaces=["ns"]), context=context, ready=ready,
            on_verdict=lambda verdict: None, now=lambda: self.now)
        self.server = admission.AdmissionServer(
            tls=context, readiness=ready, address=support.HOST, port=0, health_port=None,
            **{"drain_seconds": 0, **options})


def leaf() -> certificates.KeyPair:
    return minting.mint_leaf(WANTED, signer=AUTHORITY, now=NOW)


@pytest.fixture(autouse=True)
def _short_linger(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("steadyhook.serving.admission.LAST_HANDSHAKES_SECONDS", 0.02)


def test_serving_is_1_exactly_while_the_port_is_open_with_a_certificate_that_is_good() -> None:
    async def main() -> None:
        instance = Instance(drain_seconds=60)
        first, second = leaf(), leaf()
        async with support.iterate(instance.server) as iteration:
            instance.keeper.see(None)
            assert serving() == 0, "waiting"
            instance.keeper.see(manifest(first, generation=1))
            assert serving() == 0, "a certificate, but no open port yet"
            await iteration.wait_until_up()
            assert serving() == 1, "serving"
            instance.keeper.see(None)
            assert serving() == 1, "degraded, but good"
            instance.now = first.certificate.not_after
            assert serving() == 0, "expired, whoever has noticed"
            instance.now = NOW
            instance.keeper.see(manifest(second, generation=2))
            assert serving() == 1, "serving again"
            iteration.task.cancel()
            while instance.server.readiness.state is not readiness.State.DRAINING:
                await asyncio.sleep(0)
            assert serving() == 1, "draining: it answers still"
            iteration.task.cancel()
            await asyncio.wait({iteration.task})
            assert serving() == 0, "closed"

    asyncio.run(main())


def test_an_instance_without_a_serving_half_does_not_say_that_it_does_not_serve() -> None:
    async def main() -> None:
        Instance()
        assert prometheus_client.REGISTRY.get_sample_value("steadyhook_serving") == 0
        metrics.set_certified(None)
        assert prometheus_client.REGISTRY.get_sample_value("steadyhook_serving") is None

    asyncio.run(main())


def test_swaps_are_counted_and_the_served_certificate_is_told() -> None:
    async def main() -> None:
        instance, swaps = Instance(), value("steadyhook_certificate_swaps_total")
        first, second = leaf(), leaf()
        instance.keeper.see(manifest(first, generation=1))
        assert value("steadyhook_certificate_swaps_total") == swaps + 1
        assert value("steadyhook_certificate_generation") == 1
        instance.keeper.see(manifest(first, generation=1))
        instance.keeper.see(None)
        assert value("steadyhook_certificate_swaps_total") == swaps + 1
        assert value("steadyhook_certificate_generation") == 1
        instance.now += datetime.timedelta(seconds=1)
        instance.keeper.see(manifest(second, generation=2))
        assert value("steadyhook_certificate_swaps_total") == swaps + 2
        assert value("steadyhook_certificate_generation") == 2
        assert value("steadyhook_certificate_not_after_timestamp_seconds") == (
            second.certificate.not_after.timestamp())

    asyncio.run(main())


def test_what_is_seen_and_not_served_is_counted_by_reason_and_each_look_has_its_time() -> None:
    async def main() -> None:
        instance, rejected = Instance(), value("steadyhook_secret_rejected_total", reason="OlderGeneration")
        began = time.time()
        instance.keeper.see(manifest(leaf(), generation=2))
        older = manifest(leaf(), generation=1)
        older["metadata"]["resourceVersion"] = "3"
        instance.keeper.see(older)
        assert value("steadyhook_secret_rejected_total", reason="OlderGeneration") == rejected + 1
        assert began <= value("steadyhook_secret_seen_timestamp_seconds") <= time.time()

    asyncio.run(main())


def test_open_connections_and_failed_handshakes_are_counted() -> None:
    async def main() -> None:
        authority = support.Authority()
        server = support.make_server(authority.issue())
        failures = value("steadyhook_handshake_failures_total")
        async with support.serve(server):
            assert value("steadyhook_connections", port="webhook") == 0
            kept = await support.Connection.open(server.port, authority.client())
            await kept.request("/", support.encode(support.review()))
            assert value("steadyhook_connections", port="webhook") == 1
            with pytest.raises(OSError, match="CERTIFICATE_VERIFY_FAILED"):
                await support.Connection.open(server.port, support.Authority().client())
            await kept.close()
            while value("steadyhook_connections", port="webhook") or (
                    value("steadyhook_handshake_failures_total") == failures):
                await asyncio.sleep(0.01)
            assert value("steadyhook_handshake_failures_total") == failures + 1

    asyncio.run(main())
