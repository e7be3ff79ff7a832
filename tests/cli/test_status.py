"""``steadyhook status``: what it says, and how it looks."""
import datetime
import io
import json
from typing import Any

import pytest
import rich.console

from cli import fake
from steadyhook.cli import output, status
from steadyhook.cli.output import Exit

GROUP = "/apis/steadyhook.io/v1alpha1/namespaces/ns"
PEERINGS = "/apis/kopf.dev/v1/namespaces/ns/kopfpeerings"
LABELS = {"app.kubernetes.io/name": "steadyhook"}
LEAF, OTHER = "8fca0ec3" * 8, "11aa22bb" * 8
NODES = 20
READY = {"type": "Ready", "status": "True", "reason": "UpToDate", "message": "the leaf is good"}


def record(age_seconds: float = 1) -> dict[str, Any]:
    lastseen = fake.NOW - datetime.timedelta(seconds=age_seconds)
    return {"priority": -1, "lifetime": 15, "lastseen": lastseen.isoformat()}


def pod_name(number: int) -> str:
    return f"steadyhook-manager-with-a-long-name-{number:05}"


@pytest.fixture
def found() -> fake.Fake:
    """A certificate that 20 nodes serve, and the issuer in one of them."""
    made = fake.Fake()
    made.add(f"{GROUP}/webhookcertificates", "hook", spec={"secretName": "hook-tls"}, status={
        "conditions": [READY], "fingerprint": LEAF, "notAfter": "2030-03-02T12:00:00Z",
        "caNotAfter": "2039-01-01T00:00:00Z"})
    for number in range(NODES):
        made.add(f"{GROUP}/managernodes", f"node-{number}", status={"instances": [{
            "podName": pod_name(number), "podUID": str(number), "certificate": "hook", "phase": "Serving",
            "fingerprint": LEAF, "role": "active" if number == 7 else "candidate" if number < 2 else "reserve",
            "message": "serves generation 1790000000 of the leaf"}]})
    made.add(PEERINGS, "steadyhook", metadata={"labels": LABELS}, status={pod_name(7): record()})
    made.add("/api/v1/namespaces/ns/pods", pod_name(7), spec={"nodeName": "node-7"})
    return made


def change(found: fake.Fake, number: int, **changes: Any) -> None:
    (instance,) = found.objects[f"{GROUP}/managernodes/node-{number}"]["status"]["instances"]
    instance.update(changes)


def on_a_terminal(found: fake.Fake, *, width: int = 80) -> list[str]:
    file = io.StringIO()
    console = rich.console.Console(file=file, force_terminal=True, color_system=None, width=width, highlight=False)
    console.print(status._tables(status.look(found, "ns"), found.now()))
    return file.getvalue().splitlines()


def test_equal_instances_are_one_line(monkeypatch: pytest.MonkeyPatch, found: fake.Fake) -> None:
    code, text, errors = fake.run(monkeypatch, found, "status")
    assert (code, errors) == (Exit.FINE, "")
    assert text.splitlines() == [
        "ns/hook Ready: the leaf is good",
        "  leaf:     ends in 60 days (2030-03-02), 8fca0ec3",
        "  CA:       ends in 3286 days (2039-01-01)",
        f"  issuer:   {pod_name(7)} in ns, on node-7",
        "  20 pods Serving 8fca0ec3 (1 active, 2 candidate, 17 in reserve)",
    ]


def test_those_that_differ_come_first_and_are_named(monkeypatch: pytest.MonkeyPatch, found: fake.Fake) -> None:
    for number in (3, 4, 5, 6):
        change(found, number, phase="Degraded", message="no contact")
    change(found, 8, fingerprint=OTHER, message="serves generation 1 of the leaf")
    change(found, 9, phase="Waiting", fingerprint=None, message="there is no Secret")
    _, text, _ = fake.run(monkeypatch, found, "status")
    assert text.splitlines()[-4:] == [
        f"  4 pods Degraded 8fca0ec3, {', '.join(f'{pod_name(n)} on node-{n}' for n in (3, 4, 5))} and 1 more:"
        " no contact",
        f"  1 pod Serving 11aa22bb (another leaf), {pod_name(8)} on node-8: serves generation 1 of the leaf",
        f"  1 pod Waiting, {pod_name(9)} on node-9: there is no Secret",
        "  14 pods Serving 8fca0ec3 (1 active, 2 candidate, 11 in reserve)",
    ]


def test_a_terminal_of_80_columns_and_24_rows_is_enough(found: fake.Fake) -> None:
    change(found, 8, phase="Degraded", message="no contact to the API server for 10,900 s, expected less than 10,800")
    lines = on_a_terminal(found)
    assert len(lines) < 24
    assert max(map(len, lines)) <= 80
    whole = " ".join(" ".join(lines).split())
    assert f"{pod_name(8)} on node-8: no contact to the API server for 10,900 s, expected" in whole


def test_json_has_every_instance(monkeypatch: pytest.MonkeyPatch, found: fake.Fake) -> None:
    (one,) = json.loads(fake.run(monkeypatch, found, "status", "-o", "json")[1])
    assert len(one["instances"]) == NODES
    assert one["fingerprint"] == LEAF
    assert (one["active"], one["nobodyIssues"]) == (pod_name(7), None)


def test_nobody_who_issues_is_a_fault(monkeypatch: pytest.MonkeyPatch, found: fake.Fake) -> None:
    found.objects[f"{PEERINGS}/steadyhook"]["status"] = {pod_name(7): record(age_seconds=135)}
    code, text, _ = fake.run(monkeypatch, found, "status")
    assert code == Exit.WRONG
    assert "issuer:   nobody issues for 2 minutes: the last record in KopfPeering ns/steadyhook ended at" in text
    assert "kubectl get pods -n ns -l app.kubernetes.io/name=steadyhook" in text


def test_a_watched_status_is_not_told_again_because_time_goes_by(
    monkeypatch: pytest.MonkeyPatch, found: fake.Fake, capsys: pytest.CaptureFixture[str]
) -> None:
    class Looks:
        """Time goes by twice, then another pod is active, then it ends."""

        count = 0

        def wait(self) -> None:
            self.count += 1
            if self.count == 3:
                raise KeyboardInterrupt
            ages = {1: 200.0, 2: 1.0}
            found.objects[f"{PEERINGS}/steadyhook"]["status"] = {pod_name(7): record(age_seconds=ages[self.count])}

    found.objects[f"{PEERINGS}/steadyhook"]["status"] = {pod_name(7): record(age_seconds=135)}
    with pytest.raises(KeyboardInterrupt):
        status._follow(found, "ns", "text", Looks())  # type: ignore[arg-type]
    text = capsys.readouterr().out
    assert (text.count("nobody issues"), text.count("on node-7")) == (1, 1)


def test_the_issuer_of_another_namespace_is_named(monkeypatch: pytest.MonkeyPatch, found: fake.Fake) -> None:
    del found.objects[f"{PEERINGS}/steadyhook"]
    other = "steadyhook-issuers"
    found.add(f"/apis/kopf.dev/v1/namespaces/{other}/kopfpeerings", other, metadata={"labels": LABELS},
              status={"issuer-1": record()})
    found.add(f"/apis/apps/v1/namespaces/{other}/deployments", "issuer", metadata={"labels": LABELS}, spec={
        "replicas": 1, "template": {"spec": {"containers": [{
            "args": ["--module=steadyhook.issuer", f"--peering={other}"],
            "env": [{"name": "STEADYHOOK_CERTIFICATES", "value": "all"}]}]}}})
    found.add(f"/api/v1/namespaces/{other}/pods", "issuer-1", spec={"nodeName": "node-3"})
    code, text, _ = fake.run(monkeypatch, found, "status")
    assert code == Exit.FINE
    assert "issuer:   issuer-1 in steadyhook-issuers, on node-3" in text


def test_an_issuer_that_is_no_pod_is_told(monkeypatch: pytest.MonkeyPatch, found: fake.Fake) -> None:
    found.objects[f"{PEERINGS}/steadyhook"]["status"] = {"me@laptop/1": {**record(), "priority": 100}}
    _, text, _ = fake.run(monkeypatch, found, "status")
    assert "me@laptop/1, by the election in ns, which has no pod of that name" in text


def test_a_clock_that_differs_is_told(monkeypatch: pytest.MonkeyPatch, found: fake.Fake) -> None:
    found._clock_ahead = datetime.timedelta(seconds=-90)
    _, _, errors = fake.run(monkeypatch, found, "status")
    assert "is 90 s behind that of the API server" in errors


def test_nothing_from_the_cluster_acts_on_the_terminal(monkeypatch: pytest.MonkeyPatch, found: fake.Fake) -> None:
    evil = "\x1b[2J\x9b0m\u202e[bold]\n20 pods"
    certificate = found.objects[f"{GROUP}/webhookcertificates/hook"]
    certificate["status"] = {
        "conditions": [{**READY, "message": evil}, {"type": "Degraded", "status": "True", "message": evil}],
        "fingerprint": evil, "notAfter": evil, "caNotAfter": "2039-01-01T00:00:00Z",
        "rotation": {"phase": evil, "since": evil, "message": evil}}
    for number in range(NODES):
        change(found, number, podName=evil, phase=evil, fingerprint=evil, role=evil, message=evil)
    found.objects[f"{PEERINGS}/steadyhook"]["status"] = {evil: record()}
    _, text, errors = fake.run(monkeypatch, found, "status")
    assert output.clean(text.replace("\n", "")) == text.replace("\n", "")
    assert not errors
    assert not [line for line in text.splitlines() if line.startswith("20 pods")]
    for line in on_a_terminal(found):
        assert output.clean(line) == line
