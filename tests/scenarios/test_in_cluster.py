"""Pods with the credentials of real pods, in a cluster without DNS: the API server is known by its address alone."""
import pathlib
import socket

import pytest

from devcluster import mounting
from scenarios.conftest import Install

pytestmark = pytest.mark.cluster


@pytest.mark.parametrize("layout", ["manager", "split"])
def test_all_serve_without_the_clusters_dns(install: Install, layout: str) -> None:
    if hindrance := mounting.hindrance():
        pytest.skip(hindrance)
    with pytest.raises(socket.gaierror):
        socket.getaddrinfo("kubernetes.default.svc", 443)
    installed = install(layout=layout, in_cluster=True)
    installed.wait_serving()
    installed.wait_ready()
    assert installed.admit("3")["metadata"]["labels"] == {"steadyhook.io/admitted": "true"}
    for pod in installed.pods():
        environment = pathlib.Path(f"/proc/{pod.pid}/environ").read_bytes()
        assert b"KUBECONFIG=" not in environment
        assert b"KUBERNETES_SERVICE_HOST=127.0.0.1" in environment
