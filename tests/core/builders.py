"""Facts for the tests of the core, with sensible values for whatever a test does not care about."""
import datetime
import hashlib
from typing import Any

from steadyhook.core import facts, policy

NOW = datetime.datetime(2030, 1, 1, 12, 0, tzinfo=datetime.UTC)
BACKDATE = datetime.timedelta(minutes=5)
NAMES = policy.service_names(name="hook", namespace="ns")
SPEC = {"secretName": "tls", "service": {"name": "hook"}}


def wanted(**spec: Any) -> policy.Policy:
    return policy.parse({**SPEC, **spec}, namespace="ns", name="cert")


def fingerprint(name: str) -> str:
    return hashlib.sha256(name.encode()).hexdigest()


def ca(name: str, *, age: datetime.timedelta = datetime.timedelta(days=1), **changes: Any) -> facts.Certificate:
    return facts.Certificate(**{
        "fingerprint": fingerprint(name), "not_before": NOW - age, "not_after": NOW + datetime.timedelta(days=3000),
        "is_ca": True, "key_algorithm": "ECDSA-P256", "pem": name, **changes})


def certificate(name: str = "leaf", **changes: Any) -> facts.Certificate:
    start = NOW - datetime.timedelta(days=1)
    return facts.Certificate(**{
        "fingerprint": fingerprint(name), "not_before": start - BACKDATE,
        "not_after": start + datetime.timedelta(hours=2160), "dns_names": NAMES, "key_algorithm": "ECDSA-P256",
        **changes})


def secret(name: str = "tls", **changes: Any) -> facts.Secret:
    return facts.Secret(**{"name": name, "uid": f"uid-{name}", "resource_version": "7", **changes})


def leaf(
    *, signer: facts.Certificate, trusted: tuple[facts.Certificate, ...] | None = None,
    cert: facts.Certificate | None = None, **changes: Any,
) -> facts.Leaf:
    held = cert or certificate()
    return facts.Leaf(**{
        "secret": secret(), "certificate": held, "trusted": trusted or (signer,),
        "signers": frozenset({signer.fingerprint}), "ready_mark": held.fingerprint, "generation": 100, **changes})


def authority(signer: facts.Certificate, *others: facts.Certificate, **changes: Any) -> facts.Authority:
    return facts.Authority(**{
        "secret": secret("tls-ca"), "certificate": signer, "bundle": (signer, *others), **changes})


def configuration(
    *trusted: facts.Certificate, name: str = "config", known: bool = True, **changes: Any
) -> facts.Configuration:
    return facts.Configuration(**{
        "kind": "ValidatingWebhookConfiguration", "name": name, "uid": f"uid-{name}", "resource_version": "3",
        "entries": (facts.Entry(name="a.hook", trusted=trusted), facts.Entry(name="b.hook", trusted=trusted)),
        "known": known, **changes})
