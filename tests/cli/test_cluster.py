"""The command line's credentials: where they are, and what is left of them."""
import contextlib
import datetime
import email.utils
import http.server
import json
import os
import pathlib
import signal
import socket
import ssl
import subprocess
import sys
import threading
from collections.abc import Iterator

import pytest

from devcluster import certificates
from steadyhook.cli import cluster

SECONDS = 30
AUTHORITY = certificates.Authority("ca")
ADMIN = AUTHORITY.issue("admin")


class WhoAmI(http.server.BaseHTTPRequestHandler):
    """Answers with the name in the client's certificate."""

    def do_GET(self) -> None:
        subject = dict(part for (part,) in self.connection.getpeercert()["subject"])  # type: ignore[attr-defined]
        body = json.dumps({"name": subject["commonName"]}).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        pass


def kubeconfig(folder: pathlib.Path, port: int) -> str:
    path = folder / "kubeconfig"
    certificates.write_kubeconfig(path, server=f"https://127.0.0.1:{port}", ca_pem=AUTHORITY.pem, client=ADMIN)
    return str(path)


@pytest.fixture
def api(tmp_path: pathlib.Path) -> Iterator[int]:
    """The port of a server that asks for a client certificate."""
    pair = tmp_path / "server.pem"
    pair.write_bytes(b"".join(AUTHORITY.issue("server", server_names=("127.0.0.1",))))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(pair)
    context.load_verify_locations(cadata=AUTHORITY.pem.decode())
    context.verify_mode = ssl.CERT_REQUIRED
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), WhoAmI) as server:
        server.socket = context.wrap_socket(server.socket, server_side=True)
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield server.server_address[1]
        server.shutdown()
        thread.join()


def test_what_a_kubeconfig_holds_is_used_without_a_file(
    api: int, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    temporary = tmp_path / "temporary"
    temporary.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(temporary))
    found = cluster.Cluster(kubeconfig=kubeconfig(tmp_path, api), context=None, namespace=None)
    assert found.get("/api/v1/me") == {"name": "admin"}
    assert list(temporary.iterdir()) == []


def test_many_connections_of_one_cluster_share_what_is_in_memory(api: int, tmp_path: pathlib.Path) -> None:
    found = cluster.Cluster(kubeconfig=kubeconfig(tmp_path, api), context=None, namespace=None)
    before = len(os.listdir("/proc/self/fd"))
    others = [found.again("other") for _ in range(20)]
    assert len(os.listdir("/proc/self/fd")) == before
    del found
    assert others[-1].get("/api/v1/me") == {"name": "admin"}


def test_a_context_that_is_not_there_is_named_with_those_that_are(tmp_path: pathlib.Path) -> None:
    with pytest.raises(cluster.Failed, match="has no context 'other', expected one of: devcluster; give another one"):
        cluster.Cluster(kubeconfig=kubeconfig(tmp_path, 1), context="other", namespace=None)


@contextlib.contextmanager
def silent() -> Iterator[socket.socket]:
    """A server that takes connections and says nothing."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        listener.settimeout(SECONDS)
        yield listener


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_no_key_is_left_behind_however_the_command_ends(tmp_path: pathlib.Path, number: signal.Signals) -> None:
    temporary = tmp_path / "temporary"
    temporary.mkdir()
    with silent() as listener:
        command = [sys.executable, "-m", "steadyhook.cli", "status", "--kubeconfig",
                   kubeconfig(tmp_path, listener.getsockname()[1])]
        environment = {**os.environ, "TMPDIR": str(temporary), "PYTHONPATH": os.pathsep.join(sys.path)}
        with subprocess.Popen(command, env=environment, stderr=subprocess.DEVNULL) as process:
            connection, _ = listener.accept()
            with connection:
                process.send_signal(number)
                process.wait(SECONDS)
    assert list(temporary.iterdir()) == []


# ---- the clock ----

DATE = "Tue, 01 Jan 2030 12:00:00 GMT"
NOON = datetime.datetime(2030, 1, 1, 12, 0, tzinfo=datetime.UTC)


@pytest.mark.parametrize("date", [None, "", "yesterday", "\x00"])
def test_without_a_date_nothing_is_known_of_the_clock(date: str | None) -> None:
    assert cluster.ahead(date, NOON) is None


def test_the_clock_is_compared_with_the_middle_of_the_second_that_a_date_means() -> None:
    assert cluster.ahead(DATE, NOON + datetime.timedelta(seconds=60.5)) == datetime.timedelta(seconds=60)
    assert cluster.ahead(DATE, NOON - datetime.timedelta(seconds=59.5)) == datetime.timedelta(seconds=-60)


@pytest.mark.parametrize(("ahead_seconds", "differs"), [(600, True), (-600, True), (0, False)])
def test_times_are_judged_by_the_api_servers_clock(
    api: int, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch, ahead_seconds: int, differs: bool
) -> None:
    there = datetime.timedelta(seconds=-ahead_seconds)
    monkeypatch.setattr(WhoAmI, "date_time_string", lambda self: email.utils.format_datetime(
        datetime.datetime.now(datetime.UTC) + there, usegmt=True))
    found = cluster.Cluster(kubeconfig=kubeconfig(tmp_path, api), context=None, namespace=None)
    assert found.clock_ahead is None
    found.get("/api/v1/me")
    ahead = found.clock_ahead
    assert ahead is not None
    assert abs(ahead - datetime.timedelta(seconds=ahead_seconds)) < cluster.CLOCK_DIFFERS
    assert (abs(ahead) >= cluster.CLOCK_DIFFERS) is differs
    assert abs(found.now() - (datetime.datetime.now(datetime.UTC) + there)) < cluster.CLOCK_DIFFERS
