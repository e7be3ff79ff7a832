"""``steadyhook diagnose``: what is wrong with a webhook's Secret, in words and figures, and what to do."""
import dataclasses

import click
import rich.console

from steadyhook.cli import cluster, diagnosis, looking, output


@click.command()
@click.argument("secret", required=False)
@click.option("--seconds", type=click.FloatRange(1, 600), default=6.0, show_default=True,
              help="How long to watch each Secret; up to three times as long if it changes but once or twice. A slow"
              " flip of two certificates may take minutes.")
@output.options
def diagnose(found: cluster.Cluster, form: str, secret: str | None, seconds: float) -> output.Exit:
    """Say what is wrong with a webhook's Secret.

    With SECRET, or with every Secret of the namespace that a webhook serves from.
    """
    called = looking.calls(found)
    names = [secret] if secret is not None else _names(found, called)
    results = []
    for name in names:
        looked = looking.look(found, found.namespace, name, seconds=seconds, called=called)
        results.append((looked, diagnosis.diagnose(looked, found.now())))
    if form == "json":
        output.print_json([_as_json(*item) for item in results])
    else:
        for item in results:
            _print(output.console(), *item)
    return output.Exit.WRONG if any(one.wrong for _, said in results for one in said) else output.Exit.FINE


def _names(found: cluster.Cluster, called: list[looking.Call]) -> list[str]:
    try:
        names = looking.candidates(found, found.namespace, called)
    except cluster.Forbidden as error:
        raise cluster.Forbidden(f"{error}; or name the Secret to look at") from error
    if not names and found.find(f"/api/v1/namespaces/{found.namespace}") is None:
        raise cluster.NotFound(f"namespace {found.namespace} does not exist; give another one by -n")
    if not names:
        raise cluster.NotFound(f"no Secret in namespace {found.namespace} is one that a webhook serves from; name one,"
                               " or -n for another namespace")
    return names


def _as_json(looked: diagnosis.Looked, findings: tuple[diagnosis.Finding, ...]) -> dict[str, object]:
    return {
        "namespace": looked.namespace, "secret": looked.name, "seconds": looked.seconds, "updates": looked.updates,
        "fingerprints": list(dict.fromkeys(item.fingerprint for item in looked.versions)),
        "writers": looked.writers, "static": looked.static, "webhookCertificate": looked.owner,
        "pods": len(looked.pods), "issuer": looked.issuing.identity if looked.issuing is not None else None,
        "findings": [dataclasses.asdict(item) for item in findings],
    }


def _print(console: rich.console.Console, looked: diagnosis.Looked, findings: tuple[diagnosis.Finding, ...]) -> None:
    text = output.plain
    console.print(f"[bold]Secret {text(looked.namespace)}/{text(looked.name)}[/]: {looked.updates} updates in"
                  f" {looked.seconds:.0f} s; called by {len(looked.callers)} webhooks of configurations, served by"
                  f" {len(looked.pods)} pods", soft_wrap=True)
    for item in findings:
        console.print(f"  [{'red' if item.wrong else 'cyan'}]{item.kind}[/]: {text(item.message)}", soft_wrap=True)
        console.print(f"    [dim]to do:[/] {text(item.remedy)}", soft_wrap=True)
    if not any(item.wrong for item in findings):
        console.print("  [green]Nothing is wrong.[/]")
