"""A development cluster: a real Kubernetes control plane whose pods are local processes.

etcd, kube-apiserver, kube-controller-manager and kube-scheduler are the real programs. Only the node is a stand-in:
a small kubelet registers Node objects and runs what the real scheduler bound to them as processes of this machine.
Everything listens on the loopback range, in one folder, and ends with the process that started it.

    with devcluster.DevCluster(nodes=3) as cluster:
        cluster.kubectl("get", "nodes")

Linux only: all of 127.0.0.0/8 must be loopback, and processes are found through /proc.
"""

import importlib
import typing

if typing.TYPE_CHECKING:
    from devcluster.facade import DevCluster as DevCluster
    from devcluster.facade import PodProcess as PodProcess
    from devcluster.waiting import WaitTimeout as WaitTimeout
    from devcluster.waiting import wait_for as wait_for

_HOMES = {
    "DevCluster": "devcluster.facade",
    "PodProcess": "devcluster.facade",
    "WaitTimeout": "devcluster.waiting",
    "wait_for": "devcluster.waiting",
}


def __getattr__(name: str) -> object:
    """Import when asked for: `python -m devcluster.binaries` then finds its module not yet imported."""
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(_HOMES[name]), name)
