"""Fixtures that all tests share: one development cluster for the whole session, a namespace for each test."""

import os
import pathlib
import time
import uuid
from collections.abc import Generator, Iterator, Mapping

import hypothesis
import pytest

from devcluster import binaries, facade

MANIFESTS = pathlib.Path(__file__).parents[1] / "manifests"
_LOG_LINES = 40

# The same examples each time, and no time limit for one of them: machines may be busy.
hypothesis.settings.register_profile("steady", derandomize=True, deadline=None, database=None, print_blob=True,
                                     suppress_health_check=[hypothesis.HealthCheck.too_slow])
hypothesis.settings.load_profile("steady")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The files that take longest first: where files run side by side, none is left alone at the end."""
    slow = {item.path for item in items if item.get_closest_marker("slow")}
    items.sort(key=lambda item: item.path not in slow)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item: pytest.Item) -> Generator[None, object, object]:
    """A test that is not marked `cluster` starts no cluster: on a fresh clone that would be a build of minutes."""
    if item.get_closest_marker("cluster"):
        return (yield)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(binaries, "find", _find_nothing)
        return (yield)


_find = binaries.find


def _find_nothing(progress: binaries.Progress, environ: Mapping[str, str] = os.environ) -> dict[str, pathlib.Path]:
    if environ is os.environ:
        pytest.fail("this test needs the control plane's programs, expected one that is marked `cluster`; mark it")
    return _find(progress, environ)  # of a folder of its own: the tests of this very function


@pytest.fixture(scope="session")
def devcluster(request: pytest.FixtureRequest) -> Iterator[facade.DevCluster]:
    """The session's cluster, without nodes: each test adds its own, and removes them.

    A build of the control plane takes minutes, so its progress is shown in spite of pytest's capturing.
    """
    capture = request.config.pluginmanager.getplugin("capturemanager")
    terminal = request.config.pluginmanager.getplugin("terminalreporter")
    began = time.monotonic()

    def say(line: str) -> None:
        with capture.global_and_fixture_disabled():
            terminal.write_line(f"[devcluster {time.monotonic() - began:5.1f} s] {line}")

    with facade.DevCluster(progress=say) as cluster:
        yield cluster


@pytest.fixture(scope="session")
def definitions(devcluster: facade.DevCluster) -> None:
    """The CRDs, established."""
    devcluster.kubectl("apply", "-k", str(MANIFESTS / "crds"))
    devcluster.kubectl("wait", "--for=condition=Established", "--timeout=30s", "crd", "--all")


@pytest.fixture
def namespace(devcluster: facade.DevCluster, request: pytest.FixtureRequest) -> Iterator[str]:
    """A namespace with a unique name whose default ServiceAccount exists; deleted, without waiting, afterwards."""
    name = f"test-{uuid.uuid4().hex[:8]}"
    devcluster.kubectl("create", "namespace", name)
    account = f"/api/v1/namespaces/{name}/serviceaccounts/default"
    devcluster.wait_for(lambda: devcluster.request("GET", account), 20, f"the ServiceAccount default of {name}")
    yield name
    if getattr(request.node, "failed", False):
        _show(devcluster, name)
    devcluster.kubectl("delete", "namespace", name, "--wait=false")


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Let the fixtures of a failed test know that it failed."""
    report = yield
    if report.failed:
        item.failed = True  # type: ignore[attr-defined]
    return report


def _show(cluster: facade.DevCluster, namespace: str) -> None:
    """Print what a failed test leaves in its namespace, which pytest shows with the failure."""
    print(cluster.kubectl("-n", namespace, "get", "pods", "-o", "wide", check=False))
    print(cluster.kubectl("-n", namespace, "get", "events", check=False))
    for pod in cluster.pods(namespace):
        print(f"---- the end of the log of {pod.name}:")
        print("\n".join(pod.log().splitlines()[-_LOG_LINES:]))
