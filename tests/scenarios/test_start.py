"""The main job: all instances start at once, one issues with one write, every one serves."""
import pytest

from devcluster import api, audit
from scenarios import installation
from scenarios.conftest import Install

pytestmark = pytest.mark.cluster

SEATS = 3


def assert_one_write_and_one_active(installed: installation.Installation, since: int) -> None:
    assert installed.secret_writes(since=since) == [("create", 201)]
    assert [audit.code_of(item) for item in installed.writes("secrets", installation.AUTHORITY, since=since)] == [201]
    taken = [event for event in installed.writes("kopfpeerings", since=since) if audit.code_of(event) < 400]
    assert taken
    for event in taken:
        records = [item for item in (event["responseObject"].get("status") or {}).values() if item]
        assert len(records) <= SEATS


@pytest.mark.parametrize("nodes", [3])
def test_all_start_at_once_and_serve_one_certificate_written_once(install: Install, nodes: int) -> None:
    installed = install(nodes=nodes, at_once=True)
    fingerprint = installed.wait_serving()
    installed.wait_ready()
    assert len(fingerprint) == 64
    roles = [item["role"] for item in installed.instances()]
    assert roles.count("active") == 1
    assert_one_write_and_one_active(installed, 0)


def test_the_webhook_allows_denies_and_changes_through_the_service(serving: installation.Installation) -> None:
    admitted = serving.admit("3")
    assert admitted["metadata"]["labels"] == {"steadyhook.io/admitted": "true"}
    with pytest.raises(api.ApiError) as refused:
        serving.admit("many")
    assert 'data.replicas is "many", expected a positive whole number' in str(refused.value)
