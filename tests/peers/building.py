"""Programs of other projects that the tests run, built from Go modules once, into the per-user cache."""
import hashlib
import os
import pathlib
import sys
import tempfile
from collections.abc import Callable, Mapping

from devcluster import binaries

Finish = Callable[[str, pathlib.Path, dict[str, str]], None]
"""What else goes into the folder: called with go, the folder and the environment."""


def find(
    source: pathlib.Path, *, package: str, progress: binaries.Progress, environ: Mapping[str, str] = os.environ,
    finish: Finish = lambda go, folder, environment: None,
) -> pathlib.Path:
    """
    The folder of the programs that ``package`` of the module in ``source`` stands for; they are built if need be.

    Raises :class:`binaries.BinariesError`.
    """
    files = sorted(item for item in source.iterdir() if item.suffix in (".go", ".mod", ".sum"))
    digest = hashlib.sha256(b"".join(item.read_bytes() for item in files))
    root = binaries.cache_folder(environ).parent
    built = root / f"{source.name}-{digest.hexdigest()[:16]}"
    if built.exists():
        return built
    root.mkdir(parents=True, exist_ok=True)
    with binaries.locked(root / f"{source.name}.lock", progress):
        if not built.exists():
            go = binaries.find_go(root, progress, environ)
            environment = {**environ, "GOTOOLCHAIN": "local", "GOFLAGS": "", "GOWORK": "off"}
            with tempfile.TemporaryDirectory(dir=root) as partial:
                folder = pathlib.Path(partial) / source.name
                folder.mkdir()
                packages = binaries.run_with_progress(
                    [go, "list", "-deps", package], f"fetching the modules of {source.name}", progress, environment,
                    cwd=source)
                binaries.run_with_progress(
                    [go, "build", "-v", "-trimpath", "-ldflags", "-s -w", "-o", f"{folder}/", package],
                    f"building {source.name}", progress, environment, cwd=source, steps=len(packages))
                finish(go, folder, environment)
                folder.rename(built)
    return built


def say(line: str) -> None:
    """Progress on the standard error."""
    print(line, file=sys.stderr, flush=True)
