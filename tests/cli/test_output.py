"""Text from a cluster reaches the terminal as text."""
import io
import re
import unicodedata

import hypothesis
import pytest
import rich.console
from hypothesis import strategies

from steadyhook.cli import output

BIDIRECTIONAL = {"RLE", "LRE", "PDF", "RLO", "LRO", "RLI", "LRI", "FSI", "PDI"}
MARKS = "\u200e\u200f\u061c"
ALARMING = strategies.text(strategies.sampled_from("a[]/\\\x1b\x9b\x07\r\n\t\x00\x7f\u202e\u2066\u2028;31mbold\ud800"))


def acts(character: str) -> bool:
    return (unicodedata.category(character) in ("Cc", "Cs", "Zl", "Zp") or character in MARKS
            or unicodedata.bidirectional(character) in BIDIRECTIONAL)


def shown(text: str, *, terminal: bool) -> str:
    file = io.StringIO()
    console = rich.console.Console(file=file, force_terminal=terminal, color_system=None, width=80, highlight=False)
    console.print(output.plain(text), soft_wrap=True)
    return file.getvalue()


@pytest.mark.parametrize("terminal", [True, False])
@hypothesis.settings(deadline=None)
@hypothesis.given(text=strategies.text() | ALARMING)
def test_nothing_that_a_terminal_acts_on_is_shown(terminal: bool, text: str) -> None:
    line = shown(text, terminal=terminal)
    assert line.endswith("\n")
    assert not [item for item in line[:-1] if acts(item)]


@hypothesis.given(strategies.text(strategies.characters(exclude_categories=("Cc", "Cf", "Cs", "Zl", "Zp"))))
def test_other_text_is_left_alone(text: str) -> None:
    assert output.clean(text) == text


def test_what_is_taken_away_is_seen() -> None:
    assert output.clean("\x1b[31mall\tis\nwell\u202e\x9b") == "\\x1b[31mall is well\\u202e\\x9b"
    assert re.sub(r"\s+$", "", shown("[bold]\x1b[2J", terminal=True)) == "[bold]\\x1b[2J"
