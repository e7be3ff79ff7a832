"""Carrying out: one action of the issuer's decision, one conditional write."""
import asyncio
import collections.abc
import datetime

from steadyhook import metrics
from steadyhook.cluster import client, paths
from steadyhook.core import facts, policy, steps
from steadyhook.pki import certificates, minting, secrets

LABELS = {"app.kubernetes.io/managed-by": "steadyhook"}


async def apply(
    cluster: client.Cluster, action: steps.Step, wanted: policy.Policy, *,
    pairs: collections.abc.Mapping[facts.Fingerprint, certificates.KeyPair], now: datetime.datetime,
) -> None:
    """
    Carry out one action; ``pairs`` are the key pairs of the CA Secret that it was decided from.

    Raises :class:`client.Conflict` (or Invalid, from the test of a patch) when the world has changed since it was
    decided: then it has to be observed and decided again, never retried.
    """
    match action:
        case steps.CreateAuthority():
            pair = await asyncio.to_thread(minting.mint_authority, wanted, now=now)
            data = secrets.authority_data(pair, (pair.certificate, *action.bundle))
            annotations = _request(action.request)
            await _write_secret(cluster, wanted, wanted.authority_secret_name, action.replaces, data, annotations)
        case steps.AddSuccessor():
            pair = await asyncio.to_thread(minting.mint_authority, wanted, now=now)
            await _update_secret(cluster, wanted, action.secret, {
                "metadata": {"annotations": _request(action.request)},
                "data": secrets.successor_data(pair, (*action.bundle, pair.certificate))})
        case steps.Promote():
            await _update_secret(cluster, wanted, action.secret, {
                "metadata": {"annotations": {secrets.RETIRED: " ".join(sorted(action.retired))}},
                "data": secrets.promotion_data(pairs[action.successor.fingerprint], action.bundle)})
        case steps.ExtendBundle():
            await _update_secret(cluster, wanted, action.secret,
                                 {"data": secrets.bundle_data(action.bundle)})
        case steps.InjectBundle():
            await _inject(cluster, action)
        case steps.IssueLeaf():
            signer = pairs[action.signer.fingerprint]
            pair = await asyncio.to_thread(minting.mint_leaf, wanted, signer=signer, now=now)
            annotations = {secrets.READY_MARK: pair.certificate.fingerprint,
                           secrets.GENERATION: str(action.generation), **_request(action.request)}
            await _write_secret(cluster, wanted, wanted.secret_name, action.replaces,
                                secrets.leaf_data(pair, action.bundle), annotations)


def _request(request: str | None) -> dict[str, str]:
    """The mark of a request that this very write fulfils."""
    return {secrets.REQUEST: request} if request is not None else {}


async def _write_secret(
    cluster: client.Cluster, wanted: policy.Policy, name: str, replaces: facts.Secret | None, data: dict[str, str],
    annotations: dict[str, str],
) -> None:
    """Content and marks together. A Secret's type cannot be changed: one of a wrong type makes room first."""
    if replaces is not None and not replaces.recreate:
        await _update_secret(cluster, wanted, replaces, {"metadata": {"annotations": annotations}, "data": data})
        return
    if replaces is not None:
        await cluster.delete(paths.secret(wanted.namespace, name), uid=replaces.uid,
                             resource_version=replaces.resource_version)
    await _create_secret(cluster, wanted, name, data, annotations)


async def _create_secret(
    cluster: client.Cluster, wanted: policy.Policy, name: str, data: dict[str, str], annotations: dict[str, str]
) -> None:
    await cluster.create(paths.secrets(wanted.namespace), {
        "apiVersion": "v1", "kind": "Secret", "type": secrets.SECRET_TYPE,
        "metadata": {"name": name, "namespace": wanted.namespace, "labels": LABELS, "annotations": annotations},
        "data": data,
    })
    metrics.WRITES.labels(object="Secret", verb="create").inc()


async def _update_secret(
    cluster: client.Cluster, wanted: policy.Policy, secret: facts.Secret, patch: client.Manifest
) -> None:
    path = paths.secret(wanted.namespace, secret.name)
    if secret.recreate:
        await _recreate_secret(cluster, wanted, secret, patch, before=await cluster.get(path))
        return
    patch.setdefault("metadata", {})["resourceVersion"] = secret.resource_version
    await cluster.merge(path, patch)
    metrics.WRITES.labels(object="Secret", verb="patch").inc()


async def _recreate_secret(
    cluster: client.Cluster, wanted: policy.Policy, secret: facts.Secret, patch: client.Manifest,
    before: client.Manifest,
) -> None:
    """
    As an update, of a Secret that is marked immutable: the API server would refuse that for ever.

    ``before`` is what it holds; the delete makes sure that this is what was decided from.
    """
    await cluster.delete(paths.secret(wanted.namespace, secret.name), uid=secret.uid,
                         resource_version=secret.resource_version)
    data = {**(before.get("data") or {}), **patch["data"]}
    annotations = {**(before["metadata"].get("annotations") or {}),
                   **patch.get("metadata", {}).get("annotations", {})}
    await _create_secret(cluster, wanted, secret.name, {key: value for key, value in data.items() if value is not None},
                         annotations)


async def _inject(cluster: client.Cluster, action: steps.InjectBundle) -> None:
    """
    By JSON patch: the entries stay the user's own, to change or to drop (an applied caBundle would co-own them).

    It tests the resourceVersion and each entry's name, so that it never writes into an entry that has moved.
    """
    configuration = action.configuration
    encoded = secrets.write_ca_bundle(action.bundle)
    operations: list[client.Manifest] = [
        {"op": "test", "path": "/metadata/resourceVersion", "value": configuration.resource_version}]
    for index, entry in enumerate(configuration.entries):
        operations += [
            {"op": "test", "path": f"/webhooks/{index}/name", "value": entry.name},
            {"op": "add", "path": f"/webhooks/{index}/clientConfig/caBundle", "value": encoded},
        ]
    await cluster.patch(paths.configuration(configuration.kind, configuration.name), operations)
    metrics.WRITES.labels(object=configuration.kind, verb="patch").inc()
