"""Gathering what a decision needs: what is a fact, and what is a failure."""
import asyncio
import dataclasses
import datetime
from typing import Any

import pytest

from cluster import objects
from core import builders
from steadyhook.cluster import asking, client, observing, paths
from steadyhook.core import policy, reasons
from steadyhook.pki import minting, secrets

NOW = datetime.datetime.now(datetime.UTC)
OURS = builders.wanted()
LISTENERS = builders.wanted(privateKey={"algorithm": "RSA-2048"}, compatibility="Dynamiclistener", duration="8760h",
                            renewBefore="2400h")
# A key of another kind will do for the facts, and is made in no time.
FIRST, SECOND = (minting.mint_authority(OURS, now=NOW) for _ in range(2))
KIND = "ValidatingWebhookConfiguration"


def secret(name: str, data: dict[str, str | None], **annotations: str) -> dict[str, Any]:
    return {"metadata": {"name": name, "uid": name, "resourceVersion": "1", "annotations": annotations},
            "type": secrets.SECRET_TYPE, "data": {key: value for key, value in data.items() if value is not None}}


def switched(by_listener: bool = False) -> dict[str, Any]:
    """The two Secrets of a rotation in which the next CA signs."""
    both = (FIRST.certificate, SECOND.certificate)
    leaf = minting.mint_leaf(OURS, signer=SECOND, now=NOW)
    mark = {secrets.SWITCHED: SECOND.certificate.fingerprint}
    return {
        paths.secret("ns", "tls-ca"): secret("tls-ca", secrets.authority_data(
            FIRST, both, SECOND, for_listener=by_listener, switched=True), **mark),
        paths.secret("ns", "tls"): secret("tls", secrets.leaf_data(leaf, both))}


def observe(there: dict[str, Any], wanted: policy.Policy = OURS) -> observing.Observation:
    return asyncio.run(observing.observe(
        objects.Objects(there), {"metadata": {"name": "cert"}}, wanted, states={}, last_generation=0,
        calls=observing.Calls(), asked=asking.Asking()))


NODES, SLICES = paths.manager_nodes("ns"), paths.endpoint_slices("ns", "hook")


@pytest.mark.parametrize("path", [NODES, SLICES])
@pytest.mark.parametrize(("kind", "reason"), [
    (client.Forbidden, reasons.Reason.SERVERS_UNKNOWN), (client.APIError, reasons.Reason.SERVERS_UNKNOWN),
    (client.Invalid, reasons.Reason.SERVERS_UNKNOWN), (client.Unreachable, reasons.Reason.API_UNREACHABLE)])
def test_that_nobody_knows_who_serves_is_a_fact_and_no_failure(
    path: str, kind: type[client.APIError], reason: reasons.Reason
) -> None:
    nobody = {"items": []}
    there = {**switched(), NODES: nobody, SLICES: nobody}
    known = observe(there).seen
    assert (known.servers, known.servers_defect) == ((), None)
    unknown = observe({**there, path: objects.error(kind)}).seen
    assert unknown.servers_defect is not None
    assert unknown.servers_defect.reason is reason
    assert ("let a Role in each namespace (ns) allow" in unknown.servers_defect.message) is (kind is client.Forbidden)
    assert dataclasses.replace(unknown, servers_defect=None) == known  # all else was seen as ever


def calling(name: str, service: str, *trusted: Any) -> dict[str, Any]:
    config = {"service": {"namespace": "ns", "name": service}, "caBundle": secrets.write_ca_bundle(trusted)}
    return {"metadata": {"name": name, "uid": name, "resourceVersion": "1"},
            "webhooks": [{"name": "a.b", "clientConfig": config}]}


def test_of_a_program_that_injects_by_itself_who_trusts_its_ca_and_calls_by_another_name_is_told() -> None:
    foreign = minting.mint_authority(OURS, now=NOW).certificate
    found = [calling("good", "hook", FIRST.certificate), calling("lost", "former", FIRST.certificate),
             calling("others", "elsewhere", foreign)]
    there = {**switched(by_listener=True), NODES: {"items": []}, SLICES: {"items": []},
             paths.configurations(KIND): {"items": found},
             **{paths.configuration(KIND, item["metadata"]["name"]): item for item in found}}
    seen = observe(there, LISTENERS).seen
    assert [item.name for item in seen.configurations] == ["good"]
    assert seen.lost_callers == (f"{KIND} lost calls former.ns.svc",)
    # A CA of the user's own signs for others as well, who call by names of their own.
    provided = dataclasses.replace(LISTENERS, authority_name="corporate")
    assert observe(there, provided).seen.lost_callers == ()


def test_who_has_signed_an_adopted_leaf_is_found_in_the_configurations_when_the_ca_secret_is_lost() -> None:
    there = {**switched(by_listener=True), NODES: {"items": []}, SLICES: {"items": []}}
    found = [calling("good", "hook", SECOND.certificate), calling("foreign", "hook", FIRST.certificate)]
    there |= {paths.configurations(KIND): {"items": found},
              **{paths.configuration(KIND, item["metadata"]["name"]): item for item in found}}
    del there[paths.secret("ns", "tls-ca")]
    leaf = there[paths.secret("ns", "tls")]
    leaf["metadata"]["annotations"] = {}
    seen = observe(there, LISTENERS).seen
    assert seen.leaf is not None
    assert (seen.leaf.adopted, seen.leaf.signers) == (True, {SECOND.certificate.fingerprint})
