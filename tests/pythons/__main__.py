"""`python -m pythons [PYTEST ARGUMENTS]`: the tests that need no cluster, on every supported Python of this machine.

Each has a venv in the per-user cache with the versions of constraints.txt. A Python that is not there is skipped, and
named. Exit code 1 if one that is there fails, or if there is none.
"""
import hashlib
import os
import pathlib
import shutil
import subprocess
import sys
import tempfile
import time

from devcluster import binaries
from pythons import finding

ROOT = pathlib.Path(__file__).parents[2]
ARGUMENTS = ("-m", "not cluster", "-q", "--durations=0", "--durations-min=30")


def main() -> int:
    """Run them one after the other, and say at the end how each went."""
    project = finding.project(ROOT)
    results = {}
    for version in finding.supported(project):
        path, said = finding.find(version)
        results[version] = f"skipped: {said}" if path is None else _try(version, path, finding.requirements(project))
    print("\nThe tests that need no cluster, on each supported Python:")
    for version, result in results.items():
        print(f"  {version}  {result}")
    sys.stdout.flush()
    ran = [result for result in results.values() if not result.startswith("skipped")]
    return 0 if ran and all(result.startswith("passed") for result in ran) else 1


def _try(version: str, path: pathlib.Path, requirements: tuple[str, ...]) -> str:
    print(f"\n== Python {version}: {path}", flush=True)
    began = time.monotonic()
    try:
        python = _venv(version, path, requirements)
    except subprocess.CalledProcessError as error:
        return f"FAILED: no venv could be made: {' '.join(map(str, error.cmd[:6]))} exited with {error.returncode}"
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join((str(ROOT / "operator"), str(ROOT / "tests")))}
    code = subprocess.run([python, "-m", "pytest", *ARGUMENTS, *sys.argv[1:]], cwd=ROOT, env=environment,
                          check=False).returncode
    result = "passed" if code == 0 else f"FAILED: pytest exited with {code}"
    return f"{result} ({time.monotonic() - began:.0f} s, {path})"


def _venv(version: str, path: pathlib.Path, requirements: tuple[str, ...]) -> pathlib.Path:
    """The Python of a venv with what the tests need; made once for each set of versions."""
    constraints = ROOT / "constraints.txt"
    digest = hashlib.sha256("\n".join((*requirements, constraints.read_text(), str(path))).encode()).hexdigest()[:16]
    cache = binaries.cache_folder().parent
    cache.mkdir(parents=True, exist_ok=True)
    folder = cache / f"python-{version}-{digest}"
    with binaries.locked(cache / f"python-{version}.lock", print):
        if not (folder / ".complete").exists():
            print(f"making a venv in {folder}", flush=True)
            shutil.rmtree(folder, ignore_errors=True)
            try:
                subprocess.run([path, "-m", "venv", folder], check=True)
                with tempfile.NamedTemporaryFile("w", suffix=".txt") as file:
                    file.write("\n".join(requirements))
                    file.flush()
                    subprocess.run([folder / "bin" / "pip", "install", "--quiet", "--disable-pip-version-check",
                                    "--constraint", constraints, "--requirement", file.name], check=True)
            except BaseException:
                shutil.rmtree(folder, ignore_errors=True)
                raise
            (folder / ".complete").touch()
    return folder / "bin" / "python"


if __name__ == "__main__":
    sys.exit(main())
