"""Logging in, by several operators in one process."""
import base64
import logging
import pathlib
import sys
import threading
from collections.abc import Iterator
from concurrent import futures

import kopf
import pytest
import yaml

from steadyhook.cluster import embedding

OPERATORS = 4
TIMES = 100


@pytest.fixture
def switching() -> Iterator[None]:
    """Threads that take turns as often as they can."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(before)


def test_operators_that_log_in_at_once_all_find_whole_files(
    switching: None, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch,
) -> None:
    kubeconfig = tmp_path / "kubeconfig"
    # Read when the library is imported, which it may have been.
    monkeypatch.setattr("kubernetes.config.kube_config.KUBE_CONFIG_DEFAULT_LOCATION", str(kubeconfig))
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    together = threading.Barrier(OPERATORS)

    def read_ca(_: int) -> bytes:
        together.wait()
        information = embedding.login(logger=logging.getLogger(), settings=kopf.OperatorSettings())
        assert information is not None
        assert isinstance(information.ca_path, str)
        return pathlib.Path(information.ca_path).read_bytes()

    with futures.ThreadPoolExecutor(OPERATORS) as threads:
        for number in range(TIMES):
            authority = f"CA {number}".encode()
            kubeconfig.write_text(yaml.safe_dump({
                "current-context": "main", "users": [{"name": "main", "user": {"token": "none"}}],
                "contexts": [{"name": "main", "context": {"cluster": "main", "user": "main"}}],
                "clusters": [{"name": "main", "cluster": {
                    "server": "https://127.0.0.1:1",
                    "certificate-authority-data": base64.b64encode(authority).decode()}}]}))
            assert set(threads.map(read_ca, range(OPERATORS))) == {authority}
