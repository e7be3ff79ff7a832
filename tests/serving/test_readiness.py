"""Readiness: one state, a reason, and named obstacles."""
from steadyhook.serving import readiness


def test_it_is_ready_only_while_it_serves() -> None:
    ready = readiness.Readiness()
    assert (ready.state, ready.ready) == (readiness.State.STARTING, False)
    ready.wait("no certificate yet")
    assert (ready.state, ready.ready, ready.reason) == (readiness.State.WAITING, False, "no certificate yet")
    ready.serve("serves generation 7")
    assert (ready.state, ready.ready, ready.reason) == (readiness.State.SERVING, True, "serves generation 7")
    ready.wait("the certificate has expired")
    assert not ready.ready


def test_draining_is_final() -> None:
    ready = readiness.Readiness()
    ready.serve()
    ready.drain()
    ready.serve()
    ready.wait("for nothing")
    assert (ready.state, ready.ready) == (readiness.State.DRAINING, False)
    assert ready.reason == "the instance is shutting down"


def test_an_obstacle_makes_a_serving_instance_not_ready_until_it_is_cleared() -> None:
    ready = readiness.Readiness()
    ready.serve()
    ready.obstruct("api", "no contact to the API server")
    ready.obstruct("listener", "the port is not open")
    assert not ready.ready
    assert ready.reason == "no contact to the API server; the port is not open"
    ready.clear("listener")
    assert ready.reason == "no contact to the API server"
    ready.clear("api")
    ready.clear("never there")
    assert ready.ready


def test_an_obstacle_is_added_to_why_the_instance_waits() -> None:
    ready = readiness.Readiness()
    ready.wait("no certificate yet")
    ready.obstruct("listener", "the port is not open")
    assert ready.reason == "no certificate yet; the port is not open"
