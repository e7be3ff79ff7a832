"""``steadyhook diagnose``: what it says of a cluster of dictionaries."""
import datetime
import json

import pytest

from cli import fake, test_adopt
from cli.test_adopt import CERTIFICATES, ISSUERS, LISTENED, PEERINGS, SECRETS
from steadyhook.cli import output
from steadyhook.cli.diagnosis import Kind
from steadyhook.cli.output import Exit
from steadyhook.pki import secrets

found = test_adopt.found
DIAGNOSE = ("diagnose", "hook-tls", "--seconds", "1")


@pytest.fixture(autouse=True)
def _now(found: fake.Fake, monkeypatch: pytest.MonkeyPatch) -> None:
    """The leaf is made now, so it has to be judged now."""
    monkeypatch.setattr(fake, "NOW", datetime.datetime.now(datetime.UTC))
    found.objects[f"{PEERINGS}/steadyhook-issuers"]["status"] = {"issuer-1": test_adopt.record()}


def kinds(text: str) -> list[str]:
    (one,) = json.loads(text)
    return [item["kind"] for item in one["findings"]]


def test_what_is_issued_has_no_fault_and_its_issuer_is_told(monkeypatch: pytest.MonkeyPatch, found: fake.Fake) -> None:
    found.add(CERTIFICATES, "hook", spec={"secretName": "hook-tls"})
    code, text, _ = fake.run(monkeypatch, found, *DIAGNOSE, "-o", "json")
    assert (code, kinds(text)) == (Exit.FINE, [Kind.NOBODY_CALLS])
    assert json.loads(text)[0]["issuer"] == "issuer-1"


def test_a_certificate_that_nobody_issues_is_a_fault(monkeypatch: pytest.MonkeyPatch, found: fake.Fake) -> None:
    found.add(CERTIFICATES, "hook", spec={"secretName": "hook-tls"})
    found.objects[f"{PEERINGS}/steadyhook-issuers"]["status"] = {"issuer-1": test_adopt.record(age_seconds=7215)}
    code, text, _ = fake.run(monkeypatch, found, *DIAGNOSE)
    assert code == Exit.WRONG
    assert f"{Kind.NOBODY_ISSUES}: nobody issues for 2 hours" in text
    assert f"to do: look at kubectl get pods -n {ISSUERS}" in text


def test_a_secret_of_listeners_that_nobody_has_is_no_matter_of_issuers(
    monkeypatch: pytest.MonkeyPatch, found: fake.Fake
) -> None:
    found.objects[f"{PEERINGS}/steadyhook-issuers"]["status"] = {}
    code, text, _ = fake.run(monkeypatch, found, *DIAGNOSE, "-o", "json")
    assert (code, kinds(text)) == (Exit.FINE, [Kind.NOBODY_CALLS])


def test_a_namespace_that_is_not_there_is_named(monkeypatch: pytest.MonkeyPatch, found: fake.Fake) -> None:
    found.objects.clear()
    code, _, errors = fake.run(monkeypatch, found, "diagnose")
    assert (code, "namespace ns does not exist" in errors) == (Exit.FAILED, True)


def test_nothing_from_the_cluster_acts_on_the_terminal(monkeypatch: pytest.MonkeyPatch, found: fake.Fake) -> None:
    evil = "\x1b]0;evil\x07\u202e[bold]"
    found.add(CERTIFICATES, evil, spec={"secretName": "hook-tls"})
    held = found.objects[f"{SECRETS}/hook-tls"]
    held["metadata"] |= {"annotations": {**LISTENED, secrets.STATIC: "true"}, "managedFields": [{"manager": evil}]}
    found.objects[f"{PEERINGS}/steadyhook-issuers"]["status"] = {evil: "none"}
    code, text, errors = fake.run(monkeypatch, found, *DIAGNOSE)
    assert code == Exit.WRONG
    assert "\\x1b]0;evil\\x07\\u202e[bold]" in text
    assert output.clean((text + errors).replace("\n", "")) == (text + errors).replace("\n", "")
