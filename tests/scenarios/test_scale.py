"""Twenty nodes, every process started at the same moment: one write, one active instance, three seats."""
import time

import pytest

from devcluster import audit
from scenarios import installation, instances
from scenarios.conftest import Install

pytestmark = [pytest.mark.cluster, pytest.mark.slow]

NODES = 20


@pytest.mark.parametrize("layout", ["manager", "split"])
def test_twenty_start_at_once_and_one_write_serves_them_all(install: Install, layout: str) -> None:
    installed = install(nodes=NODES, layout=layout, at_once=True)
    began = time.monotonic()
    fingerprint = installed.wait_serving(timeout=300)
    print(f"{layout}: {NODES} nodes serve {time.monotonic() - began:.1f} s after the start of all processes")
    active = instances.wait_settled(installed)
    installed.wait_ready()
    assert {item["fingerprint"] for item in installed.instances()} == {fingerprint}
    assert len({item["node"] for item in installed.instances()}) == NODES
    assert installed.secret_writes() == [("create", 201)]
    assert [audit.code_of(item) for item in installed.writes("secrets", installation.AUTHORITY)] == [201]
    assert max(records(installed)) == min(instances.SEATS, len(installed.pods("issuer")) or NODES)
    refused = [item for item in installed.writes("kopfpeerings") if audit.code_of(item) == 409]
    print(f"{layout}: {active.name} issues; {len(refused)} conflicts on the peering,"
          f" {len(installed.writes('managernodes'))} writes to ManagerNodes")
    if layout == "manager":
        wait_roles(installed)
    installed.admit()


def records(installed: installation.Installation) -> list[int]:
    """How many records the peering held after each write to it."""
    return [len([record for record in (event["responseObject"].get("status") or {}).values() if record])
            for event in installed.writes("kopfpeerings") if audit.code_of(event) < 400]


def wait_roles(installed: installation.Installation) -> None:
    expected = ["active", *["candidate"] * (instances.SEATS - 1), *["reserve"] * (NODES - instances.SEATS)]
    installed.cluster.wait_for(
        lambda: sorted(item["role"] for item in installed.instances()) == expected, 60, "the roles in the ManagerNodes")
