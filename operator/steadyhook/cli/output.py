"""What all commands share: their options, their exit codes, and text for people or JSON for programs."""
import collections.abc
import enum
import functools
import json
import re
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
            say(f"steadyhook: {error}")
            code = Exit.FAILED
        except KeyboardInterrupt:
            say("steadyhook: interrupted")
            code = Exit.INTERRUPTED
        sys.exit(code)

    return run


def console() -> rich.console.Console:
    """For text; colours only where a terminal takes them."""
    return rich.console.Console(highlight=False, emoji=False)


def clean(text: object) -> str:
    """
    Text from a cluster, in which nothing is left that a terminal acts on: no controls (C0, DEL, C1), no change of the
    direction of writing, and no line of its own. What is no white space is shown as an escape.
    """
    return _ACTED_ON.sub(lambda match: " " if match[0] in _SPACES else _escaped(match[0]), str(text))


def plain(text: object) -> str:
    """Text from a cluster for :func:`console`: as :func:`clean` has it, and brackets are no markup."""
    return rich.markup.escape(clean(text))


def say(text: object) -> None:
    """A line for people, beside the output."""
    click.echo(clean(text), err=True)


# Besides the controls: marks, embeddings, overrides and isolates of the bidirectional algorithm, and the separators of
# lines and paragraphs; lone surrogates cannot be printed at all.
_ACTED_ON = re.compile("[\x00-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")
_SPACES = "\t\n\r\u2028\u2029"


def _escaped(character: str) -> str:
    code = ord(character)
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}"


def print_json(value: Any) -> None:
    click.echo(json.dumps(value, indent=2, default=str))
