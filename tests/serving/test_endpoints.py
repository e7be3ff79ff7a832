"""The plain HTTP endpoints for the kubelet and for Prometheus."""
import asyncio
import socket

import pytest

import steadyhook
from serving import support
from steadyhook.serving import endpoints, readiness, sockets


def test_readyz_follows_the_readiness_and_gives_the_reason() -> None:
    async def main() -> None:
        ready = readiness.Readiness()
        async with endpoints.serve(support.HOST, 0, ready) as port:
            ready.wait("there is no Secret")
            answer = await support.ask(port, "/readyz")
            assert (answer.status, answer.text) == (503, "there is no Secret\n")
            ready.serve("serves generation 7")
            answer = await support.ask(port, "/readyz")
            assert (answer.status, answer.text) == (200, "serves generation 7\n")

    asyncio.run(main())


def test_healthz_is_500_with_the_trouble_while_there_is_some() -> None:
    async def main() -> None:
        trouble: list[str | None] = [None]
        async with endpoints.serve(support.HOST, 0, readiness.Readiness(), lambda: trouble[0]) as port:
            assert (await support.ask(port, "/healthz")).status == 200
            trouble[0] = "the watcher has died"
            answer = await support.ask(port, "/healthz")
            assert (answer.status, answer.text) == (500, "the watcher has died\n")

    asyncio.run(main())


def test_metrics_come_in_prometheus_text_format() -> None:
    async def main() -> None:
        async with endpoints.serve(support.HOST, 0, readiness.Readiness()) as port:
            answer = await support.ask(port, "/metrics")
        assert answer.status == 200
        assert answer.headers["content-type"].startswith("text/plain")
        assert f'\nsteadyhook_info{{version="{steadyhook.__version__}"}} 1.0\n' in answer.text
        assert '\nsteadyhook_connections{port="health"} 1.0\n' in answer.text
        assert "\nsteadyhook_active 0.0\n" in answer.text

    asyncio.run(main())


def test_a_port_in_use_is_named_with_the_setting_and_the_remedy() -> None:
    async def main() -> None:
        with socket.create_server((support.HOST, 0)) as other:
            port = other.getsockname()[1]
            with pytest.raises(sockets.ListenError) as caught:
                async with endpoints.serve(support.HOST, port, readiness.Readiness()):
                    pass
        assert str(caught.value) == (
            f"cannot listen on {support.HOST}, port {port}: Address already in use;"
            " set STEADYHOOK_HEALTH_PORT to a free port, or stop the process that holds this one")

    asyncio.run(main())
