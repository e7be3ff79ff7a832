"""Of several WebhookCertificates that would write one Secret, whose it is."""
from typing import Any

from steadyhook.core import rivals

FIRST, LATER, LAST = (f"2026-01-01T00:00:0{number}Z" for number in range(3))


def certificate(name: str, leaf: str, authority: str | None = None, *, created: str = FIRST, namespace: str = "ns",
                issued: bool = False) -> dict[str, Any]:
    spec = {"secretName": leaf, **({"caSecretName": authority} if authority else {})}
    return {"metadata": {"name": name, "namespace": namespace, "creationTimestamp": created}, "spec": spec,
            "status": {"fingerprint": "ab" * 32} if issued else {}}


def find(*manifests: dict[str, Any]) -> dict[str, str | None]:
    return {name: f"{rival.name}: {rival.secret}" if rival else None
            for (_, name), rival in rivals.find(manifests).items()}


def test_two_that_share_the_secret_of_a_ca_are_rivals_though_their_leaves_are_apart() -> None:
    assert find(certificate("b", "two", "ca", created=LATER), certificate("a", "one", "ca")) == {
        "a": None, "b": "a: ca"}


def test_a_leaf_in_the_secret_of_anothers_ca_is_refused_either_way() -> None:
    assert find(certificate("a", "one", "two"), certificate("b", "two", "three", created=LATER)) == {
        "a": None, "b": "a: two"}
    assert find(certificate("a", "one", "two", created=LATER), certificate("b", "two", "three")) == {
        "b": None, "a": "b: two"}


def test_the_default_name_of_a_ca_counts_as_any_other() -> None:
    assert find(certificate("a", "one"), certificate("b", "two", "one-ca", created=LATER)) == {
        "a": None, "b": "a: one-ca"}


def test_who_has_a_rival_stands_in_nobodys_way() -> None:
    assert find(certificate("a", "one"), certificate("b", "one", "two-ca", created=LATER),
                certificate("c", "two", created=LAST)) == {"a": None, "b": "a: one", "c": None}


def test_secrets_of_other_namespaces_are_others() -> None:
    assert find(certificate("a", "one"), certificate("b", "one", namespace="other")) == {"a": None, "b": None}


def test_of_two_made_in_one_second_the_one_that_was_issued_goes_first() -> None:
    assert find(certificate("a", "one"), certificate("b", "one", issued=True)) == {"b": None, "a": "b: one"}
    assert find(certificate("b", "one"), certificate("a", "one")) == {"a": None, "b": "a: one"}


def test_a_spec_that_holds_nonsense_is_no_reason_to_fail() -> None:
    nonsense = {"metadata": {"name": "x", "namespace": "ns", "creationTimestamp": FIRST}, "spec": {"secretName": None}}
    assert find(nonsense, certificate("a", "one")) == {"x": None, "a": None}
