"""The control plane: etcd, kube-apiserver, kube-controller-manager and kube-scheduler, with their files and flags."""

import dataclasses
import http.client
import json
import os
import pathlib
import ssl
import time

from devcluster import addresses, certificates, processes

ADMIN = "devcluster-admin"
STARTUP_SECONDS = 90.0
_ATTEMPTS = 4

_CONTROLLERS = (
    "deployment",
    "replicaset",
    "daemonset",
    "statefulset",
    "endpointslice",
    "garbage-collector",
    "namespace",
    "serviceaccount",
    "serviceaccount-token",
    "root-ca-certificate-publisher",
    "disruption",
)


class ControlPlaneError(RuntimeError):
    """A program of the control plane did not start."""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Files:
    """Where the control plane keeps its things, all in the cluster's folder."""

    folder: pathlib.Path

    @property
    def pki(self) -> pathlib.Path:
        return self.folder / "pki"

    @property
    def logs(self) -> pathlib.Path:
        return self.folder / "logs"

    @property
    def audit_log(self) -> pathlib.Path:
        return self.folder / "audit.log"

    @property
    def egress_socket(self) -> pathlib.Path:
        return self.folder / "egress.sock"

    @property
    def admin_kubeconfig(self) -> pathlib.Path:
        return self.folder / "admin.kubeconfig"


class ControlPlane:
    """The four programs. `start` leaves them running and ready; ending them is the watchdog's work."""

    def __init__(self, files: Files, binaries: dict[str, pathlib.Path], environment: dict[str, str]) -> None:
        self.files = files
        self._binaries = binaries
        self._environment = environment
        self._authority = certificates.Authority("devcluster-ca")
        self._front_proxy = certificates.Authority("devcluster-front-proxy-ca")
        self.admin_client = self._authority.issue(ADMIN, organization="system:masters")
        # The kubelet acts for all nodes at once, which no Node authorizer would allow.
        self.kubelet_client = self._authority.issue("devcluster-kubelet", organization="system:masters")
        self.port = 0
        self.etcd: processes.Program
        self.apiserver: processes.Program
        self.controller_manager: processes.Program
        self.scheduler: processes.Program

    @property
    def ca_pem(self) -> bytes:
        """The CA of the API server's certificate and of the clients' certificates."""
        return self._authority.pem

    @property
    def server(self) -> str:
        """The URL of the API server."""
        return f"https://127.0.0.1:{self.port}"

    def issue_server_certificate(self, *names: str) -> tuple[bytes, bytes]:
        """A certificate and key by the cluster's CA, for a server that the API server calls."""
        return self._authority.issue(names[0], server_names=names)

    def programs(self) -> tuple[processes.Program, ...]:
        """In the order of their start."""
        return self.etcd, self.apiserver, self.controller_manager, self.scheduler

    def start(self) -> None:
        """Start everything and wait until it is ready. Raises `ControlPlaneError` with the end of a log."""
        self.files.pki.mkdir()
        self.files.logs.mkdir()
        self._write_files()
        for attempt in range(1, _ATTEMPTS + 1):
            self._choose_ports()
            self.etcd.start()
            self.apiserver.start()
            try:
                self.wait_ready()
                break
            except ControlPlaneError as error:
                self.apiserver.kill()
                self.etcd.kill()
                # Somebody else took a port between its choice and its use: choose others.
                if attempt == _ATTEMPTS or "address already in use" not in str(error):
                    raise
        self.controller_manager.start()
        self.scheduler.start()

    def wait_ready(self, timeout: float = STARTUP_SECONDS) -> None:
        """Wait until the API server says that it is ready."""
        deadline = time.monotonic() + timeout
        answer = ""
        while time.monotonic() < deadline:
            for program in (self.etcd, self.apiserver):
                if program.exit_code() is not None:
                    raise ControlPlaneError(
                        f"{program.name} exited with {program.exit_code()}; its log ends:\n{program.log_tail()}"
                    )
            status, answer = self.probe("/readyz")
            if status == 200:
                return
            time.sleep(0.05)
        raise ControlPlaneError(
            f"kube-apiserver was not ready after {timeout:g} s; /readyz said: {answer.strip()[-300:]}; "
            f"its log ends:\n{self.apiserver.log_tail()}"
        )

    def probe(self, path: str) -> tuple[int, str]:
        """GET a path as the admin; return the status, or 0 where there is no connection, and the body."""
        context = ssl.create_default_context(cadata=self.ca_pem.decode())
        context.load_cert_chain(self.files.pki / "admin.crt", self.files.pki / "admin.key")
        connection = http.client.HTTPSConnection("127.0.0.1", self.port, timeout=5, context=context)
        try:
            connection.request("GET", path)
            response = connection.getresponse()
            return response.status, response.read().decode(errors="replace")
        except (OSError, http.client.HTTPException) as error:
            return 0, str(error)
        finally:
            connection.close()

    def _write_files(self) -> None:
        pki = self.files.pki
        server = self._authority.issue(
            "kube-apiserver",
            server_names=(
                "127.0.0.1",
                "localhost",
                "kubernetes",
                "kubernetes.default",
                "kubernetes.default.svc",
                "kubernetes.default.svc.cluster.local",
                "10.96.0.1",
            ),
        )
        _write_pair(pki / "apiserver", server)
        _write_pair(pki / "admin", self.admin_client)
        _write_pair(pki / "kubelet", self.kubelet_client)
        _write_pair(pki / "front-proxy-client", self._front_proxy.issue("front-proxy-client"))
        _write_pair(pki / "service-account", certificates.signing_key()[::-1])
        _write(pki / "ca.crt", self.ca_pem)
        _write(pki / "front-proxy-ca.crt", self._front_proxy.pem)
        policy = pathlib.Path(__file__).with_name("audit_policy.json").read_bytes()
        _write(self.files.folder / "audit-policy.json", policy)
        _write(self.files.folder / "egress.json", json.dumps(_egress(self.files.egress_socket)).encode())

    def _choose_ports(self) -> None:
        client_port, peer_port, self.port = addresses.free_ports(3)
        self.etcd = self._program("etcd", self._etcd_flags(client_port, peer_port))
        self.apiserver = self._program("kube-apiserver", self._apiserver_flags(client_port))
        self._write_kubeconfigs()
        kubeconfigs = self.files.folder
        common = ["--leader-elect=false", "--secure-port=0", "--kube-api-qps=500", "--kube-api-burst=1000"]
        self.controller_manager = self._program(
            "kube-controller-manager",
            [
                f"--kubeconfig={kubeconfigs / 'controller-manager.kubeconfig'}",
                f"--root-ca-file={self.files.pki / 'ca.crt'}",
                f"--service-account-private-key-file={self.files.pki / 'service-account.key'}",
                "--controllers=" + ",".join(f"{name}-controller" for name in _CONTROLLERS),
                *common,
            ],
        )
        self.scheduler = self._program(
            "kube-scheduler", [f"--kubeconfig={kubeconfigs / 'scheduler.kubeconfig'}", *common]
        )

    def _program(self, name: str, flags: list[str]) -> processes.Program:
        command = [str(self._binaries[name]), *flags]
        return processes.Program(name, command, self.files.logs / f"{name}.log", self._environment)

    def _write_kubeconfigs(self) -> None:
        # The controller manager acts under its own name for all controllers, which RBAC's default roles do not foresee
        # (they foresee one ServiceAccount for each controller); hence system:masters.
        manager = self._authority.issue("system:kube-controller-manager", organization="system:masters")
        scheduler = self._authority.issue("system:kube-scheduler")
        for name, client in (
            ("admin", self.admin_client),
            ("controller-manager", manager),
            ("scheduler", scheduler),
        ):
            certificates.write_kubeconfig(
                self.files.folder / f"{name}.kubeconfig", server=self.server, ca_pem=self.ca_pem, client=client
            )

    def _etcd_flags(self, client_port: int, peer_port: int) -> list[str]:
        client, peer = f"http://127.0.0.1:{client_port}", f"http://127.0.0.1:{peer_port}"
        return [
            f"--data-dir={self.files.folder / 'etcd'}",
            f"--listen-client-urls={client}",
            f"--advertise-client-urls={client}",
            f"--listen-peer-urls={peer}",
            f"--initial-advertise-peer-urls={peer}",
            f"--initial-cluster=default={peer}",
            "--unsafe-no-fsync",
            "--log-level=warn",
        ]

    def _apiserver_flags(self, etcd_port: int) -> list[str]:
        pki, folder = self.files.pki, self.files.folder
        return [
            f"--etcd-servers=http://127.0.0.1:{etcd_port}",
            "--bind-address=127.0.0.1",
            f"--secure-port={self.port}",
            f"--tls-cert-file={pki / 'apiserver.crt'}",
            f"--tls-private-key-file={pki / 'apiserver.key'}",
            f"--client-ca-file={pki / 'ca.crt'}",
            "--authorization-mode=RBAC",
            "--allow-privileged=true",
            f"--service-cluster-ip-range={addresses.SERVICE_RANGE}",
            "--service-account-issuer=https://kubernetes.default.svc",
            f"--service-account-key-file={pki / 'service-account.crt'}",
            f"--service-account-signing-key-file={pki / 'service-account.key'}",
            # Endpoints of the `kubernetes` Service may not be loopback addresses, and pods do not use it.
            "--endpoint-reconciler-type=none",
            "--enable-aggregator-routing",
            f"--egress-selector-config-file={folder / 'egress.json'}",
            f"--requestheader-client-ca-file={pki / 'front-proxy-ca.crt'}",
            "--requestheader-allowed-names=front-proxy-client",
            "--requestheader-username-headers=X-Remote-User",
            "--requestheader-group-headers=X-Remote-Group",
            "--requestheader-extra-headers-prefix=X-Remote-Extra-",
            f"--proxy-client-cert-file={pki / 'front-proxy-client.crt'}",
            f"--proxy-client-key-file={pki / 'front-proxy-client.key'}",
            f"--kubelet-client-certificate={pki / 'admin.crt'}",
            f"--kubelet-client-key={pki / 'admin.key'}",
            "--kubelet-preferred-address-types=InternalIP",
            f"--audit-policy-file={folder / 'audit-policy.json'}",
            f"--audit-log-path={self.files.audit_log}",
            "--audit-log-maxsize=0",
            "--profiling=false",
        ]


def _egress(socket: pathlib.Path) -> dict[str, object]:
    """Connections to pods and nodes leave by HTTP CONNECT over a Unix socket.

    https://kubernetes.io/docs/tasks/extend-kubernetes/setup-konnectivity/ describes the file.
    """
    connection = {"proxyProtocol": "HTTPConnect", "transport": {"uds": {"udsName": str(socket)}}}
    return {
        "apiVersion": "apiserver.k8s.io/v1beta1",
        "kind": "EgressSelectorConfiguration",
        "egressSelections": [{"name": "cluster", "connection": connection}],
    }


def _write_pair(stem: pathlib.Path, pair: tuple[bytes, bytes]) -> None:
    _write(stem.with_name(f"{stem.name}.crt"), pair[0])
    _write(stem.with_name(f"{stem.name}.key"), pair[1])


def _write(path: pathlib.Path, content: bytes) -> None:
    path.touch(mode=0o600)
    path.write_bytes(content)


def base_environment(folder: pathlib.Path) -> dict[str, str]:
    """What a program of the control plane gets to see of the environment: nothing that could change what it does."""
    return {"PATH": os.environ.get("PATH", os.defpath), "HOME": str(folder), "TMPDIR": str(folder), "LANG": "C.UTF-8"}
