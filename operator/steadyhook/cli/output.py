"""What all commands share: their options, their exit codes, and text for people or JSON for programs."""
import collections.abc
import enum
import functools
import json
import sys
from typing import Any

import click
import rich.console
import rich.markup

from steadyhook.cli import cluster


class Exit(enum.IntEnum):
    """The exit codes; 2 is click's, for a wrong command line."""

    FINE = 0
    WRONG = 1  # with what was looked at
    FAILED = 3  # to look or to act: no cluster, no permission, no such object
    NOT_DONE = 4  # refused by the question, or stopped half-way
    INTERRUPTED = 130


def options(command: collections.abc.Callable[..., Exit]) -> collections.abc.Callable[..., None]:
    """Give a command the common options, its cluster as the first argument, and its result as the exit code."""

    @click.option("--kubeconfig", metavar="FILE", help="Instead of $KUBECONFIG and ~/.kube/config.")
    @click.option("--context", metavar="NAME", help="The context in the kubeconfig.")
    @click.option("-n", "--namespace", metavar="NAME", help="Instead of the context's namespace.")
    @click.option("-o", "--output", "form", type=click.Choice(["text", "json"]), default="text", show_default=True)
    @functools.wraps(command)
    def run(kubeconfig: str | None, context: str | None, namespace: str | None, **arguments: Any) -> None:
        try:
            connected = cluster.Cluster(kubeconfig=kubeconfig, context=context, namespace=namespace)
            code = command(connected, **arguments)
        except cluster.Failed as error:
            click.echo(f"steadyhook: {error}", err=True)
            code = Exit.FAILED
        except KeyboardInterrupt:
            click.echo("steadyhook: interrupted", err=True)
            code = Exit.INTERRUPTED
        sys.exit(code)

    return run


def console() -> rich.console.Console:
    """For text; colours only where a terminal takes them."""
    return rich.console.Console(highlight=False)


def plain(text: object) -> str:
    """Text from a cluster, in which brackets are no markup."""
    return rich.markup.escape(str(text))


def print_json(value: Any) -> None:
    click.echo(json.dumps(value, indent=2, default=str))
