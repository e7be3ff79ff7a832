"""The spec of a WebhookCertificate: defaults, and a clear refusal of what nothing can be issued from."""
import datetime

import hypothesis
import pytest
from hypothesis import strategies

from steadyhook.core import policy

SPEC = {"secretName": "tls", "service": {"name": "hook"}}


def test_the_defaults_are_filled_in() -> None:
    wanted = policy.parse(SPEC, namespace="ns", name="cert")
    assert wanted.dns_names == {"hook.ns", "hook.ns.svc", "hook.ns.svc.cluster.local"}
    assert wanted.algorithm is policy.KeyAlgorithm.ECDSA_P256
    assert wanted.duration == datetime.timedelta(days=90)
    assert wanted.authority_secret_name == "tls-ca"


@pytest.mark.parametrize(("change", "field", "found"), [
    ({"secretName": "Not A Name"}, "spec.secretName", "Not A Name"),
    ({"secretName": None}, "spec.secretName", None),
    ({"dnsNames": ["good.example", "no_good!"]}, "spec.dnsNames[1]", "no_good!"),
    ({"dnsNames": ["a.*.example"]}, "spec.dnsNames[0]", "a.*.example"),
    ({"dnsNames": [], "service": None}, "spec.dnsNames", []),
    ({"privateKey": {"algorithm": "RSA-512"}}, "spec.privateKey.algorithm", "RSA-512"),
    ({"duration": "ninety days"}, "spec.duration", "ninety days"),
    ({"duration": "-5h"}, "spec.duration", "-5h"),
    ({"duration": "0h"}, "spec.duration", "0h"),
    ({"duration": "99999999999999999h"}, "spec.duration", "99999999999999999h"),
    ({"renewBefore": "2160h"}, "spec.renewBefore", "90 days, 0:00:00"),
    ({"caRenewBefore": "2160h"}, "spec.caRenewBefore", "90 days, 0:00:00"),
    ({"caDuration": "17520h"}, "spec.caRenewBefore", "730 days, 0:00:00"),
    ({"settleSeconds": -1}, "spec.settleSeconds", -1),
    ({"secretName": "*.tls"}, "spec.secretName", "*.tls"),
    ({"secretName": "one-ca"}, "spec.secretName", "one-ca"),
    ({"caSecretName": "../secrets/other"}, "spec.caSecretName", "../secrets/other"),
    ({"caSecretName": None}, "spec.caSecretName", None),
    ({"authority": {"secretName": "../../other/secrets/ca"}}, "spec.authority.secretName", "../../other/secrets/ca"),
    ({"authority": {"secretName": ".."}}, "spec.authority.secretName", ".."),
    ({"authority": {"secretName": ""}}, "spec.authority.secretName", ""),
    ({"authority": {"secretName": "a?watch=true"}}, "spec.authority.secretName", "a?watch=true"),
    ({"authority": {}}, "spec.authority.secretName", None),
    ({"authority": {"secretName": "tls"}}, "spec.authority.secretName", "tls"),
    ({"authority": {"secretName": "tls-ca"}}, "spec.authority.secretName", "tls-ca"),
    ({"service": {"name": "a/b"}}, "spec.service.name", "a/b"),
    ({"service": {"name": "*"}}, "spec.service.name", "*"),
    ({"service": {"namespace": "ns"}}, "spec.service.name", None),
    ({"service": {"name": "hook", "namespace": "a.b"}}, "spec.service.namespace", "a.b"),
])
def test_a_mistake_is_refused_by_field_value_and_remedy(change: dict[str, object], field: str, found: object) -> None:
    with pytest.raises(policy.InvalidSpec) as caught:
        policy.parse({**SPEC, **change}, namespace="ns", name="cert")
    assert (caught.value.field, caught.value.found) == (field, found)
    assert caught.value.expected in str(caught.value)
    assert caught.value.remedy in str(caught.value)


@hypothesis.given(strategies.integers(0, 999), strategies.integers(0, 999), strategies.integers(1, 999))
def test_durations_are_those_of_go(hours: int, minutes: int, seconds: int) -> None:
    spec = {**SPEC, "duration": f"{hours}h{minutes}m{seconds}s", "renewBefore": "1s", "caRenewBefore": "5000h"}
    if hours == minutes == 0 and seconds == 1:
        return
    wanted = policy.parse(spec, namespace="ns", name="cert")
    assert wanted.duration == datetime.timedelta(hours=hours, minutes=minutes, seconds=seconds)


def test_a_wildcard_names_no_service() -> None:
    wanted = policy.parse({"secretName": "tls", "dnsNames": ["*.ns.svc", "*.svc", "1.ns.svc", "hook.ns.svc"]},
                          namespace="ns", name="cert")
    assert wanted.services == {("ns", "hook")}


LISTENER = {"secretName": "tls", "compatibility": "Dynamiclistener", "privateKey": {"algorithm": "RSA-2048"},
            "duration": "8760h", "renewBefore": "2400h"}


@pytest.mark.parametrize(("names", "found"), [
    (["*.ns.svc", "hook.ns.svc"], "*.ns.svc"),
    (["hook.ns.svc.cluster.local", "hook.example"], ["hook.example", "hook.ns.svc.cluster.local"]),
])
def test_names_that_a_dynamiclistener_could_not_be_found_by_are_refused(names: list[str], found: object) -> None:
    with pytest.raises(policy.InvalidSpec) as caught:
        policy.parse({**LISTENER, "dnsNames": names}, namespace="ns", name="cert")
    assert (caught.value.field, caught.value.found) == ("spec.dnsNames", found)


def test_a_dynamiclistener_is_found_by_its_service() -> None:
    assert policy.parse({**LISTENER, "service": {"name": "hook"}}, namespace="ns", name="cert").services == {
        ("ns", "hook")}


def test_a_request_to_look_is_new_with_each_value_and_changes_nothing_of_what_is_issued() -> None:
    assert policy.requests({policy.LOOK: "1", "other": "x"}) == {policy.LOOK: "1"}
    spec = {"secretName": "tls", "dnsNames": ["hook.ns.svc"]}
    first, second = (policy.parse(spec, namespace="ns", name="hook", annotations={policy.LOOK: value})
                     for value in ("1", "2"))
    assert first == second
