"""Which Pythons are supported, by pyproject.toml, and where this machine has them."""
import os
import pathlib
import re
import shutil
import subprocess
import tomllib
from collections.abc import Iterator, Mapping
from typing import Any

Project = dict[str, Any]

_CLASSIFIER = re.compile(r"Programming Language :: Python :: (3\.\d+)")
# A venv needs pip (Debian ships it apart), and a Python that was built without ssl or sqlite3 is not what users have.
_PROBE = "import ensurepip, ssl, sqlite3, venv, sys; print('%d.%d' % sys.version_info[:2])"
_PROBE_SECONDS = 30


def project(root: pathlib.Path) -> Project:
    """The content of pyproject.toml."""
    return tomllib.loads((root / "pyproject.toml").read_text())


def supported(of: Project) -> tuple[str, ...]:
    """The versions that the classifiers name, such as "3.13", oldest first."""
    found = [match[1] for line in of["project"]["classifiers"] if (match := _CLASSIFIER.fullmatch(line))]
    return tuple(sorted(found, key=lambda version: int(version.partition(".")[2])))


def requirements(of: Project) -> tuple[str, ...]:
    """What the program and its tests need."""
    return (*of["project"]["dependencies"], *of["project"]["optional-dependencies"]["dev"])


def find(version: str, environ: Mapping[str, str] = os.environ) -> tuple[pathlib.Path | None, str]:
    """An interpreter of this version that can make a venv, or None; and what was tried, in words."""
    tried = []
    for path in dict.fromkeys(_candidates(version, environ)):
        try:
            done = subprocess.run([path, "-c", _PROBE], capture_output=True, text=True, timeout=_PROBE_SECONDS,
                                  check=False, env=dict(environ))
        except (OSError, subprocess.TimeoutExpired) as error:
            tried.append(f"{path}: {error}")
            continue
        if done.returncode == 0 and done.stdout.strip() == version:
            return path, str(path)
        said = (done.stderr.strip() or done.stdout.strip() or "no answer").splitlines()[-1]
        tried.append(f"{path}: {said}")
    return None, "; ".join(tried) or f"there is no python{version} on the PATH, in pyenv or in uv"


def _candidates(version: str, environ: Mapping[str, str]) -> Iterator[pathlib.Path]:
    home = pathlib.Path(environ.get("HOME") or os.path.expanduser("~"))
    pyenv = pathlib.Path(environ.get("PYENV_ROOT") or home / ".pyenv")
    uv = pathlib.Path(environ.get("UV_PYTHON_INSTALL_DIR") or home / ".local/share/uv/python")
    for folder, pattern in ((pyenv / "versions", f"{version}.*"), (uv, f"cpython-{version}.*")):
        for found in sorted(folder.glob(pattern), key=_release, reverse=True):
            if (found / "bin" / "python3").exists():
                yield found / "bin" / "python3"
    for each in (environ.get("PATH") or os.defpath).split(os.pathsep):
        if (on_path := shutil.which(f"python{version}", path=each)) is not None:
            yield pathlib.Path(on_path)


def _release(folder: pathlib.Path) -> tuple[int, ...]:
    """The numbers of a version in a folder's name, for the newest one first."""
    return tuple(int(number) for number in re.findall(r"\d+", folder.name))
