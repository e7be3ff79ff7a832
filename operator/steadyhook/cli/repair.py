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

from steadyhook.cli import cluster, holding, issuers, looking, output
from steadyhook.pki import secrets

GROUP = "/apis/steadyhook.io/v1alpha1"
WORKLOADS = {
    "daemonsets": {"ds", "daemonset", "daemonsets", "daemonset.apps", "daemonsets.apps"},
    "deployments": {"deploy", "deployment", "deployments", "deployment.apps", "deployments.apps"},
}
RESTARTED_AT = "kubectl.kubernetes.io/restartedAt"
LOOK_SECONDS = 1.0
ELECTION_SECONDS = 20.0  # longer than a record lives: another instance takes over meanwhile, if there is one
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

    For the Secrets of dynamiclistener, as in longhorn-manager and Rancher's webhook. Nothing is written unless an
    issuer is there that may have it.
    """
    held = looking.secret(found, found.namespace, secret)
    collection = f"{GROUP}/namespaces/{found.namespace}/webhookcertificates"
    name = looking.certificate_name(secret)
    spec: cluster.Manifest = {
        "secretName": secret, "caSecretName": ca_secret or looking.ca_name(secret),
        "dnsNames": _names(found, held, dns_names),
        "compatibility": "Dynamiclistener", "privateKey": {"algorithm": "RSA-2048"}, **DURATIONS}
    manifest = {"apiVersion": "steadyhook.io/v1alpha1", "kind": "WebhookCertificate",
                "metadata": {"name": name, "namespace": found.namespace}, "spec": spec}
    owner = _owner(found, held, _certificates(found, collection), spec)
    standing = _issuer(found, owner or name, patience=0.0 if dry_run else min(ELECTION_SECONDS, timeout))
    _check_issuer(found, standing, spec)
    described = (f"WebhookCertificate {found.namespace}/{name} for {', '.join(spec['dnsNames'])}; its issuer would"
                 f" be {looking.where(found, standing)}")
    if dry_run and owner is not None:
        click.echo(f"nothing to create: WebhookCertificate {owner} has this Secret; would wait until it is ready")
        return output.Exit.FINE
    if dry_run:
        output.say(f"would create {described}:")
        output.print_json(manifest)
        return output.Exit.FINE
    if owner is None:
        if not _confirmed(f"Create {described}. Go on?", yes):
            return output.Exit.NOT_DONE
        found.create(collection, manifest)
        owner = name

    def ready() -> str | None:
        status = found.get(f"{collection}/{owner}").get("status") or {}
        state = {item["type"]: item for item in status.get("conditions", [])}
        settled = state.get("Ready", {}).get("status") == "True" and state.get("Issuing", {}).get("status") == "False"
        return None if settled else str(state.get("Issuing", {}).get("message", "no issuer has looked at it yet"))

    return _wait(f"WebhookCertificate {found.namespace}/{owner} to be ready", ready, timeout, form,
                 remedy=f"it stays; look at kubectl describe whcert {owner} -n {found.namespace}, and at the log of"
                 f" {standing.identity or 'its issuer'}")


def _names(found: cluster.Cluster, held: cluster.Manifest, given: collections.abc.Sequence[str]) -> list[str]:
    """The names to issue for: those given, or the leaf's. Raises :class:`cluster.Failed`."""
    certificate = secrets.read_leaf(held, by_listener=True).certificate
    names = sorted(given or (certificate.dns_names if certificate is not None else ()))
    if not names:
        raise cluster.Failed(f"Secret {found.namespace}/{held['metadata']['name']} holds no leaf with DNS names; give"
                             " them by --dns-name")
    return names


def _owner(
    found: cluster.Cluster, held: cluster.Manifest, existing: list[cluster.Manifest], wanted: cluster.Manifest
) -> str | None:
    """
    The WebhookCertificate that has adopted the Secret already, if there is one.

    Raises :class:`cluster.Failed` for a Secret that is not to be adopted.
    """
    secret = f"Secret {found.namespace}/{wanted['secretName']}"
    for item in existing:
        name, spec = item["metadata"]["name"], item["spec"]
        theirs = {spec.get("secretName"), spec.get("caSecretName") or f"{spec.get('secretName')}-ca"}
        if spec.get("secretName") == wanted["secretName"] and spec.get("compatibility") == wanted["compatibility"]:
            return str(name)
        if theirs & {wanted["secretName"], wanted["caSecretName"]}:
            raise cluster.Failed(f"{secret} or that of its CA belongs to WebhookCertificate {name}, which has"
                                 f" {' and '.join(sorted(filter(None, theirs)))}; look at"
                                 f" kubectl describe whcert {name} -n {found.namespace}")
    annotations = held["metadata"].get("annotations") or {}
    if not looking.is_listeners(held):
        maker = "cert-manager" if any(key.startswith("cert-manager.io/") for key in annotations) else (
            "steadyhook itself" if secrets.READY_MARK in annotations else "another program")
        raise cluster.Failed(
            f"{secret} is no listener's: it has no annotation listener.cattle.io/..., expected one that dynamiclistener"
            f" sets; it seems to be that of {maker}, which would not leave it to an issuer. See docs/taking-over.md")
    return None


def _issuer(found: cluster.Cluster, certificate: str, *, patience: float) -> issuers.Standing:
    """Who would issue it; an election that has no result just now is waited for."""
    deadline = time.monotonic() + patience
    said = False
    while True:
        standing = issuers.standing(looking.installations(found), namespace=found.namespace, certificate=certificate,
                                    now=found.now())
        if standing.problem is None or not standing.installed or time.monotonic() >= deadline:
            return standing
        if not said:
            output.say(f"waiting {patience:.0f} s for an issuer to become active: {standing.problem}")
            said = True
        time.sleep(LOOK_SECONDS)


def _check_issuer(found: cluster.Cluster, standing: issuers.Standing, spec: cluster.Manifest) -> None:
    """Say what could not be checked. Raises :class:`cluster.Failed` if nobody would issue it."""
    if standing.problem is not None:
        raise cluster.Failed(f"nothing was done: {standing.problem}; {standing.remedy}. Then say the same again")
    if standing.identity is None:
        output.say(f"not checked: whether an issuer is active ({standing.hidden})")
        return
    if standing.account is None:
        output.say(f"not checked: whether {standing.identity} may write Secrets in namespace {found.namespace} (no"
                   " Deployment or DaemonSet tells its account)")
        return
    missing, unchecked = looking.rights(found, standing.account, leaf_secret=spec["secretName"],
                                        ca_secret=spec["caSecretName"])
    if missing:
        raise cluster.Failed(
            f"nothing was done: the issuer's account {standing.account.replace(':', '/')} may not, in namespace"
            f" {found.namespace}: {', '.join(missing)}; {issuers.install(found.namespace)}. Then say the same again")
    if unchecked is not None:
        output.say(f"not checked: {unchecked}")


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
    command = f"steadyhook repair batches {daemonset} -n {found.namespace}"
    click.echo(f"before: {_progress(held)}", err=True)
    if plan.stage is holding.Stage.NOTHING or (release and plan.stage is holding.Stage.BEGIN):
        click.echo("nothing to do: " + ("no pod is held back" if release else plan.text))
        return output.Exit.FINE
    if dry_run:
        click.echo("would " + ("start all pods that are held back, at once" if release else plan.text))
        return output.Exit.FINE
    if release:
        hold.release()
        hold.forget()
        click.echo("Started all that were held back, at once; the DaemonSet is as it was before. kubectl rollout"
                   f" status daemonset/{held['metadata']['name']} -n {found.namespace} shows how it goes on.")
        return output.Exit.FINE
    if plan.stage is not holding.Stage.BEGIN:
        click.echo(f"goes on: {plan.text}", err=True)
    elif not _confirmed(f"{plan.text[0].upper()}{plan.text[1:]}?", yes):
        return output.Exit.NOT_DONE
    try:
        if plan.stage is holding.Stage.BEGIN:
            hold.begin(held)
        return _start_in_batches(found, path, hold, f"{command} --size {size}", timeout, form)
    except KeyboardInterrupt:
        output.say(f"steadyhook: interrupted; {hold.standing()}. To go on: {command} --size {size}. To start all at"
                   f" once: {command} --size {size} --release")
        return output.Exit.INTERRUPTED


def _start_in_batches(
    found: cluster.Cluster, path: str, hold: holding.Hold, command: str, timeout: float, form: str
) -> output.Exit:
    """What is held back, a batch after the other, and then the DaemonSet as it was."""
    remedy = f"look at these pods, and at steadyhook diagnose; {command} --release starts all that are held back"
    code = _wait("the pods to stop", hold.stopping, timeout, form, remedy=remedy, last=False)
    while code is output.Exit.FINE and (batch := hold.next_batch()):
        code = _wait(f"batch of {len(batch)}", lambda batch=batch: hold.missing(batch), timeout,  # type: ignore[misc]
                     form, remedy=remedy, last=False)
    if code is not output.Exit.FINE:
        return code
    hold.release()

    def rolled_out() -> str | None:
        now = found.get(path)
        return _progress(now) if _unfinished(now) else None

    code = _wait(path.rpartition("/")[2], rolled_out, timeout, form, remedy="its own strategy replaces the pods that"
                 " were started in batches, since their template is the former one again; the same command goes on"
                 " waiting")
    if code is output.Exit.FINE:
        hold.forget()
    return code


def _certificates(found: cluster.Cluster, collection: str) -> list[cluster.Manifest]:
    try:
        return found.list(collection)
    except cluster.NotFound as error:
        raise cluster.Failed("the definition of WebhookCertificate is not in this cluster; kubectl apply -k"
                             " manifests/crds, then manifests/overlays/issuer") from error


def _workload(found: cluster.Cluster, given: str) -> tuple[str, cluster.Manifest]:
    """By its name, or as kubectl takes it: ds/NAME, deployment/NAME."""
    kind_given, _, name = given.rpartition("/")
    kinds = [kind for kind, names in WORKLOADS.items() if not kind_given or kind_given.lower() in names]
    if not kinds or not issuers.is_name(name):
        raise cluster.Failed(f"{given!r} is no workload, expected NAME, daemonset/NAME or deployment/NAME")
    for kind in kinds:
        path = f"/apis/apps/v1/namespaces/{found.namespace}/{kind}/{name}"
        held = found.find(path)
        if held is not None:
            return path, held
    if found.find(f"/api/v1/namespaces/{found.namespace}") is None:
        raise cluster.NotFound(f"namespace {found.namespace} does not exist; give another one by -n")
    what = " and no ".join({"daemonsets": "DaemonSet", "deployments": "Deployment"}[kind] for kind in kinds)
    raise cluster.NotFound(f"there is no {what} {name} in namespace {found.namespace}; name another one, or -n for"
                           " another namespace")


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
        output.say(f"steadyhook: {question} There is nobody to ask; say --yes. Nothing was done.")
        return False
    if click.confirm(output.clean(question)):
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
            output.say(f"waiting for {what}: {still}")
            said = still
        if time.monotonic() - began > timeout:
            output.say(f"steadyhook: {what}: not after {timeout:.0f} s ({still}); {remedy}. The same command goes on"
                       " from here.")
            return output.Exit.NOT_DONE
        time.sleep(LOOK_SECONDS)
    seconds = time.monotonic() - began
    if form == "json" and last:
        output.print_json({"done": what, "seconds": round(seconds, 1)})
    else:
        click.echo(f"done: {what}, after {seconds:.1f} s", err=not last)
    return output.Exit.FINE
