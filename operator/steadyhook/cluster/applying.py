"""Carrying out: one action of the issuer's decision, one conditional write."""
import asyncio
import collections.abc
import dataclasses
import datetime
import functools
import logging
import weakref
from concurrent import futures
from typing import Any

from steadyhook import metrics
from steadyhook.cluster import client, paths
from steadyhook.core import facts, policy, steps
from steadyhook.pki import certificates, minting, secrets

logger = logging.getLogger(__name__)

DISOWN_ATTEMPTS = 5
MANAGER = "steadyhook"  # of the fields that are written by patch
MINTERS = 2
LABELS = {"app.kubernetes.io/managed-by": "steadyhook"}

_minters = futures.ThreadPoolExecutor(MINTERS, thread_name_prefix="minting")
_turns: weakref.WeakValueDictionary[tuple[asyncio.AbstractEventLoop, str], asyncio.Lock] = (
    weakref.WeakValueDictionary())


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Prepared:
    """A leaf that was made before it is decided to issue it, by this signer; it is used at once or never."""

    signer: facts.Fingerprint
    pair: certificates.KeyPair = dataclasses.field(repr=False)


async def prepare_leaf(
    wanted: policy.Policy, signer: facts.Certificate, *,
    pairs: collections.abc.Mapping[facts.Fingerprint, certificates.KeyPair], now: datetime.datetime,
) -> Prepared:
    """Make a leaf and write it nowhere, so that later no time is lost."""
    pair = await _mint(minting.mint_leaf, wanted, signer=pairs[signer.fingerprint], now=now)
    return Prepared(signer=signer.fingerprint, pair=pair)


async def apply(
    cluster: client.Cluster, action: steps.Step, wanted: policy.Policy, *,
    pairs: collections.abc.Mapping[facts.Fingerprint, certificates.KeyPair], now: datetime.datetime,
    prepared: Prepared | None = None,
) -> None:
    """
    Carry out one action; ``pairs`` are the key pairs of the CA Secret that it was decided from.

    ``prepared``: a leaf for this very policy, which is issued if it is by the right signer.

    Raises :class:`client.Conflict` when the world has changed since it was decided: then it has to be observed and
    decided again, never retried. Raises other kinds of :class:`client.APIError`; an injection that is refused though
    nothing has changed raises :class:`client.Forbidden` or :class:`client.Rejected`.
    """
    match action:
        case steps.Freeze():
            await asyncio.gather(*(_freeze(cluster, wanted, secret) for secret in action.secrets))
        case steps.CreateAuthority():
            pair = await _new_authority(pairs, action.provided, wanted, now=now)
            await _write_authority(cluster, wanted, action.replaces, signer=pair, request=action.request,
                                   bundle=(pair.certificate, *action.bundle), retired=action.retired)
        case steps.ExtendBundle(authority=authority):
            await _write_authority(
                cluster, wanted, authority.secret, signer=_pair(pairs, authority.certificate), bundle=action.bundle,
                successor=_pair(pairs, authority.successor), retired=authority.retired, request=authority.request,
                switched=authority.switched)
        case steps.AddSuccessor(authority=authority):
            pair = await _new_authority(pairs, action.provided, wanted, now=now)
            await _write_authority(
                cluster, wanted, authority.secret, signer=_pair(pairs, authority.certificate), successor=pair,
                bundle=(*action.bundle, pair.certificate), retired=authority.retired, request=action.request)
        case steps.Switch(authority=authority):
            await _write_authority(
                cluster, wanted, authority.secret, signer=_pair(pairs, authority.certificate), bundle=action.bundle,
                successor=_pair(pairs, authority.successor), retired=authority.retired, request=authority.request,
                switched=True)
        case steps.Promote(authority=authority):
            await _write_authority(
                cluster, wanted, authority.secret, signer=_pair(pairs, authority.successor), bundle=action.bundle,
                retired=action.retired, request=authority.request)
        case steps.InjectBundle():
            await _inject(cluster, action)
        case steps.IssueLeaf():
            if prepared is None or prepared.signer != action.signer.fingerprint:
                prepared = await prepare_leaf(wanted, action.signer, pairs=pairs, now=now)
            pair = prepared.pair
            annotations = {secrets.READY_MARK: pair.certificate.fingerprint,
                           secrets.GENERATION: str(action.generation), **_request(action.request)}
            if wanted.compatibility is policy.Compatibility.DYNAMICLISTENER:
                annotations |= secrets.listener_annotations(pair)
            await _write_secret(cluster, wanted, wanted.secret_name, action.replaces,
                                secrets.leaf_data(pair, action.bundle), annotations)


def _request(request: str | None) -> dict[str, str]:
    """The mark of a request that this very write fulfils."""
    return {secrets.REQUEST: request} if request is not None else {}


def _pair(
    pairs: collections.abc.Mapping[facts.Fingerprint, certificates.KeyPair], certificate: facts.Certificate | None
) -> certificates.KeyPair | None:
    return pairs[certificate.fingerprint] if certificate is not None else None


async def _new_authority(
    pairs: collections.abc.Mapping[facts.Fingerprint, certificates.KeyPair], provided: facts.Certificate | None,
    wanted: policy.Policy, *, now: datetime.datetime,
) -> certificates.KeyPair:
    """The user's own, or a new one."""
    if provided is not None:
        return pairs[provided.fingerprint]
    return await _mint(minting.mint_authority, wanted, now=now)


async def _mint(
    mint: collections.abc.Callable[..., certificates.KeyPair], wanted: policy.Policy, **arguments: Any
) -> certificates.KeyPair:
    """
    Make keys in threads of their own, of which there are few: an RSA-4096 key takes seconds.

    The loop's own threads, which name resolution needs, are not held up. The certificates of one namespace wait for
    each other, so that nobody can make those of another namespace wait for all of them.
    """
    loop = asyncio.get_running_loop()
    turn = _turns.setdefault((loop, wanted.namespace), asyncio.Lock())
    async with turn:
        return await loop.run_in_executor(_minters, functools.partial(mint, wanted, **arguments))


async def _write_authority(
    cluster: client.Cluster, wanted: policy.Policy, replaces: facts.Secret | None, *,
    signer: certificates.KeyPair | None, bundle: collections.abc.Iterable[facts.Certificate],
    successor: certificates.KeyPair | None = None, retired: collections.abc.Iterable[facts.Fingerprint] = (),
    request: str | None, switched: bool = False,
) -> None:
    """The whole CA Secret each time, so that one that has to be recreated loses nothing."""
    assert signer is not None, "decided without a signer"
    annotations = {
        secrets.RETIRED: " ".join(retired),
        secrets.SWITCHED: successor.certificate.fingerprint if successor is not None and switched else "",
        **_request(request)}
    for_listener = wanted.compatibility is policy.Compatibility.DYNAMICLISTENER
    if for_listener:
        annotations[secrets.STATIC] = "true"
    data = secrets.authority_data(signer, bundle, successor, for_listener=for_listener, switched=switched)
    await _write_secret(cluster, wanted, wanted.authority_secret_name, replaces, data, annotations)


async def _freeze(cluster: client.Cluster, wanted: policy.Policy, secret: facts.Secret) -> None:
    """Without a resourceVersion, on purpose: see :class:`steps.Freeze`."""
    try:
        await cluster.annotate(paths.secret(wanted.namespace, secret.name), {secrets.STATIC: "true"})
    except client.NotFound as error:
        raise client.Conflict(method=error.method, path=error.path, status=error.status,
                              message=error.message) from error
    metrics.WRITES.labels(object="Secret", verb="patch").inc()


async def _write_secret(
    cluster: client.Cluster, wanted: policy.Policy, name: str, replaces: facts.Secret | None,
    data: dict[str, str | None], annotations: dict[str, str],
) -> None:
    """Content and marks together. A Secret's type cannot be changed: one of a wrong type makes room first."""
    path = paths.secret(wanted.namespace, name)
    if replaces is not None and not replaces.recreate:
        await _update_secret(cluster, wanted, replaces, {"metadata": {"annotations": annotations}, "data": data})
        return
    if replaces is not None:
        await cluster.delete(path, uid=replaces.uid, resource_version=replaces.resource_version)
    try:
        await cluster.create(paths.secrets(wanted.namespace), {
            "apiVersion": "v1", "kind": "Secret", "type": secrets.SECRET_TYPE,
            "metadata": {"name": name, "namespace": wanted.namespace, "labels": LABELS, "annotations": annotations},
            "data": {key: value for key, value in data.items() if value is not None},
        })
    except client.Conflict:
        if replaces is not None:
            await _check_that_it_went(cluster, path, replaces)
        raise
    metrics.WRITES.labels(object="Secret", verb="create").inc()


async def _check_that_it_went(cluster: client.Cluster, path: str, deleted: facts.Secret) -> None:
    """Raises :class:`client.Rejected` for a Secret that is kept by a finalizer: looking again at once helps nobody."""
    left = await cluster.find(path)
    if left is None or left["metadata"]["uid"] != deleted.uid:
        return
    finalizers = ", ".join(left["metadata"].get("finalizers") or ["none"])
    raise client.Rejected(
        method="DELETE", path=path, status=0,
        message=f"the Secret has to make room for one of the right type and does not go (finalizers: {finalizers});"
                " take its finalizers away, or let their controller do so")


async def _update_secret(
    cluster: client.Cluster, wanted: policy.Policy, secret: facts.Secret, patch: client.Manifest
) -> None:
    patch.setdefault("metadata", {})["resourceVersion"] = secret.resource_version
    await cluster.merge(paths.secret(wanted.namespace, secret.name), patch)
    metrics.WRITES.labels(object="Secret", verb="patch").inc()


async def _inject(cluster: client.Cluster, action: steps.InjectBundle) -> None:
    """
    By JSON patch: the entries stay the user's own, to change or to drop (an applied caBundle would co-own them).

    It tests the resourceVersion and each entry's guard, so that it never writes into an entry that has moved.
    """
    configuration = action.configuration
    path = paths.configuration(configuration.kind, configuration.name)
    written = await _patch(cluster, path, configuration, action.bundle)
    metrics.WRITES.labels(object=configuration.kind, verb="patch").inc()
    if configuration.kind == "CustomResourceDefinition":
        await _disown(cluster, path, written)


async def try_injection(
    cluster: client.Cluster, configuration: facts.Configuration, bundle: collections.abc.Sequence[facts.Certificate],
) -> client.APIError | None:
    """
    Let the API server say whether this very object may be written, without writing it (``dryRun``).

    ``bundle``: what would be written; when there is none yet, the object keeps what it has. Returns the refusal, None
    if it is accepted: :class:`client.Forbidden` and :class:`client.Rejected` are answers, all else says nothing.
    """
    path = paths.configuration(configuration.kind, configuration.name)
    try:
        await _patch(cluster, path, configuration, bundle, dry_run=True)
    except client.APIError as error:
        return error
    return None


async def _patch(
    cluster: client.Cluster, path: str, configuration: facts.Configuration,
    bundle: collections.abc.Sequence[facts.Certificate], *, dry_run: bool = False,
) -> client.Manifest:
    operations: list[client.Manifest] = [
        {"op": "test", "path": "/metadata/resourceVersion", "value": configuration.resource_version}]
    for entry in configuration.entries:
        guarded, value = entry.guard
        operations.append({"op": "test", "path": guarded, "value": value})
        if bundle:
            operations.append({"op": "add", "path": entry.pointer, "value": secrets.write_ca_bundle(bundle)})
    try:
        return await cluster.patch(f"{path}?fieldManager={MANAGER}" + ("&dryRun=All" if dry_run else ""), operations)
    except (client.Conflict, client.Forbidden, client.Rejected, client.NotFound, client.Unreachable):
        raise
    except client.APIError as error:
        raise await _explain_refusal(cluster, path, configuration, error) from error


async def _disown(cluster: client.Cluster, path: str, written: client.Manifest) -> None:
    """
    Let the bundle belong to nobody: a definition whose owner applies strategy None would keep it, and be invalid.

    Entries of a list go as a whole, so webhook configurations do not need this.
    """
    for _ in range(DISOWN_ATTEMPTS):
        metadata = written["metadata"]
        kept = [item for item in metadata.get("managedFields", []) if item["manager"] != MANAGER]
        try:
            await cluster.patch(f"{path}?fieldManager={MANAGER}", [
                {"op": "test", "path": "/metadata/resourceVersion", "value": metadata["resourceVersion"]},
                {"op": "replace", "path": "/metadata/managedFields", "value": kept}])
            return
        except (client.Conflict, client.Invalid):
            written = await cluster.get(path)  # the API server itself writes the status of a changed definition
    logger.info("%s was not left to nobody: it changes too often.", path)


async def _explain_refusal(
    cluster: client.Cluster, path: str, configuration: facts.Configuration, error: client.APIError
) -> client.APIError:
    """A test of the patch that failed, or an object that is refused as it would be, are both 422: look which it was."""
    current = await cluster.find(path)
    unchanged = current is not None and current["metadata"]["resourceVersion"] == configuration.resource_version
    kind = client.Rejected if unchanged else client.Conflict
    return kind(method=error.method, path=error.path, status=error.status, message=error.message)
