"""A control plane of one's own: etcd and kube-apiserver, on ports and in a folder of their own."""

import http.client
import json
import random
import secrets
import shutil
import socket
import ssl
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from apiserver.programs import programs
from lab.measure import wait_for
from lab.processes import Process, launch

READY_TIMEOUT = 60.0
"""Seconds to wait for what takes four on an idle machine."""

SERVICES = "10.0.0.0/24"
"""Where Services have their addresses, the API server's own first."""

_LOCALHOST = "127.0.0.1"
# Below the range from which the kernel takes the ports of outgoing connections: a port that is free
# stays so while a server is down.
_PORTS = range(20_000, 32_000)


@dataclass(frozen=True, slots=True)
class Site:
    """Where a control plane's programs run: beside the caller, unless `launch` starts them in a
    machine of their own.

    The caller reaches them at `address`. The API server listens on `bind`, on a free port if `port`
    is 0. Their files are in `folder`, else where temporary files are.
    """

    launch: Callable[[Sequence[str]], Process] = launch
    address: str = _LOCALHOST
    bind: str = _LOCALHOST
    port: int = 0
    folder: Path | None = None


class Cluster:
    """A context manager for one control plane without nodes and controllers.

    `url`, `token` (of a member of system:masters), `ca` (PEM file) and `kubeconfig` (file) lead to
    it; `service_account_key` (PEM file) signs the tokens of service accounts. It is made anew each
    time and nothing of it is left. Start it from the main thread.

    With `audit`, the server writes who asked for what, a JSON object a line, into `audit_log`.
    users: who else has a token, by name, with the groups of each. flags: more of the server's.
    """

    def __init__(
        self,
        *,
        audit: bool = False,
        site: Site | None = None,
        users: Mapping[str, str] | None = None,
        flags: Sequence[str] = (),
    ) -> None:
        self._site = site or Site()
        self._folder = Path(tempfile.mkdtemp(prefix="peacemaker-cluster-", dir=self._site.folder))
        self._server: Process | None = None
        self._etcd: Process | None = None
        self._port = 0
        self._etcd_port = 0
        self.token = secrets.token_hex(16)
        self.ca = self._folder / "pki" / "apiserver.crt"
        self.kubeconfig = self._folder / "kubeconfig"
        self.service_account_key = self._folder / "service-accounts.pem"
        self.audit_log = self._folder / "audit.log"
        self._audit = audit
        self._users = users or {}
        self._flags = flags
        self._tokens = {user: secrets.token_hex(16) for user in self._users}

    @property
    def url(self) -> str:
        return f"https://{self._site.address}:{self._port}"

    @property
    def etcd_url(self) -> str:
        """etcd's own, where nobody is asked who he is."""
        return f"http://{self._site.address}:{self._etcd_port}"

    def kubeconfig_of(self, user: str) -> Path:
        """The kubeconfig file of one of the other users."""
        return self._folder / f"{user.replace(':', '-')}.kubeconfig"

    def __enter__(self) -> Self:
        try:
            self._start()
        except BaseException:
            self._end()
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._end()

    def start_server(self) -> None:
        """Start the API server where it was before, and wait until it is ready."""
        server = self._site.launch([str(self._programs.kube_apiserver), *self._server_flags()])
        self._server = server

        def is_ready() -> bool:
            server.must_run()
            return self.ca.exists() and self._answers("/readyz")

        wait_for(is_ready, READY_TIMEOUT, f"the API server at {self.url} to be ready")

    def stop_server(self) -> None:
        """Kill the API server, as if its machine had lost power. What it stored stays."""
        if self._server is not None:
            self._server.stop()
            self._server = None

    def _start(self) -> None:
        self._programs = programs()
        self._write_credentials()
        self._start_etcd()
        self._port = self._site.port or _free_port()
        self._write_kubeconfig(self.kubeconfig, self.token)
        for user, token in self._tokens.items():
            self._write_kubeconfig(self.kubeconfig_of(user), token)
        self.start_server()

    def _end(self) -> None:
        self.stop_server()
        if self._etcd is not None:
            self._etcd.stop()
        shutil.rmtree(self._folder)

    def _start_etcd(self) -> None:
        self._etcd_port, peers = _free_port(), f"http://{_LOCALHOST}:{_free_port()}"
        clients = self.etcd_url
        etcd = self._site.launch(
            [
                str(self._programs.etcd),
                *("--data-dir", str(self._folder / "etcd"), "--unsafe-no-fsync"),
                *("--listen-client-urls", clients, "--advertise-client-urls", clients),
                *("--listen-peer-urls", peers, "--initial-advertise-peer-urls", peers),
                *("--initial-cluster", f"default={peers}", "--log-level", "warn"),
            ]
        )
        self._etcd = etcd

        def is_healthy() -> bool:
            etcd.must_run()
            connection = http.client.HTTPConnection(self._site.address, self._etcd_port)
            return _status(connection, "/health")

        wait_for(is_healthy, READY_TIMEOUT, f"etcd at {clients} to be healthy")

    def _server_flags(self) -> list[str]:
        key = self.service_account_key
        return [
            f"--etcd-servers={self.etcd_url}",
            f"--bind-address={self._site.bind}",
            f"--secure-port={self._port}",
            f"--cert-dir={self.ca.parent}",
            f"--token-auth-file={self._folder / 'tokens.csv'}",
            f"--service-account-key-file={key}",
            f"--service-account-signing-key-file={key}",
            "--service-account-issuer=https://kubernetes.default.svc",
            f"--service-cluster-ip-range={SERVICES}",
            "--authorization-mode=Node,RBAC",
            "--enable-admission-plugins=NodeRestriction",
            "--endpoint-reconciler-type=none",
            *(self._audit_flags() if self._audit else ()),
            *self._flags,
        ]

    def _audit_flags(self) -> list[str]:
        policy = self._folder / "audit.json"
        document = {
            "apiVersion": "audit.k8s.io/v1",
            "kind": "Policy",
            "rules": [{"level": "Metadata"}],
            "omitStages": ["RequestReceived", "ResponseStarted"],
        }
        policy.write_text(json.dumps(document))
        return [f"--audit-log-path={self.audit_log}", f"--audit-policy-file={policy}"]

    def _write_credentials(self) -> None:
        tokens = self._folder / "tokens.csv"
        rows = [f"{self.token},admin,admin,system:masters"]
        rows += [
            f'{self._tokens[user]},{user},{user},"{self._users[user]}"' for user in self._users
        ]
        tokens.write_text("\n".join(rows))
        key = ec.generate_private_key(ec.SECP256R1()).private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.TraditionalOpenSSL,
            serialization.NoEncryption(),
        )
        self.service_account_key.write_bytes(key)

    def _write_kubeconfig(self, file: Path, token: str) -> None:
        cluster = {"server": self.url, "certificate-authority": str(self.ca)}
        document = {
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [{"name": "own", "cluster": cluster}],
            "users": [{"name": "own", "user": {"token": token}}],
            "contexts": [{"name": "own", "context": {"cluster": "own", "user": "own"}}],
            "current-context": "own",
        }
        file.write_text(json.dumps(document, indent=2))

    def _answers(self, path: str) -> bool:
        try:
            context = ssl.create_default_context(cafile=str(self.ca))
        except ssl.SSLError:
            return False  # it is still writing its certificate
        connection = http.client.HTTPSConnection(self._site.address, self._port, context=context)
        return _status(connection, path, {"Authorization": f"Bearer {self.token}"})


def _status(
    connection: http.client.HTTPConnection, path: str, headers: dict[str, str] | None = None
) -> bool:
    """Whether the answer is 200; not if there is none."""
    connection.timeout = READY_TIMEOUT
    try:
        connection.request("GET", path, headers=headers or {})
        return connection.getresponse().status == http.HTTPStatus.OK
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()


def _free_port() -> int:
    while True:
        port = random.choice(_PORTS)
        with socket.socket() as listener:
            try:
                listener.bind((_LOCALHOST, port))
            except OSError:
                continue
            return port
