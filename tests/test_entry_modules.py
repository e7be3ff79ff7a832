"""The entry modules as processes of their own: what they say of wrong settings, and what they leave behind."""
import json
import os
import pathlib
import signal
import socket
import subprocess
import sys
import time
import urllib.request

import pytest

from serving import support
from steadyhook import settings

MODULES = ["manager", "issuer", "server"]
TREE = pathlib.Path(__file__).parents[1]


def environment(folder: pathlib.Path, **changes: str) -> dict[str, str]:
    """Without any namespace, and with an API server where nobody listens."""
    kubeconfig = folder / "kubeconfig"
    kubeconfig.write_text(json.dumps({
        "apiVersion": "v1", "kind": "Config", "current-context": "a",
        "contexts": [{"name": "a", "context": {"cluster": "a", "user": "a"}}],
        "clusters": [{"name": "a", "cluster": {"server": "http://127.0.0.1:1"}}],
        "users": [{"name": "a", "user": {"token": "a"}}]}))
    return {"PATH": os.environ["PATH"], "HOME": str(folder), "PYTHONPATH": f"{TREE / 'operator'}:{TREE / 'tests'}",
            "KUBECONFIG": str(kubeconfig), **changes}


def command(module: str, *options: str) -> list[str]:
    return [sys.executable, "-m", "kopf", "run", "-m", f"steadyhook.{module}", *options]


@pytest.mark.parametrize("module", MODULES)
@pytest.mark.parametrize(("options", "changes", "expected"), [
    pytest.param([], {}, "the namespace is not known; give kopf --namespace=NAMESPACE, or set POD_NAMESPACE by the"
                         " downward API", id="no namespace"),
    pytest.param(["-n", "ns"], {"STEADYHOOK_MAX_CONNECTIONS": "1"},
                 "STEADYHOOK_MAX_CONNECTIONS is '1', expected a whole number from 16 to 4096; leave it out for the"
                 " default of 256", id="a number out of range"),
])
def test_wrong_settings_end_it_with_one_line_and_code_2(
    tmp_path: pathlib.Path, module: str, options: list[str], changes: dict[str, str], expected: str,
) -> None:
    ended = subprocess.run(command(module, *options), env=environment(tmp_path, **changes), capture_output=True,
                           text=True, timeout=60)
    assert (ended.returncode, ended.stderr, ended.stdout) == (2, f"Error: {expected}\n", "")


def test_an_import_by_something_else_than_kopf_s_command_line_checks_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STEADYHOOK_SEATS", "none")
    settings.check_command_line()


def wait_until_healthy(process: subprocess.Popen[bytes], port: int, log: pathlib.Path) -> None:
    ends_at = time.monotonic() + 60
    while True:
        assert process.poll() is None and time.monotonic() < ends_at, log.read_text()
        try:
            with urllib.request.urlopen(f"http://{support.HOST}:{port}/healthz", timeout=5):
                return
        except OSError:
            time.sleep(0.1)


def dumps_core(process: subprocess.Popen[bytes]) -> bool:
    """Whether the process, ended as by a crash, leaves a core dump."""
    process.send_signal(signal.SIGABRT)
    _, status = os.waitpid(process.pid, 0)
    process.returncode = -signal.SIGABRT
    assert os.WTERMSIG(status) == signal.SIGABRT
    return os.WCOREDUMP(status)


WITH_CORES = ["prlimit", "--core=unlimited"]


@pytest.mark.parametrize("module", MODULES)
def test_a_process_that_crashes_leaves_no_core_dump_with_its_keys(tmp_path: pathlib.Path, module: str) -> None:
    with socket.socket() as probe:
        probe.bind((support.HOST, 0))
        port = probe.getsockname()[1]
    process_environment = environment(
        tmp_path, STEADYHOOK_HEALTH_PORT=str(port), STEADYHOOK_LISTEN_ADDRESS=support.HOST)
    log = tmp_path / "log"
    with log.open("wb") as output:
        process = subprocess.Popen([*WITH_CORES, *command(module, "-n", "ns")], cwd=tmp_path, env=process_environment,
                                   stdout=output, stderr=output)
    try:
        wait_until_healthy(process, port, log)
        limits = pathlib.Path(f"/proc/{process.pid}/limits").read_text()
        assert [line.split()[4:6] for line in limits.splitlines() if line.startswith("Max core file")] == [["0", "0"]]
        assert not dumps_core(process)
    finally:
        if process.returncode is None:
            process.kill()
            process.wait()


def test_any_other_process_leaves_one_or_else_this_proves_nothing(tmp_path: pathlib.Path) -> None:
    with subprocess.Popen([*WITH_CORES, sys.executable, "-c", "print(1, flush=True); input()"], cwd=tmp_path,
                          stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.readline()
        if not dumps_core(process):
            pytest.skip("this machine makes no core dumps")


def test_an_undumpable_process_of_a_plain_user_still_gets_its_keys_to_openssl(tmp_path: pathlib.Path) -> None:
    certificate, key = support.Authority().issue()
    (tmp_path / "pair.json").write_text(json.dumps([certificate.decode(), key.decode()]))
    code = f"""
import ctypes, json, os
from steadyhook import hardening
from steadyhook.serving import tls
certificate, key = json.load(open({str(tmp_path / "pair.json")!r}))
if os.getuid() == 0:
    os.setresuid(65532, 65532, 65532)
hardening.protect()
tls.context_from_pem(certificate.encode(), key.encode())
print(ctypes.CDLL(None).prctl(3, 0, 0, 0, 0))  # PR_GET_DUMPABLE
"""
    ended = subprocess.run([sys.executable, "-c", code], env=environment(tmp_path), capture_output=True, text=True,
                           timeout=60)
    assert (ended.returncode, ended.stdout) == (0, "0\n"), ended.stderr
