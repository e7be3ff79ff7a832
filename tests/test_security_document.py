"""The document on security: each test that it names as a proof exists."""
import pathlib
import re

ROOT = pathlib.Path(__file__).parent.parent
DOCUMENT = ROOT / "docs" / "security.md"


def test_every_test_that_is_named_as_a_proof_exists() -> None:
    named = re.findall(r"`(tests/[a-z_/]+\.py)::(test_[a-z0-9_]+)`", DOCUMENT.read_text())
    assert len(named) > 20
    missing = [f"{path}::{name}" for path, name in named
               if f"def {name}(" not in (ROOT / path).read_text()]
    assert missing == []
    assert len(named) == DOCUMENT.read_text().count("::test_"), "a proof that is not written as `tests/FILE.py::NAME`"


def test_all_eighteen_threats_are_answered() -> None:
    answered = re.findall(r"^\| (\d+) \|", DOCUMENT.read_text(), flags=re.MULTILINE)
    assert [int(number) for number in answered] == list(range(1, 19))
