"""Which Pythons are supported, and how they are found."""
import pathlib
import re
import sys

import pytest

from pythons import __main__ as program
from pythons import finding

ROOT = pathlib.Path(__file__).parent.parent
PROJECT = finding.project(ROOT)


def interpreter(path: pathlib.Path, script: str) -> pathlib.Path:
    path.parent.mkdir(parents=True)
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)
    return path


def test_the_oldest_supported_python_is_the_same_everywhere() -> None:
    oldest = finding.supported(PROJECT)[0]
    assert PROJECT["project"]["requires-python"] == f">={oldest}"
    assert PROJECT["tool"]["mypy"]["python_version"] == oldest
    assert PROJECT["tool"]["ruff"]["target-version"] == f"py{oldest.replace('.', '')}"
    assert f"sys.version_info < ({oldest.replace('.', ', ')})" in (ROOT / "Makefile").read_text()


def test_the_images_python_is_a_supported_one() -> None:
    images = re.findall(r"^FROM python:(\d+\.\d+)", (ROOT / "Dockerfile").read_text(), re.MULTILINE)
    assert len(images) == 2
    assert set(images) <= set(finding.supported(PROJECT))


def test_this_python_is_a_supported_one() -> None:
    assert "{}.{}".format(*sys.version_info) in finding.supported(PROJECT)


def test_one_that_cannot_make_a_venv_is_passed_over_and_named(tmp_path: pathlib.Path) -> None:
    bare = interpreter(tmp_path / "bin" / "python3.12", "echo no module named ensurepip >&2; exit 1")
    environ = {"HOME": str(tmp_path), "PATH": str(bare.parent)}
    assert finding.find("3.12", environ) == (None, f"{bare}: no module named ensurepip")
    whole = interpreter(tmp_path / "other" / "python3.12", "echo 3.12")
    assert finding.find("3.12", {**environ, "PATH": f"{bare.parent}:{whole.parent}"}) == (whole, str(whole))


def test_pyenvs_newest_release_of_a_version_is_taken(tmp_path: pathlib.Path) -> None:
    for release in ("3.13.2", "3.13.11", "3.1.5"):
        interpreter(tmp_path / ".pyenv" / "versions" / release / "bin" / "python3", "echo 3.13")
    found, _ = finding.find("3.13", {"HOME": str(tmp_path), "PATH": str(tmp_path / "none")})
    assert found == tmp_path / ".pyenv" / "versions" / "3.13.11" / "bin" / "python3"


def test_a_name_that_is_another_version_is_not_taken(tmp_path: pathlib.Path) -> None:
    shim = interpreter(tmp_path / "bin" / "python3.14", "echo 3.11")
    assert finding.find("3.14", {"HOME": str(tmp_path), "PATH": str(shim.parent)}) == (None, f"{shim}: 3.11")


def test_none_at_all_is_said_in_words(tmp_path: pathlib.Path) -> None:
    found, said = finding.find("3.14", {"HOME": str(tmp_path), "PATH": str(tmp_path)})
    assert (found, said) == (None, "there is no python3.14 on the PATH, in pyenv or in uv")


@pytest.mark.parametrize(("results", "code"), [
    ({"3.11": "passed (1 s)", "3.12": None}, 0),
    ({"3.11": "passed (1 s)", "3.12": "FAILED: pytest exited with 1"}, 1),
    ({"3.11": "FAILED: no venv could be made"}, 1),
    ({"3.11": None, "3.12": None}, 1),
])
def test_a_python_that_is_there_has_to_pass_and_one_that_is_not_is_named(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], results: dict[str, str | None], code: int
) -> None:
    monkeypatch.setattr(finding, "supported", lambda of: tuple(results))
    there = pathlib.Path("/python")
    monkeypatch.setattr(finding, "find", lambda version: (there if results[version] else None, "none"))
    monkeypatch.setattr(program, "_try", lambda version, path, requirements: results[version])
    assert program.main() == code
    told = capsys.readouterr().out
    for version, result in results.items():
        assert f"{version}  {result or 'skipped: none'}" in told
