"""
Whatever happens to the Secrets and to the webhook configurations, no admission request fails.

One installation lives through all of it, under admission requests all the time. While the issuer repairs within a
fraction of a second, nobody could see what the servers make of a damage: so a person pauses the issuing first, in the
way that kopf gives for it.
"""
import base64
import contextlib
import dataclasses
import uuid
from collections.abc import Iterator

import pytest

from devcluster import audit, facade
from scenarios import configurations, damages, handshakes, installation
from steadyhook.core import memory
from steadyhook.issuing import reconciling
from steadyhook.pki import certificates, secrets

pytestmark = pytest.mark.cluster

SECONDS = 60.0
REPAIRED = [("patch", 200)]
CREATED = [("create", 201)]
ALLOWED = ("friend", "rival")
RECREATED = [("delete", 200), ("create", 201)]


@pytest.fixture(scope="module")
def running(devcluster: facade.DevCluster, definitions: None) -> Iterator[installation.Installation]:
    """Three nodes of the manager layout, with a short settle time, for all tests of this module."""
    namespace = f"test-{uuid.uuid4().hex[:8]}"
    devcluster.kubectl("create", "namespace", namespace)
    installed = installation.Installation(devcluster, namespace)
    try:
        installed.install()
        configurations.allow(installed, *ALLOWED)
        damages.patch_certificate(installed, {"spec": {"settleSeconds": 2}})
        installed.wait_serving()
        installed.wait_ready()
        yield installed
    finally:
        for pod in installed.pods():
            print(f"--- {pod.name} on {pod.node}, {pod.restarts} restarts\n{pod.log()[-20000:]}")
        installed.uninstall()
        devcluster.kubectl("delete", "namespace", namespace, "--wait=false")


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Steady:
    """The installation as it was before a test damaged it."""

    installed: installation.Installation
    fingerprint: str
    generation: int
    position: int
    events: frozenset[str]
    log_sizes: dict[str, int]

    def secret_writes(self, name: str = installation.SECRET) -> list[tuple[str, int]]:
        events = self.installed.writes("secrets", name, since=self.position)
        return [(event["verb"], audit.code_of(event)) for event in events]

    def new_events(self, reason: str) -> list[installation.JsonObject]:
        return [item for item in self.installed.events(reason) if item["metadata"]["uid"] not in self.events]

    def new_log(self, pod: facade.PodProcess) -> str:
        return pod.log()[self.log_sizes[pod.name]:]


def generation(installed: installation.Installation) -> int:
    secret = installed.secret()
    assert secret is not None
    return int(secret["metadata"]["annotations"]["steadyhook.io/generation"])


def is_settled(installed: installation.Installation) -> bool:
    """Whether the issuer has reported that nothing is to be done for what is there now."""
    certificate, secret = installed.certificate(), installed.secret()
    status, issuing = certificate["status"], installed.conditions()["Issuing"]
    assert secret is not None
    assert issuing["reason"] == "UpToDate", issuing
    assert status["observedGeneration"] == certificate["metadata"]["generation"]
    assert status["fingerprint"] == installed.fingerprint()
    return bool(status["acknowledged"] == f"{len(installed.node_names)}/{len(installed.node_names)}")


def note(installed: installation.Installation) -> Steady:
    fingerprint = installed.fingerprint()
    assert fingerprint is not None
    return Steady(
        installed=installed, fingerprint=fingerprint, generation=generation(installed), position=installed.position(),
        events=frozenset(item["metadata"]["uid"] for item in installed.events()),
        log_sizes={pod.name: len(pod.log()) for pod in installed.pods()})


@pytest.fixture
def steady(running: installation.Installation) -> Iterator[Steady]:
    """
    The running installation, at rest, under load and under the eyes of a sampler.

    Every test that has this also checks that no admission request fails, that at every moment each certificate served
    verifies under each bundle injected, and that no process has ended.
    """
    damages.resume(running)
    running.wait_serving(timeout=SECONDS)
    running.cluster.wait_for(lambda: is_settled(running), SECONDS, "the issuer to have nothing to do")
    before = note(running)
    with running.load() as load, handshakes.sampling(running) as sampler:
        load.wait_for(5)
        yield before
        load.wait_for(10)
    assert not load.failures
    assert not sampler.broken
    assert sampler.handshakes > 0
    assert [pod.restarts for pod in running.pods()] == [0] * len(running.node_names)


@contextlib.contextmanager
def issuing_paused(installed: installation.Installation) -> Iterator[None]:
    damages.freeze(installed)
    try:
        yield
    finally:
        damages.resume(installed)


def wait_degraded(steady: Steady, reason: str) -> None:
    """Until every instance says that it goes on with what it served before, and why."""
    installed = steady.installed

    def degraded() -> bool:
        instances = installed.instances()
        found = [(item["phase"], item.get("reason"), item.get("fingerprint")) for item in instances]
        assert found == [("Degraded", reason, steady.fingerprint)] * len(installed.node_names), instances
        return True

    installed.cluster.wait_for(degraded, SECONDS, f"every instance to be Degraded by {reason}")


def assert_told(steady: Steady, reason: str) -> None:
    """In an Event of each ManagerNode and in the log of each pod."""
    installed = steady.installed

    def told() -> bool:
        events = steady.new_events(reason)
        assert {item["involvedObject"]["name"] for item in events} == set(installed.node_names), events
        return all(item["type"] == "Warning" and item["involvedObject"]["kind"] == "ManagerNode" for item in events)

    installed.cluster.wait_for(told, SECONDS, f"an Event {reason} for each ManagerNode")
    for pod in installed.pods():
        assert f"{reason}: " in steady.new_log(pod)


def wait_repaired(steady: Steady, *, writes: list[tuple[str, int]]) -> str:
    """Until all serve a new leaf of a later generation, written in exactly these writes."""
    installed = steady.installed
    fingerprint = installed.wait_serving(timeout=SECONDS, but_not=steady.fingerprint)
    assert handshakes.served_by_all(installed) == {fingerprint}
    installed.cluster.wait_for(lambda: is_settled(installed), SECONDS, "the issuer to have nothing to do")
    assert steady.secret_writes() == writes
    assert generation(installed) > steady.generation
    return fingerprint


def change_spec(steady: Steady, **spec: object) -> None:
    """Change the WebhookCertificate and wait until there is nothing more to do for that."""
    damages.patch_certificate(steady.installed, {"spec": spec})
    steady.installed.cluster.wait_for(lambda: is_settled(steady.installed), SECONDS, "the spec to be fulfilled")


# ---- the leaf Secret ----

LEAF_DAMAGES = {
    "deleted": (damages.delete, "SecretMissing", CREATED),
    "not PEM": (damages.not_pem, "NotPem", REPAIRED),
    "key of another pair": (damages.key_of_another_pair, "KeyMismatch", REPAIRED),
    "leaf by a foreign CA": (damages.foreign_leaf, "ForeignSigner", REPAIRED),
    "leaf by a foreign CA that comes along": (damages.foreign_leaf_and_authority, "ForeignSigner", REPAIRED),
    "expired": (damages.expired, "Expired", REPAIRED),
    "wrong DNS names": (damages.wrong_names, "WrongDNSNames", REPAIRED),
    "ready mark missing": (damages.mark_missing, "NotMarkedReady", REPAIRED),
    "ready mark stale": (damages.mark_stale, "ReadyMarkStale", REPAIRED),
    "generation missing": (damages.generation_missing, "GenerationMissing", REPAIRED),
    "generation absurd": (damages.generation_absurd, "GenerationMissing", REPAIRED),
    "data key missing": (damages.bundle_missing, "DataKeyMissing", REPAIRED),
    "data key empty": (damages.certificate_empty, "DataKeyMissing", REPAIRED),
    "wrong type": (damages.wrong_type, "WrongType", RECREATED),
    "immutable and not marked": (damages.immutable_and_not_marked, "NotMarkedReady", RECREATED),
}


@pytest.mark.parametrize("damage", LEAF_DAMAGES)
def test_a_damaged_leaf_is_not_served_and_is_told_of_and_repaired_in_one_write(steady: Steady, damage: str) -> None:
    inflict, reason, writes = LEAF_DAMAGES[damage]
    with issuing_paused(steady.installed):
        inflict(damages.Culprit(steady.installed))
        wait_degraded(steady, reason)
        assert handshakes.served_by_all(steady.installed) == {steady.fingerprint}
        assert_told(steady, reason)
        assert steady.secret_writes() == []
    wait_repaired(steady, writes=writes)


@pytest.mark.parametrize("damage", ["deleted", "not PEM", "wrong DNS names"])
def test_the_issuer_repairs_at_once_what_it_sees_damaged(steady: Steady, damage: str) -> None:
    inflict, _, writes = LEAF_DAMAGES[damage]
    inflict(damages.Culprit(steady.installed))
    wait_repaired(steady, writes=writes)


def test_a_foreign_leaf_that_brings_its_ca_is_not_served_by_those_that_serve_but_is_trusted(steady: Steady) -> None:
    """
    What is promised for a Secret that is right in itself, ready mark and all: a backup from another cluster, say.

    A server that serves goes on with what it has for five minutes, and in a moment the issuer writes a leaf of its own.
    A server that has just started knows no better and serves it; so that no request fails for that, its CA joins the
    bundle before the leaf is replaced, and stays until it expires. (Whoever may write the leaf Secret can do so.)
    """
    culprit = damages.Culprit(steady.installed)
    foreign = culprit.mint_authority()
    culprit.put(culprit.mint_leaf(signer=foreign), trusted=foreign)
    wait_repaired(steady, writes=REPAIRED)
    assert foreign.certificate.fingerprint in wait_converged(steady)
    assert steady.secret_writes(installation.AUTHORITY) == REPAIRED


def test_an_older_generation_restored_from_a_backup_is_not_served_and_is_replaced(steady: Steady) -> None:
    backup = steady.installed.secret()
    assert backup is not None
    damages.Culprit(steady.installed).annotate(ready=None)  # any reason for a new generation will do
    renewed = steady.installed.wait_serving(but_not=steady.fingerprint)
    steady.installed.cluster.wait_for(lambda: is_settled(steady.installed), SECONDS, "the issuer to be at rest")
    newer = dataclasses.replace(steady, fingerprint=renewed, generation=generation(steady.installed),
                                position=steady.installed.position())
    with issuing_paused(steady.installed):
        damages.Culprit(steady.installed).restore(backup)
        wait_degraded(newer, "OlderGeneration")
        assert handshakes.served_by_all(steady.installed) == {renewed}
        assert_told(newer, "OlderGeneration")
    wait_repaired(newer, writes=REPAIRED)


def test_an_immutable_secret_that_is_good_is_left_alone(steady: Steady) -> None:
    damages.Culprit(steady.installed).patch({"immutable": True})
    change_spec(steady, settleSeconds=3)  # so that it is seen that the issuer has looked
    assert steady.installed.fingerprint() == steady.fingerprint
    assert steady.secret_writes() == []
    with issuing_paused(steady.installed):
        damages.Culprit(steady.installed).annotate(ready=None)
    wait_repaired(steady, writes=RECREATED)



# ---- the CA Secret ----

def delete_authority(culprit: damages.Culprit) -> None:
    culprit.delete(installation.AUTHORITY)


def damage_authority(culprit: damages.Culprit, data: dict[str, bytes | None], **changes: object) -> None:
    culprit.put_data(data, name=installation.AUTHORITY, **changes)


def wrong_type_of_authority(culprit: damages.Culprit) -> None:
    backup = culprit.read(installation.AUTHORITY)
    culprit.restore(backup, type="Opaque")


AUTHORITY_DAMAGES: dict[str, tuple[damages.Damage, list[tuple[str, int]]]] = {
    "deleted": (delete_authority, CREATED),
    "key of another pair": (lambda it: damage_authority(it, {"tls.key": it.mint_authority().key_pem}), REPAIRED),
    "key not PEM": (lambda it: damage_authority(it, {"tls.key": b"no key"}), REPAIRED),
    "certificate not PEM": (lambda it: damage_authority(it, {"tls.crt": b"no certificate"}), REPAIRED),
    "certificate and bundle not PEM": (
        lambda it: damage_authority(it, {"tls.crt": b"no certificate", "ca-bundle.crt": b"no bundle"}), REPAIRED),
    "certificate of a leaf": (lambda it: damage_authority(it, it.pair_data(it.mint_leaf())), REPAIRED),
    "another CA put in its place": (lambda it: damage_authority(it, it.pair_data(it.mint_authority())), REPAIRED),
    "wrong type": (wrong_type_of_authority, RECREATED),
}
BUNDLE_DAMAGES: dict[str, tuple[damages.Damage, list[tuple[str, int]]]] = {
    "not PEM": (lambda it: damage_authority(it, {"ca-bundle.crt": b"no bundle"}), REPAIRED),
    "missing": (lambda it: damage_authority(it, {"ca-bundle.crt": None}), REPAIRED),
    "of another": (lambda it: damage_authority(it, {"ca-bundle.crt": it.mint_authority().certificate_pem}), REPAIRED),
    "not PEM and immutable": (
        lambda it: damage_authority(it, {"ca-bundle.crt": b"no bundle"}, immutable=True), RECREATED),
}


def trusted_in_the_authority(steady: Steady) -> set[str]:
    """The fingerprints in the bundle of the CA Secret. Raises AssertionError while it is missing or damaged."""
    manifest = steady.installed.secret(installation.AUTHORITY)
    assert manifest is not None
    authority = secrets.read_authority(manifest)
    assert authority.defect is None and not authority.bundle_damaged, authority
    return {item.fingerprint for item in authority.bundle}


def wait_converged(steady: Steady) -> set[str]:
    """Until both webhook configurations trust just what the CA Secret does; return the fingerprints."""
    def converged() -> set[str]:
        trusted = trusted_in_the_authority(steady)
        for name, text in handshakes.bundles(steady.installed).items():
            assert {item.fingerprint for item in certificates.parse(text.encode())} == trusted, name
        assert is_settled(steady.installed)
        return trusted

    return steady.installed.cluster.wait_for(converged, SECONDS, "one bundle to be everywhere")


@pytest.mark.parametrize("damage", AUTHORITY_DAMAGES)
def test_a_ca_that_is_lost_is_replaced_and_what_it_signed_is_trusted_as_long_as_it_is_served(
    steady: Steady, damage: str
) -> None:
    inflict, writes = AUTHORITY_DAMAGES[damage]
    before = trusted_in_the_authority(steady)
    inflict(damages.Culprit(steady.installed))
    damages.wake(steady.installed, damage)
    wait_repaired(steady, writes=REPAIRED)
    assert wait_converged(steady) > before
    assert steady.secret_writes(installation.AUTHORITY) == writes


@pytest.mark.parametrize("damage", BUNDLE_DAMAGES)
def test_a_damaged_bundle_is_written_anew_and_nothing_else(steady: Steady, damage: str) -> None:
    inflict, writes = BUNDLE_DAMAGES[damage]
    before = trusted_in_the_authority(steady)
    inflict(damages.Culprit(steady.installed))
    damages.wake(steady.installed, damage)
    steady.installed.cluster.wait_for(lambda: trusted_in_the_authority(steady) >= before, SECONDS, "the bundle")
    wait_converged(steady)
    assert steady.secret_writes(installation.AUTHORITY) == writes
    assert steady.secret_writes() == []
    assert steady.installed.wait_serving() == steady.fingerprint


def test_both_secrets_lost_at_once_are_made_anew_from_what_the_webhook_configurations_trust(steady: Steady) -> None:
    before = trusted_in_the_authority(steady)
    with issuing_paused(steady.installed):
        culprit = damages.Culprit(steady.installed)
        culprit.delete(installation.AUTHORITY)
        culprit.delete()
        wait_degraded(steady, "SecretMissing")
    wait_repaired(steady, writes=CREATED)
    assert wait_converged(steady) > before
    assert steady.secret_writes(installation.AUTHORITY) == CREATED


@pytest.mark.slow
def test_a_lost_ca_is_noticed_within_a_minute_though_nobody_watches_it(steady: Steady) -> None:
    damages.Culprit(steady.installed).delete(installation.AUTHORITY)
    steady.installed.cluster.wait_for(
        lambda: steady.installed.secret(installation.AUTHORITY), reconciling.RESYNC_SECONDS + SECONDS / 2, "a new CA")
    wait_repaired(steady, writes=REPAIRED)


# ---- the webhook configurations ----

@pytest.mark.parametrize("damage", ["emptied", "not base64 of PEM", "of another CA"])
def test_a_spoiled_ca_bundle_is_put_back_at_once_in_one_write(steady: Steady, damage: str) -> None:
    # In a configuration of its own for each test: the issuer takes it for a fight if one is spoiled again and again.
    installed = steady.installed
    alien = damages.Culprit(installed).mint_authority().certificate
    spoiled = {"emptied": "", "not base64 of PEM": base64.b64encode(b"nothing").decode(),
               "of another CA": secrets.write_ca_bundle([alien])}[damage]
    right = trusted_in_the_authority(steady)
    with configurations.added(installed, "friend"):
        installed.cluster.wait_for(lambda: configurations.is_injected(installed, "friend"), SECONDS, "the bundle")
        position = installed.position()
        configurations.overwrite(installed, configurations.VALIDATING, "friend", spoiled)
        installed.cluster.wait_for(
            lambda: configurations.trusted(installed, "friend") == right, SECONDS, "the bundle to be back")
        installed.cluster.wait_for(
            lambda: configurations.writes(installed, "friend", since=position) == REPAIRED, SECONDS, "one write")
        assert alien.fingerprint not in trusted_in_the_authority(steady)
        assert steady.secret_writes() == []


def test_a_ca_that_somebody_adds_to_a_bundle_is_taken_out_again(steady: Steady) -> None:
    installed = steady.installed
    alien = damages.Culprit(installed).mint_authority().certificate_pem.decode()
    before = handshakes.bundles(installed)
    more = base64.b64encode((before["validate.example.steadyhook.io"] + alien).encode()).decode()
    configurations.overwrite(installed, "validatingwebhookconfigurations", "example", more)
    installed.cluster.wait_for(lambda: handshakes.bundles(installed) == before, SECONDS, "the bundle to be back")


@pytest.mark.parametrize("former", ["a CA", "a certificate that is its own root"])
def test_what_a_webhook_trusted_when_it_is_taken_over_stays_trusted_everywhere(steady: Steady, former: str) -> None:
    installed = steady.installed
    culprit = damages.Culprit(installed)
    pair = culprit.mint_authority() if former == "a CA" else damages.self_signed()
    fingerprint = pair.certificate.fingerprint
    with configurations.added(installed, "friend", bundle=secrets.write_ca_bundle([pair.certificate])):
        installed.cluster.wait_for(lambda: fingerprint in wait_converged(steady), SECONDS, "it to be trusted")
        assert configurations.trusted(installed, "friend") == trusted_in_the_authority(steady)
        assert steady.secret_writes(installation.AUTHORITY) == REPAIRED
        assert steady.secret_writes() == []


@pytest.mark.slow
def test_a_fight_over_a_ca_bundle_is_given_up_and_told_of_and_taken_up_when_it_is_over(steady: Steady) -> None:
    installed = steady.installed
    alien = secrets.write_ca_bundle([damages.Culprit(installed).mint_authority().certificate])
    with configurations.added(installed, "rival"):
        with configurations.overwriting(installed, "rival", alien):
            installed.cluster.wait_for(
                lambda: installed.conditions()["Injected"]["reason"] == "Contested", SECONDS, "the end of the fight")
            assert f"rival-{installed.namespace}" in installed.conditions()["Injected"]["message"]
            assert steady.new_events("Contested")
            position = installed.position()
            damages.Culprit(installed).annotate(ready=None)
            wait_repaired(steady, writes=REPAIRED)
        assert configurations.writes(installed, "rival", since=position) == []
        injected = configurations.writes(installed, "rival", since=steady.position).count(("patch", 200))
        assert injected == memory.CONTEST_INJECTIONS
        installed.cluster.wait_for(
            lambda: installed.conditions()["Injected"]["status"] == "True", memory.CONTEST_SECONDS + SECONDS,
            "the bundle to be injected in peace")


def test_a_configuration_that_may_not_be_patched_is_told_of_and_blocks_nothing(steady: Steady) -> None:
    installed = steady.installed
    name = f"stranger-{installed.namespace}"
    with configurations.added(installed, "stranger"):
        installed.cluster.wait_for(
            lambda: installed.conditions()["Injected"]["reason"] == "Forbidden", SECONDS, "it to be told")
        condition = installed.conditions()["Injected"]
        assert condition["status"] == "False"
        assert f"{name} may not be patched by the issuer; add its name to resourceNames" in condition["message"]
        assert name in steady.new_events("Forbidden")[0]["message"]
        damages.Culprit(installed).annotate(ready=None)
        wait_repaired(steady, writes=REPAIRED)
        assert configurations.writes(installed, "stranger", since=steady.position) == [], "a trial has told it"
    installed.cluster.wait_for(
        lambda: installed.conditions()["Injected"]["status"] == "True", SECONDS, "it to be forgotten")


# ---- renewal ----

@pytest.mark.parametrize("change", [
    {"dnsNames": ["further.example"]},
    {"privateKey": {"algorithm": "RSA-2048"}},
    {"duration": "1000h"},
])
def test_a_changed_spec_is_fulfilled_by_one_reissue(steady: Steady, change: dict[str, object]) -> None:
    before = {key: steady.installed.certificate()["spec"].get(key) for key in change}
    change_spec(steady, **change)
    renewed = wait_repaired(steady, writes=REPAIRED)
    change_spec(steady, **before)
    assert steady.installed.wait_serving(but_not=renewed)
    assert steady.secret_writes() == REPAIRED * 2


def test_a_leaf_that_is_due_is_renewed_once_each_time(steady: Steady) -> None:
    installed = steady.installed
    damages.patch_certificate(installed, {"spec": {"duration": "1m", "renewBefore": "50s"}})

    def renewals() -> list[str]:
        messages = [item["message"] for item in steady.new_events("IssuingLeaf")]
        return [text for text in messages if "due for renewal" in text]

    installed.cluster.wait_for(renewals, SECONDS, "a renewal")
    installed.wait_serving(but_not=steady.fingerprint)
    change_spec(steady, duration="2160h", renewBefore="720h")
    issued = steady.new_events("IssuingLeaf")
    assert len(issued) == 2 + len(renewals())  # and one for each change of the spec
    assert steady.secret_writes() == REPAIRED * len(issued)
