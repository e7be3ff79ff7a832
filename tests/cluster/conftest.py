"""Fixtures for what only a real API server can answer."""
import pathlib
from collections.abc import Iterator

import pytest

from cluster import issuers
from devcluster import facade


@pytest.fixture
def issuer(
    devcluster: facade.DevCluster, definitions: None, namespace: str, tmp_path: pathlib.Path,
    monkeypatch: pytest.MonkeyPatch,
) -> Iterator[issuers.Issuer]:
    """An issuer without any rights, whose home is the test's namespace."""
    made = issuers.Issuer(devcluster, namespace, tmp_path)
    # Read when the library is imported, which it may have been.
    monkeypatch.setattr("kubernetes.aio.config.kube_config.KUBE_CONFIG_DEFAULT_LOCATION", str(made.kubeconfig))
    yield made
    made.close()
