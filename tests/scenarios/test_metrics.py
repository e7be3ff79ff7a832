"""What a whole installation says of itself in its metrics, by value."""
import datetime
import re
import urllib.request

import pytest

from devcluster import facade
from scenarios import installation, instances

pytestmark = pytest.mark.cluster

PREFIX = "steadyhook_webhookcertificate_"


def metrics(pod: facade.PodProcess) -> dict[str, float]:
    """Each series, with its labels as they are written."""
    with urllib.request.urlopen(f"http://{pod.loopback}:8080/metrics", timeout=10) as response:
        text = response.read().decode()
    return {name: float(value) for name, value in re.findall(r"^(steadyhook_\S+) (\S+)$", text, re.MULTILINE)}


def test_a_healthy_installation_is_told_by_its_metrics(serving: installation.Installation) -> None:
    active = instances.wait_settled(serving)
    serving.cluster.wait_for(lambda: serving.certificate()["status"]["acknowledged"] == "3/3", 60, "all to acknowledge")
    of = f'name="{installation.CERTIFICATE}",namespace="{serving.namespace}"'
    looks = PREFIX + f"instances_acknowledged{{{of}}}"
    serving.cluster.wait_for(lambda: metrics(active).get(looks) == 3, 60, "the metrics to say so")
    found, status = metrics(active), serving.certificate()["status"]
    assert found['steadyhook_writes_total{object="Secret",verb="create"}'] == 2
    assert found["steadyhook_active"] == 1
    for field, name in (("notAfter", "not_after"), ("caNotAfter", "ca_not_after"), ("caNotAfter", "bundle_not_after")):
        expected = datetime.datetime.fromisoformat(status[field]).timestamp()
        assert found[f"{PREFIX}{name}_timestamp_seconds{{{of}}}"] == expected
    assert {kind: found[f'{PREFIX}condition{{{of},type="{kind}"}}'] for kind in ("Ready", "Injected", "Degraded")} == {
        "Ready": 1, "Injected": 1, "Degraded": 0}
    assert found[f'{PREFIX}rotation_phase{{{of},phase="NotRotating"}}'] == 1
    for pod in serving.pods():
        found = metrics(pod)
        assert found["steadyhook_serving"] == 1
        assert found["steadyhook_certificate_swaps_total"] == 1
        assert found["steadyhook_peering_records"] >= 1
        assert found["steadyhook_issuer_seen_timestamp_seconds"] > 0
        assert any(name.startswith(PREFIX) for name in found) is (pod.uid == active.uid)


def test_a_certificate_that_is_deleted_leaves_no_series(serving: installation.Installation) -> None:
    active = instances.wait_settled(serving)
    serving.cluster.wait_for(lambda: any(name.startswith(PREFIX) for name in metrics(active)), 60, "its series")
    serving.cluster.kubectl("delete", "whcert", installation.CERTIFICATE, "-n", serving.namespace)
    serving.cluster.wait_for(lambda: not any(name.startswith(PREFIX) for name in metrics(active)), 60,
                             "the series to be gone")
