"""`python -m devcluster [--nodes N] [COMMAND ...]`: a development cluster until Ctrl-C, or until the command ends."""

import argparse
import os
import signal
import subprocess
import sys
import time

from devcluster import binaries, components, facade


def main() -> int:
    """Start the cluster, say how to use it, and wait for SIGINT, SIGTERM or SIGHUP."""
    parser = argparse.ArgumentParser(prog="python -m devcluster", description=__doc__)
    parser.add_argument("--nodes", type=int, default=3, help="how many nodes to register (default: %(default)s)")
    parser.add_argument("command", nargs=argparse.REMAINDER, help="run this in the cluster's environment, then end")
    arguments = parser.parse_args()
    signal.signal(signal.SIGTERM, _interrupt)
    signal.signal(signal.SIGHUP, _interrupt)
    began = time.monotonic()

    def say(line: str) -> None:
        print(f"[{time.monotonic() - began:5.1f} s] {line}", file=sys.stderr, flush=True)

    cluster = facade.DevCluster(nodes=arguments.nodes, progress=say)
    try:
        cluster.start()
        if arguments.command:
            return subprocess.run(arguments.command, env={**os.environ, **cluster.env()}, check=False).returncode
        _print_usage(cluster)
        while True:
            signal.pause()
    except KeyboardInterrupt:
        say("stopping")
        return 0
    except (binaries.BinariesError, components.ControlPlaneError) as error:
        print(error, file=sys.stderr)
        return 1
    finally:
        # A second Ctrl-C must not leave half a cluster behind.
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        cluster.stop()


def _print_usage(cluster: facade.DevCluster) -> None:
    kubectl_folder = cluster.env()["PATH"].split(":", 1)[0]
    print(f"export KUBECONFIG={cluster.kubeconfig}")
    print(f"export PATH={kubectl_folder}:$PATH   # kubectl of the cluster's version")
    print(f"logs:      {cluster.logs}")
    print(f"audit log: {cluster.audit.path}")
    print("Ctrl-C ends it and removes everything.", flush=True)


def _interrupt(number: int, frame: object) -> None:
    raise KeyboardInterrupt


if __name__ == "__main__":
    sys.exit(main())
