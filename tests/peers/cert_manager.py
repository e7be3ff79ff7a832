"""The real cert-manager: its controller, which issues, and its cainjector, as two processes of this machine."""
import contextlib
import json
import os
import pathlib
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from typing import Any

import yaml

from devcluster import addresses, binaries, facade
from peers import building

MODULE = "github.com/cert-manager/cert-manager"
SOURCE = pathlib.Path(__file__).parent / "certmanager"
GROUP = "/apis/cert-manager.io/v1"
ANNOTATION = "cert-manager.io/inject-ca-from"
DEFINITIONS = "crds"
STOP_SECONDS = 20

JsonObject = dict[str, Any]


def find(progress: binaries.Progress) -> pathlib.Path:
    """The folder of both programs and of cert-manager's definitions."""
    return building.find(SOURCE, package="tool", progress=progress, finish=_copy_definitions)


def _copy_definitions(go: str, folder: pathlib.Path, environment: dict[str, str]) -> None:
    """They are files of the module."""
    answer = subprocess.run([go, "mod", "download", "-json", MODULE], cwd=SOURCE, env=environment, check=True,
                            capture_output=True, text=True)
    # Without an argument's version `go mod download` takes that of go.mod.
    shutil.copytree(pathlib.Path(json.loads(answer.stdout)["Dir"]) / "deploy" / "crds", folder / DEFINITIONS)


@contextlib.contextmanager
def running(cluster: facade.DevCluster) -> Iterator[None]:
    """cert-manager in the whole cluster, its definitions established; they stay."""
    folder = find(building.say)
    _define(cluster, folder / DEFINITIONS)
    metrics = addresses.free_ports(1)[0]
    common = [f"--kubeconfig={cluster.kubeconfig}", "--leader-elect=false"]
    with contextlib.ExitStack() as stack:
        stack.enter_context(_process([str(folder / "controller"), *common, "--enable-certificate-owner-ref=false",
                                      f"--metrics-listen-address=127.0.0.1:{metrics}"], cluster))
        stack.enter_context(_process([str(folder / "cainjector"), *common], cluster))
        yield


def certificate(namespace: str, *, secret: str, name: str) -> list[JsonObject]:
    """A Certificate for a DNS name, signed by a CA of its namespace, which signs itself."""
    def manifest(kind: str, called: str, spec: JsonObject) -> JsonObject:
        return {"apiVersion": "cert-manager.io/v1", "kind": kind, "spec": spec,
                "metadata": {"name": called, "namespace": namespace}}

    return [
        manifest("Issuer", "itself", {"selfSigned": {}}),
        manifest("Certificate", "root", {"isCA": True, "commonName": "root", "secretName": "root",
                                         "issuerRef": {"name": "itself"}}),
        manifest("Issuer", "root", {"ca": {"secretName": "root"}}),
        manifest("Certificate", secret, {"dnsNames": [name], "secretName": secret, "issuerRef": {"name": "root"}}),
    ]


def _define(cluster: facade.DevCluster, folder: pathlib.Path) -> None:
    names = []
    for path in sorted(folder.glob("*.yaml")):
        for definition in yaml.safe_load_all(path.read_text()):
            definition["metadata"] = {"name": definition["metadata"]["name"]}  # its labels are Helm's templates
            names.append(f"crd/{definition['metadata']['name']}")
            cluster.kubectl("apply", "--server-side", "-f", "-", input=yaml.safe_dump(definition))
    cluster.kubectl("wait", "--for=condition=Established", "--timeout=30s", *names)


@contextlib.contextmanager
def _process(command: list[str], cluster: facade.DevCluster) -> Iterator[None]:
    with tempfile.TemporaryFile(mode="w+") as log:
        process = subprocess.Popen(command, env={**os.environ, **cluster.env()}, stdin=subprocess.DEVNULL, stdout=log,
                                   stderr=log)
        try:
            yield
        finally:
            process.terminate()
            try:
                process.wait(STOP_SECONDS)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
            log.seek(0)
            print(f"--- {pathlib.Path(command[0]).name}, exit code {process.returncode}\n{log.read()[-3000:]}")
