"""Carrying out: one action of the issuer's decision, one conditional write."""
import asyncio
import datetime

from steadyhook import metrics
from steadyhook.cluster import client, paths
from steadyhook.core import facts, policy, steps
from steadyhook.pki import certificates, minting, secrets

LABELS = {"app.kubernetes.io/managed-by": "steadyhook"}


async def apply(
    cluster: client.Cluster, action: steps.Step, wanted: policy.Policy, *,
    signer: certificates.KeyPair | None, now: datetime.datetime,
) -> None:
    """
    Carry out one action. Raises :class:`client.Conflict` when the world has changed since it was decided: then it has
    to be observed and decided again, never retried. Raises other kinds of :class:`client.APIError`; for an injection
    they are not about the object's state: :class:`client.Forbidden` is any refusal of the change itself.
    """
    match action:
        case steps.CreateAuthority():
            pair = await asyncio.to_thread(minting.mint_authority, wanted, now=now)
            data = secrets.authority_data(pair, (pair.certificate, *action.bundle))
            await _write_secret(cluster, wanted, wanted.authority_secret_name, action.replaces, data, {})
        case steps.ExtendBundle():
            assert signer is not None, "no signer was observed"
            data = secrets.authority_data(signer, action.bundle)
            await _write_secret(cluster, wanted, wanted.authority_secret_name, action.secret, data, {})
        case steps.InjectBundle():
            await _inject(cluster, action)
        case steps.IssueLeaf():
            assert signer is not None, "no signer was observed"
            pair = await asyncio.to_thread(minting.mint_leaf, wanted, signer=signer, now=now)
            annotations = {secrets.READY_MARK: pair.certificate.fingerprint,
                           secrets.GENERATION: str(action.generation)}
            await _write_secret(cluster, wanted, wanted.secret_name, action.replaces,
                                secrets.leaf_data(pair, action.bundle), annotations)


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
    await cluster.create(paths.secrets(wanted.namespace), {
        "apiVersion": "v1", "kind": "Secret", "type": secrets.SECRET_TYPE,
        "metadata": {"name": name, "namespace": wanted.namespace, "labels": LABELS, "annotations": annotations},
        "data": data,
    })
    metrics.WRITES.labels(object="Secret", verb="create").inc()


async def _update_secret(
    cluster: client.Cluster, wanted: policy.Policy, secret: facts.Secret, patch: client.Manifest
) -> None:
    patch.setdefault("metadata", {})["resourceVersion"] = secret.resource_version
    await cluster.merge(paths.secret(wanted.namespace, secret.name), patch)
    metrics.WRITES.labels(object="Secret", verb="patch").inc()


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
    path = paths.configuration(configuration.kind, configuration.name)
    try:
        await cluster.patch(path, operations)
    except (client.Conflict, client.Forbidden, client.Unreachable):
        raise
    except client.APIError as error:
        raise await _explain_refusal(cluster, path, configuration, error) from error
    metrics.WRITES.labels(object=configuration.kind, verb="patch").inc()


async def _explain_refusal(
    cluster: client.Cluster, path: str, configuration: facts.Configuration, error: client.APIError
) -> client.APIError:
    """A test of the patch that failed, or an object that is refused as it would be, are both 422: look which it was."""
    current = await cluster.find(path)
    unchanged = current is not None and current["metadata"]["resourceVersion"] == configuration.resource_version
    kind = client.Forbidden if unchanged else client.Conflict
    return kind(method=error.method, path=error.path, status=error.status, message=error.message)
