"""Whatever is in an object, reading it raises nothing but what is documented, and what comes out has bounds."""
import base64
import datetime
from typing import Any

import hypothesis
from hypothesis import strategies

from pki import oddities
from pki.test_secrets import AUTHORITY, EC_KEY, GOOD, GOOD_CA, LEAF, OTHER, UNDESCRIBABLE, WANTED
from steadyhook.core import bounds, facts, leaf
from steadyhook.pki import certificates, entries, secrets

NOW = datetime.datetime(2030, 1, 1, tzinfo=datetime.UTC)
PIECES = (
    AUTHORITY.certificate_pem, OTHER.certificate_pem, LEAF.certificate_pem, LEAF.key_pem, AUTHORITY.key_pem,
    UNDESCRIBABLE, oddities.key_pem(EC_KEY), b"-----BEGIN CERTIFICATE-----\n", b"-----END CERTIFICATE-----\n",
    b"-----BEGIN CERTIFICATE-----\nProc-Type: 4,ENCRYPTED\n\nAAAA\n-----END CERTIFICATE-----\n", b"\n",
    b"\xff\x00", b"")


@strategies.composite
def texts(draw: strategies.DrawFn) -> bytes:
    """PEM texts, put together from pieces, with some bytes changed."""
    text = bytearray(b"".join(draw(strategies.lists(strategies.sampled_from(PIECES), max_size=4))))
    for _ in range(draw(strategies.integers(0, 3)) if text else 0):
        text[draw(strategies.integers(0, len(text) - 1))] = draw(strategies.integers(0, 255))
    return bytes(text)


ENCODED = texts().map(lambda text: base64.b64encode(text).decode("ascii")) | strategies.sampled_from(
    ["", "!", "AAA", "ä", *GOOD.values(), *GOOD_CA.values()])
DATA = strategies.none() | strategies.dictionaries(
    strategies.sampled_from(["tls.crt", "tls.key", "ca.crt", "ca-bundle.crt", "next.crt", "next.key", "more"]),
    ENCODED, max_size=7)
ANNOTATIONS = strategies.none() | strategies.dictionaries(
    strategies.sampled_from([
        secrets.READY_MARK, secrets.GENERATION, secrets.RETIRED, secrets.SWITCHED, secrets.REQUEST, secrets.STATIC,
        secrets.ADOPT, "listener.cattle.io/cn-x"]),
    strategies.sampled_from(["", "true", "7", "9" * 18, "9" * 40, "-1", "٣", "²", "a b c",
                             " ".join(map(str, range(999))), LEAF.certificate.fingerprint,
                             AUTHORITY.certificate.fingerprint, OTHER.certificate.fingerprint]), max_size=6)
MANIFESTS = strategies.fixed_dictionaries({
    "metadata": strategies.fixed_dictionaries(
        {"name": strategies.just("tls"), "uid": strategies.just("u"), "resourceVersion": strategies.just("1"),
         "annotations": ANNOTATIONS},
        optional={"labels": strategies.none() | strategies.dictionaries(strategies.text(max_size=3),
                                                                        strategies.text(max_size=3), max_size=2)}),
    "data": DATA, "type": strategies.sampled_from([secrets.SECRET_TYPE, "Opaque", None])},
    optional={"immutable": strategies.booleans()})


@hypothesis.given(manifest=MANIFESTS, by_listener=strategies.booleans())
def test_every_secret_can_be_read(manifest: dict[str, Any], by_listener: bool) -> None:
    authority = secrets.read_authority(manifest, by_listener=by_listener)
    assert (authority.certificate is None) == (authority.defect is not None)
    assert len(authority.retired) <= bounds.RETIRED
    found = secrets.read_leaf(manifest, authorities=authority.bundle, by_listener=by_listener)
    assert (found.certificate is None) == (found.defect is not None)
    defect = leaf.first_defect(found, NOW)
    if defect is None and not found.adopted:
        assert found.generation is not None
        assert found.generation < 10**12
    for pair in secrets.signing_pairs(manifest).values():
        assert certificates.matches(pair)
    if found.defect is None:
        assert secrets.key_pair(manifest).certificate == found.certificate
    for one in (found.defect, authority.defect):
        assert one is None or (len(one.message) < 1000 and "PRIVATE" not in one.message)


@hypothesis.given(manifest=MANIFESTS)
@hypothesis.settings(max_examples=40)
def test_every_ca_of_the_users_own_is_usable_or_has_a_defect(manifest: dict[str, Any]) -> None:
    found = secrets.read_provided(manifest, wanted=WANTED, now=NOW)
    assert isinstance(found, facts.Certificate) == (not isinstance(found, facts.Defect))


@hypothesis.given(encoded=strategies.none() | ENCODED | strategies.text(max_size=40))
def test_every_ca_bundle_can_be_read_and_is_written_as_it_was_read(encoded: str | None) -> None:
    found, _ = secrets.read_ca_bundle(encoded)
    assert secrets.read_ca_bundle(secrets.write_ca_bundle(found)) == (found, True)


CLIENTS = strategies.fixed_dictionaries({}, optional={
    "caBundle": ENCODED, "url": strategies.just("https://x"),
    "service": strategies.none() | strategies.dictionaries(
        strategies.sampled_from(["name", "namespace", "port"]), strategies.sampled_from(["a", "b"]), max_size=3)})
WEBHOOKS = strategies.lists(strategies.fixed_dictionaries(
    {"name": strategies.sampled_from(["a", "b"]), "clientConfig": CLIENTS}), max_size=3)
OBJECTS = (
    strategies.tuples(
        strategies.sampled_from(["ValidatingWebhookConfiguration", "MutatingWebhookConfiguration"]),
        strategies.fixed_dictionaries({}, optional={"webhooks": strategies.none() | WEBHOOKS}))
    | strategies.tuples(strategies.just("CustomResourceDefinition"), strategies.fixed_dictionaries({
        "spec": strategies.fixed_dictionaries({}, optional={"conversion": strategies.none() | (
            strategies.fixed_dictionaries({"strategy": strategies.sampled_from(["None", "Webhook"])}, optional={
                "webhook": strategies.fixed_dictionaries({}, optional={"clientConfig": CLIENTS})}))})}))
    | strategies.tuples(strategies.just("APIService"), strategies.fixed_dictionaries({
        "spec": strategies.fixed_dictionaries({}, optional={
            "service": strategies.none() | strategies.just({"name": "a", "namespace": "b"}),
            "caBundle": ENCODED, "insecureSkipTLSVerify": strategies.booleans()})})))


@hypothesis.given(item=OBJECTS)
def test_every_object_that_the_api_server_lets_through_can_be_read(item: tuple[str, dict[str, Any]]) -> None:
    kind, manifest = item
    for entry in entries.read(kind, manifest):
        assert entry.pointer.endswith("/caBundle")
