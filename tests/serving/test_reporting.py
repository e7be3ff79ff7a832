"""The reporter, against a stand-in for the API client: which other entries it clears, and who owns what it creates."""
import asyncio
import copy
from collections.abc import Iterator
from typing import Any

import pytest

from steadyhook import settings
from steadyhook.cluster import client, paths
from steadyhook.serving import reporting

NAMESPACE = "shop"
RUNNER = asyncio.Runner()  # one loop: a reporter belongs to that in which it was first run
ENVIRONMENT = {"POD_NAMESPACE": NAMESPACE, "NODE_NAME": "node-1"}


class Objects(client.Cluster):
    """Objects by path; a status is written with its object."""

    def __init__(self) -> None:
        super().__init__()
        self.by_path: dict[str, client.Manifest] = {}
        self.writes = 0

    def add(self, path: str, uid: str) -> None:
        self.by_path[path] = {"metadata": {"uid": uid}}

    async def find(self, path: str) -> client.Manifest | None:
        return copy.deepcopy(self.by_path.get(path))

    async def create(self, path: str, manifest: client.Manifest) -> client.Manifest:
        self.by_path[f"{path}/{manifest['metadata']['name']}"] = copy.deepcopy(manifest)
        self.writes += 1
        return manifest

    async def replace(self, path: str, manifest: client.Manifest) -> client.Manifest:
        self.by_path[path.removesuffix("/status")] = copy.deepcopy(manifest)
        self.writes += 1
        return manifest

    def node(self) -> dict[str, Any]:
        return self.by_path[paths.manager_node(NAMESPACE, "node-1")]

    def instances(self) -> list[str]:
        return [item["podName"] for item in self.node()["status"]["instances"]]


@pytest.fixture(scope="module", autouse=True)
def _end_of_the_loop() -> Iterator[None]:
    yield
    RUNNER.close()


@pytest.fixture
def objects() -> Objects:
    return Objects()


def reporter(objects: Objects, name: str, uid: str | None = None) -> reporting.Reporter:
    """The reporter of a pod, or of a process on a workstation when ``uid`` is None."""
    environment = {**ENVIRONMENT, "POD_NAME": name, **({"POD_UID": uid} if uid else {})}
    if uid is not None:
        objects.add(paths.pod(NAMESPACE, name), uid)
    return reporting.Reporter(cluster=objects, settings=settings.load(environment))


def report(*reporters: reporting.Reporter, times: int = 1) -> None:
    """Each looks at the ManagerNode and writes what it has to say, in turn."""
    async def look(one: reporting.Reporter) -> None:
        one.look_again()
        task = asyncio.create_task(one.run())
        await asyncio.sleep(0.01)
        task.cancel()

    for one in reporters * times:
        RUNNER.run(look(one))


def test_a_neighbour_whose_pod_goes_later_is_cleared_by_the_next_look(objects: Objects) -> None:
    old, new = reporter(objects, "old", "uid-1"), reporter(objects, "new", "uid-2")
    report(old, new)
    assert objects.instances() == ["old", "new"]
    del objects.by_path[paths.pod(NAMESPACE, "old")]
    report(new)
    assert objects.instances() == ["new"]


@pytest.mark.parametrize("phase", ["Failed", "Succeeded"])
def test_a_neighbour_whose_pod_has_ended_is_cleared_though_the_object_stays(objects: Objects, phase: str) -> None:
    old, new = reporter(objects, "old", "uid-1"), reporter(objects, "new", "uid-2")
    report(old, new)
    objects.by_path[paths.pod(NAMESPACE, "old")]["status"] = {"phase": phase}
    report(new)
    assert objects.instances() == ["new"]


def test_a_neighbour_whose_name_no_pod_can_have_is_cleared(objects: Objects) -> None:
    one = reporter(objects, "one", "uid-1")
    report(one)
    objects.node()["status"]["instances"].append({**objects.node()["status"]["instances"][0], "podUID": "x",
                                                  "podName": "../../secrets"})
    report(one)
    assert objects.instances() == ["one"]


def test_a_pod_of_the_same_name_that_came_later_is_another_one(objects: Objects) -> None:
    report(reporter(objects, "same", "uid-1"))
    report(reporter(objects, "same", "uid-2"))
    assert [item["podUID"] for item in objects.node()["status"]["instances"]] == ["uid-2"]


def test_two_processes_that_are_no_pods_do_not_clear_each_other_for_ever(objects: Objects) -> None:
    first, second = reporter(objects, "first"), reporter(objects, "second")
    report(first, second, times=3)
    writes = objects.writes
    report(first, second, times=3)
    assert objects.instances() == ["first", "second"]
    assert objects.writes == writes


@pytest.mark.parametrize(("existing", "expected"), [
    ({paths.node("node-1"): "uid-n", paths.pod(NAMESPACE, "one"): "uid-p"}, [("Node", "node-1", "uid-n")]),
    ({paths.pod(NAMESPACE, "one"): "uid-p"}, [("Pod", "one", "uid-p")]),
    ({}, []),
], ids=["node", "pod", "workstation"])
def test_a_managernode_goes_with_its_node_or_else_with_the_pod(
    objects: Objects, existing: dict[str, str], expected: list[tuple[str, str, str]]
) -> None:
    for path, uid in existing.items():
        objects.add(path, uid)
    report(reporter(objects, "one"))
    owners = objects.node()["metadata"]["ownerReferences"]
    assert [(owner["kind"], owner["name"], owner["uid"]) for owner in owners] == expected


def test_the_same_problem_told_again_is_no_reason_to_look(objects: Objects) -> None:
    one = reporter(objects, "one")
    one.set_problem("no permission")
    report(one)
    del objects.by_path[paths.manager_node(NAMESPACE, "node-1")]
    one.set_problem("no permission")

    async def run() -> None:
        task = asyncio.create_task(one.run())
        await asyncio.sleep(0.01)
        task.cancel()

    RUNNER.run(run())
    assert paths.manager_node(NAMESPACE, "node-1") not in objects.by_path


def test_what_could_not_be_reported_for_an_unexpected_reason_is_reported_by_the_next_run(objects: Objects) -> None:
    one = reporter(objects, "one", "uid-1")
    find = objects.find

    async def broken(path: str) -> client.Manifest | None:
        raise KeyError("podUID")

    async def scenario() -> None:
        one.set_problem("no election")
        objects.find = broken  # type: ignore[method-assign]
        with pytest.raises(KeyError):
            await one.run()
        objects.find = find  # type: ignore[method-assign]
        task = asyncio.create_task(one.run())
        async with asyncio.timeout(10):
            while not objects.writes:
                await asyncio.sleep(0)
        task.cancel()

    RUNNER.run(scenario())
    assert objects.instances() == ["one"]
