"""A pod of a test: contends for its namespace's Secret under its node's name, and listens once it is ready."""
import os
import socket
import time

from steadyhook.cli import cluster, contending

PORT = 8000
AGAIN_SECONDS = 0.5


def main() -> None:
    namespace = os.environ["POD_NAMESPACE"]
    found = cluster.Cluster(kubeconfig=None, context=None, namespace=namespace)
    writer = contending.Writer(found, os.environ["NODE_NAME"], contending.new_authority(namespace))
    while True:
        try:
            if writer.attempt() is contending.Outcome.READY:
                break
        except cluster.Failed as error:
            print(error, flush=True)
            time.sleep(AGAIN_SECONDS)
    with socket.create_server((os.environ["STEADYHOOK_LISTEN_ADDRESS"], PORT)) as server:
        while True:
            server.accept()[0].close()


if __name__ == "__main__":
    main()
