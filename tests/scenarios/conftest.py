"""Fixtures of the scenarios: installations that are taken away again."""
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from devcluster import facade
from scenarios import installation

Install = Callable[..., installation.Installation]


@pytest.fixture
def install(
    devcluster: facade.DevCluster, definitions: None, namespace: str, request: pytest.FixtureRequest
) -> Iterator[Install]:
    """Install steadyhook in the test's namespace (once a test); its logs are shown if the test fails."""
    made: list[installation.Installation] = []

    def make(*, at_once: bool = False, **options: Any) -> installation.Installation:
        installed = installation.Installation(devcluster, namespace, **options)
        made.append(installed)
        installed.install(at_once=at_once)
        return installed

    yield make
    for installed in made:
        for pod in installed.pods():
            print(f"--- {pod.name} on {pod.node}, {pod.restarts} restarts\n{pod.log()[-4000:]}")
        installed.uninstall()


@pytest.fixture
def serving(install: Install) -> installation.Installation:
    """Three nodes of the manager layout that serve and are reachable."""
    installed = install()
    installed.wait_serving()
    installed.wait_ready()
    return installed
