"""Who looks after which Secret, where one installation of issuers has many."""
from typing import Any

from steadyhook.issuing import roster

SECOND = "2026-01-01T00:00:00Z"
LATER = "2026-01-01T00:00:01Z"


def certificate(name: str, *, created: str = SECOND, secret: str = "tls", issued: bool = False) -> dict[str, Any]:
    return {"metadata": {"name": name, "namespace": "ns", "creationTimestamp": created},
            "spec": {"secretName": secret}, "status": {"fingerprint": "ab" * 32} if issued else {}}


def rivals(*manifests: dict[str, Any]) -> dict[str, str | None]:
    return {item.certificate: item.rival.name if item.rival else None for item in roster.targets(manifests)}


def test_of_two_for_one_secret_the_older_one_has_it() -> None:
    assert rivals(certificate("b"), certificate("a", created=LATER)) == {"b": None, "a": "b"}


def test_of_two_made_in_one_second_the_one_that_was_issued_has_it() -> None:
    assert rivals(certificate("b", issued=True), certificate("a")) == {"b": None, "a": "b"}


def test_of_two_made_in_one_second_and_not_issued_the_name_decides() -> None:
    assert rivals(certificate("b"), certificate("a")) == {"a": None, "b": "a"}


def test_two_secrets_are_no_matter() -> None:
    assert rivals(certificate("b"), certificate("a", secret="other")) == {"a": None, "b": None}
