"""
``steadyhook repair``: what ends a trouble with a webhook's Secret, each step looked at before and after.

Where a repair stands is in the objects themselves, so an interrupted one is resumed by the same command.
"""
import collections.abc
import datetime
import sys
import time
from typing import Any, TypeAlias

import click

from steadyhook.cli import cluster, holding, looking, output
from steadyhook.pki import secrets

GROUP = "/apis/steadyhook.io/v1alpha1"
WORKLOADS = ("daemonsets", "deployments")
RESTARTED_AT = "kubectl.kubernetes.io/restartedAt"
LOOK_SECONDS = 1.0
DURATIONS = {"duration": "8760h", "renewBefore": "2400h"}


@click.group()
def repair() -> None:
    """End a trouble; each asks before it acts, and changes nothing with --dry-run."""


Command = collections.abc.Callable[..., Any]


def _asking(command: Command) -> Command:
    for option in (
        click.option("--dry-run", is_flag=True, help="Only say what would be done."),
        click.option("-y", "--yes", is_flag=True, help="Do not ask."),
        click.option("--timeout", type=click.FloatRange(1, 3600), default=300.0, show_default=True, metavar="SECONDS",
                     help="How long to wait until it has worked."),
    ):
        command = option(command)
    return command


@repair.command("adopt")
@click.argument("secret")
@click.option("--ca-secret", metavar="NAME", help="The Secret of its CA; by default SECRET with -ca for -tls.")
@click.option("--dns-name", "dns_names", multiple=True, metavar="NAME", help="By default those of the leaf.")
@_asking
@output.options
def adopt(
    found: cluster.Cluster, form: str, secret: str, ca_secret: str | None, dns_names: tuple[str, ...],
    dry_run: bool, yes: bool, timeout: float,
) -> output.Exit:
    """End a storm: one issuer has SECRET from now on.

    For the Secrets of dynamiclistener, as in longhorn-manager and Rancher's webhook.
    """
    path = f"/api/v1/namespaces/{found.namespace}/secrets/{secret}"
    held = found.find(path)
    certificate = secrets.read_leaf(held, by_listener=True).certificate if held is not None else None
    names = sorted(dns_names or (certificate.dns_names if certificate is not None else ()))
    if not names:
        raise cluster.Failed(f"Secret {found.namespace}/{secret} holds no leaf with DNS names; give them by --dns-name")
    name = secret.removesuffix("-tls")
    manifest = {
        "apiVersion": "steadyhook.io/v1alpha1", "kind": "WebhookCertificate",
        "metadata": {"name": name, "namespace": found.namespace},
        "spec": {"secretName": secret, "caSecretName": ca_secret or f"{name}-ca", "dnsNames": names,
                 "compatibility": "Dynamiclistener", "privateKey": {"algorithm": "RSA-2048"}, **DURATIONS}}
    if dry_run:
        output.print_json(manifest)
        return output.Exit.FINE
    collection = f"{GROUP}/namespaces/{found.namespace}/webhookcertificates"
    existing = _certificates(found, collection)
    owner = next((item["metadata"]["name"] for item in existing if item["spec"].get("secretName") == secret), None)
    if owner is None:
        if not _confirmed(f"Create WebhookCertificate {found.namespace}/{name} for {', '.join(names)}?", yes):
            return output.Exit.NOT_DONE
        found.create(collection, manifest)
        owner = name

    def ready() -> str | None:
        status = found.get(f"{collection}/{owner}").get("status") or {}
        state = {item["type"]: item for item in status.get("conditions", [])}
        settled = state.get("Ready", {}).get("status") == "True" and state.get("Issuing", {}).get("status") == "False"
        return None if settled else str(state.get("Issuing", {}).get("message", "no issuer has looked at it yet"))

    return _wait(f"WebhookCertificate {found.namespace}/{owner}", ready, timeout, form, remedy="is an issuer running"
                 " that has a Role here? See manifests/components")


@repair.command("delete-secret")
@click.argument("secret")
@_asking
@output.options
def delete_secret(
    found: cluster.Cluster, form: str, secret: str, dry_run: bool, yes: bool, timeout: float
) -> output.Exit:
    """Delete SECRET, so that it is made anew. Not under running listeners: they would bring it back from memory."""
    path = f"/api/v1/namespaces/{found.namespace}/secrets/{secret}"
    looked = looking.look(found, found.namespace, secret, seconds=1.0, called=looking.calls(found))
    held = found.get(path)
    annotations = held["metadata"].get("annotations") or {}
    listened = any(key.startswith(secrets.LISTENER_NAME) for key in annotations)
    if listened and looked.pods and looked.owner is None:
        raise cluster.Failed(
            f"Secret {found.namespace}/{secret} is that of {len(looked.pods)} running listeners, and they would bring"
            f" it back from their memory; steadyhook repair adopt {secret} -n {found.namespace}, or stop them first")
    what = f"Delete Secret {found.namespace}/{secret} with its private key? That cannot be undone."
    if dry_run:
        click.echo(f"would delete Secret {found.namespace}/{secret} (uid {held['metadata']['uid']})")
        return output.Exit.FINE
    if not _confirmed(what, yes):
        return output.Exit.NOT_DONE
    found.delete(path, uid=held["metadata"]["uid"], resource_version=held["metadata"]["resourceVersion"])
    if looked.owner is None:
        click.echo("Deleted. Whoever made it makes it anew at its next start.", err=True)
        return output.Exit.FINE

    def back() -> str | None:
        return None if found.find(path) is not None else f"WebhookCertificate {looked.owner} has not issued it yet"

    return _wait(f"Secret {found.namespace}/{secret}", back, timeout, form, remedy="is an issuer running?")


@repair.command("restart")
@click.argument("workload")
@_asking
@output.options
def restart(
    found: cluster.Cluster, form: str, workload: str, dry_run: bool, yes: bool, timeout: float
) -> output.Exit:
    """Restart the pods of a DaemonSet or Deployment.

    As its update strategy says; waits for all to be ready.
    """
    path, held = _workload(found, workload)
    if (held["spec"].get("updateStrategy") or {}).get("type") == "OnDelete":
        raise cluster.Failed(f"{workload} has the update strategy OnDelete: its pods are replaced when they are"
                             " deleted; delete them one after the other")
    click.echo(f"before: {_progress(held)}", err=True)
    if dry_run:
        click.echo(f"would restart {workload} in namespace {found.namespace}")
        return output.Exit.FINE
    if _unfinished(held):
        click.echo("a rollout is under way; waiting for it", err=True)
    elif not _confirmed(f"Restart all pods of {workload} in namespace {found.namespace}?", yes):
        return output.Exit.NOT_DONE
    else:
        found.merge(path, {
            "metadata": {"resourceVersion": held["metadata"]["resourceVersion"]},
            "spec": {"template": {"metadata": {"annotations": {
                RESTARTED_AT: f"{datetime.datetime.now(datetime.UTC):%Y-%m-%dT%H:%M:%SZ}"}}}}})

    def rolled_out() -> str | None:
        now = found.get(path)
        return _progress(now) if _unfinished(now) else None

    return _wait(workload, rolled_out, timeout, form, remedy="look at the pods; the same command goes on waiting")


@repair.command("batches")
@click.argument("daemonset")
@click.option("--size", type=click.IntRange(1, 10000), default=5, show_default=True, metavar="K",
              help="How many pods start at once.")
@click.option("--release", is_flag=True, help="Start all that are still held back, at once.")
@_asking
@output.options
def batches(
    found: cluster.Cluster, form: str, daemonset: str, size: int, release: bool, dry_run: bool, yes: bool,
    timeout: float,
) -> output.Exit:
    """Start a DaemonSet's pods K at a time.

    Those that are not ready are stopped first; pods that are ready stay. --timeout is for each batch.
    """
    path, held = _workload(found, daemonset)
    if held["kind"] != "DaemonSet":
        raise cluster.Failed(f"{daemonset} is a Deployment, expected a DaemonSet; scale it down and up instead")
    hold = holding.Hold(found, path, size=size)
    plan = hold.plan(held)
    click.echo(f"before: {_progress(held)}", err=True)
    if dry_run:
        click.echo(f"would {plan.text}")
        return output.Exit.FINE
    if plan.stage is holding.Stage.NOTHING or (release and plan.stage is holding.Stage.BEGIN):
        click.echo("nothing to do: " + ("no pod is held back" if release else plan.text))
        return output.Exit.FINE
    if plan.stage is not holding.Stage.BEGIN:
        click.echo(f"goes on: {plan.text}", err=True)
    elif not _confirmed(f"{plan.text[0].upper()}{plan.text[1:]}?", yes):
        return output.Exit.NOT_DONE
    else:
        hold.begin(held)
    remedy = "look at these pods, and at steadyhook diagnose; --release starts all that are held back"
    if not release:
        code = _wait("the pods to stop", hold.stopping, timeout, form, remedy=remedy, last=False)
        if code is not output.Exit.FINE:
            return code
    while not release and (batch := hold.next_batch()):
        code = _wait(f"batch of {len(batch)}", lambda batch=batch: hold.missing(batch), timeout,  # type: ignore[misc]
                     form, remedy=remedy, last=False)
        if code is not output.Exit.FINE:
            return code
    hold.release()

    def rolled_out() -> str | None:
        now = found.get(path)
        return _progress(now) if _unfinished(now) else None

    code = _wait(daemonset, rolled_out, timeout, form, remedy="its own strategy replaces the pods that were started in"
                 " batches, since their template is the former one again; the same command goes on waiting")
    if code is output.Exit.FINE:
        hold.forget()
    return code


def _certificates(found: cluster.Cluster, collection: str) -> list[cluster.Manifest]:
    try:
        return found.list(collection)
    except cluster.NotFound as error:
        raise cluster.Failed("the definition of WebhookCertificate is not in this cluster; kubectl apply -k"
                             " manifests/crds, then manifests/overlays/issuer") from error


def _workload(found: cluster.Cluster, name: str) -> tuple[str, cluster.Manifest]:
    for kind in WORKLOADS:
        path = f"/apis/apps/v1/namespaces/{found.namespace}/{kind}/{name}"
        held = found.find(path)
        if held is not None:
            return path, held
    raise cluster.NotFound(f"there is no DaemonSet and no Deployment {name} in namespace {found.namespace}; name"
                           " another one, or -n for another namespace")


def _counts(held: cluster.Manifest) -> tuple[int, int, int]:
    """Pods of the newest template, pods that are ready, pods that there should be."""
    status = held.get("status") or {}
    if held["kind"] == "DaemonSet":
        return (status.get("updatedNumberScheduled", 0), status.get("numberReady", 0),
                status.get("desiredNumberScheduled", 0))
    return status.get("updatedReplicas", 0), status.get("readyReplicas", 0), held["spec"].get("replicas", 1)


def _unfinished(held: cluster.Manifest) -> bool:
    updated, ready, wanted = _counts(held)
    seen = (held.get("status") or {}).get("observedGeneration", 0) >= held["metadata"]["generation"]
    return not seen or updated < wanted or ready < wanted


def _progress(held: cluster.Manifest) -> str:
    updated, ready, wanted = _counts(held)
    return f"{ready}/{wanted} pods ready, {updated} of the newest template"


def _confirmed(question: str, yes: bool) -> bool:
    if yes:
        return True
    if not sys.stdin.isatty():
        click.echo(f"steadyhook: {question} There is nobody to ask; say --yes. Nothing was done.", err=True)
        return False
    if click.confirm(question):
        return True
    click.echo("Nothing was done.", err=True)
    return False


Missing: TypeAlias = collections.abc.Callable[[], str | None]
"""What is still missing, in words; None when nothing is."""


def _wait(
    what: str, missing: Missing, timeout: float, form: str, *, remedy: str, last: bool = True
) -> output.Exit:
    """Until nothing is missing any more, telling each change. ``last``: nothing is done after it."""
    began = time.monotonic()
    said = None
    while (still := missing()) is not None:
        if still != said:
            click.echo(f"waiting for {what}: {still}", err=True)
            said = still
        if time.monotonic() - began > timeout:
            click.echo(f"steadyhook: {what} is not there after {timeout:.0f} s ({still}); {remedy}. The same command"
                       " goes on from here.", err=True)
            return output.Exit.NOT_DONE
        time.sleep(LOOK_SECONDS)
    seconds = time.monotonic() - began
    if form == "json" and last:
        output.print_json({"done": what, "seconds": round(seconds, 1)})
    else:
        click.echo(f"done: {what}, after {seconds:.1f} s", err=not last)
    return output.Exit.FINE
