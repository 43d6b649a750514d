"""A real Kubernetes node, with the control plane that it belongs to, in a box of its own."""

import ipaddress
import json
import os
import subprocess
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

from apiserver import Cluster, Site, programs
from apiserver.cluster import SERVICES
from gobuild import build
from gobuild.catalogue import CONTAINER_RUNTIME, KUBERNETES_NODE
from lab.measure import wait_for
from lab.processes import Process
from node import images, settings
from node.box import Box, BoxError

Document = dict[str, Any]

TIMEOUT: Final = 120.0
"""Seconds to wait for what takes one to ten on an idle machine."""

_CONTROLLERS = "system:kube-controller-manager"
_SCHEDULER = "system:kube-scheduler"


class NodeError(Exception):
    """A command failed, or one of the node's programs ended; the text says what it said."""


class Node:
    """A context manager for one node, with kubelet, containerd, scheduler and controllers.

    `kubeconfig` is its administrator's. `box` is where everything of it runs: in there, its cgroups
    are a machine's (/kubepods), and the host sees them below `box.cgroup`. Nothing of it is left
    when the context ends. Start it from the main thread, as root.
    """

    def __init__(self, name: str = "node1") -> None:
        self.name = name
        self._stack = ExitStack()
        self._running: dict[str, Process] = {}

    def __enter__(self) -> Self:
        self._runtime, self._kubernetes = build(CONTAINER_RUNTIME), build(KUBERNETES_NODE)
        try:
            self._start()
        except BaseException:
            self._stack.close()
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._stack.close()

    @property
    def kubeconfig(self) -> Path:
        return self.cluster.kubeconfig

    # --- what people do ---

    def kubectl(self, *words: str, documents: Sequence[Document] = ()) -> str:
        """What kubectl says on stdout. documents: what is behind its `-f -`. Raises NodeError."""
        done = subprocess.run(
            [str(programs().kubectl), *words],
            input="\n---\n".join(map(json.dumps, documents)),
            env={
                "PATH": os.environ.get("PATH", ""),
                "HOME": str(self.box.folder),  # its cache
                "KUBECONFIG": str(self.kubeconfig),
            },
            capture_output=True,
            text=True,
            check=False,
            timeout=TIMEOUT,
        )
        if done.returncode:
            raise NodeError(f"kubectl {' '.join(words)}: {(done.stderr or done.stdout).strip()}")
        return done.stdout

    def json(self, *words: str, documents: Sequence[Document] = ()) -> Any:
        """What kubectl shows as JSON. Raises NodeError."""
        return json.loads(self.kubectl(*words, "-o", "json", documents=documents))

    def apply(self, *documents: Document) -> str:
        """`kubectl apply`. Raises NodeError."""
        return self.kubectl("apply", "-f", "-", documents=documents)

    def patch(self, what: str, change: Document, *options: str) -> str:
        """`kubectl patch`, a strategic merge unless an option says otherwise. Raises NodeError."""
        return self.kubectl("patch", what, f"--patch={json.dumps(change)}", *options)

    def import_image(self, archive: Path) -> None:
        """Have the node know the images of an OCI or Docker archive; pods that use one say
        `imagePullPolicy: Never`. Raises NodeError.
        """
        # The box has a /run, /var/lib and /var/log of its own: what is there, it does not see.
        place = self.box.folder / "import.tar"
        place.unlink(missing_ok=True)
        try:
            os.link(archive, place)
        except OSError:
            place.symlink_to(archive)
        ctr = (str(self._runtime / "ctr"), "--address", settings.SOCKET, "--namespace", "k8s.io")
        try:
            self.box.call(*ctr, "images", "import", "--local", str(place))
        except BoxError as error:
            raise NodeError(str(error)) from None

    def holds(self, what: str, condition: str, *options: str) -> bool:
        """Whether an object's status says that this condition is True. Raises NodeError."""
        said = self.kubectl("get", what, "-o", "json", *options)
        status = json.loads(said or "{}").get("status", {})
        return any(
            each["type"] == condition and each["status"] == "True"
            for each in status.get("conditions") or ()
        )

    def wait(self, condition: Callable[[], Any], what: str, timeout: float = TIMEOUT) -> Any:
        """The condition's first true value; NodeError if a program of the node ends before."""

        def check() -> Any:
            self.must_run()
            return condition()

        return wait_for(check, timeout, what)

    def wait_pod_ready(
        self, pod: str, namespace: str = "default", timeout: float = TIMEOUT
    ) -> None:
        """Until the pod is Ready; TimeoutError says what is known of it."""
        where = ("--namespace", namespace)

        try:
            self.wait(
                lambda: self.holds(f"pod/{pod}", "Ready", *where),
                f"pod {namespace}/{pod} to be ready",
                timeout,
            )
        except TimeoutError as error:
            said = self.kubectl("describe", "pod", pod, *where)
            raise TimeoutError(f"{error}\n{said}") from None

    # --- its programs ---

    def must_run(self) -> None:
        """Raise NodeError, with its last words, if a program of the node has ended."""
        for name, process in self._running.items():
            if (status := process.child.poll()) is not None:
                raise NodeError(f"{name} ended with status {status}:\n{self.log(name)[-5000:]}")

    def log(self, name: str) -> str:
        """All that a program (`kubelet`, `containerd` …) has written so far."""
        fd = self._running[name].output.fileno()
        return os.pread(fd, os.fstat(fd).st_size, 0).decode(errors="replace")

    def stop_kubelet(self) -> None:
        """Kill the kubelet. Pods go on; the cluster hears nothing of the node any more."""
        self._running.pop("kubelet").stop()

    def start_kubelet(self) -> None:
        """Start the kubelet, and do not wait until it says that the node is ready."""
        self._launch(
            "kubelet",
            str(self._kubernetes / "kubelet"),
            f"--config={self._file('kubelet.json')}",
            f"--kubeconfig={self.cluster.kubeconfig_of(self._user)}",
            f"--hostname-override={self.name}",
            f"--node-ip={self.box.address}",
            "--cert-dir=/var/lib/kubelet/pki",
        )

    def wait_ready(self) -> None:
        """Until the node has registered and is Ready."""
        node = f"node/{self.name}"
        self.wait(lambda: self.holds(node, "Ready", "--ignore-not-found"), f"{node} to be ready")

    # --- how it starts ---

    @property
    def _user(self) -> str:
        return f"system:node:{self.name}"

    def _start(self) -> None:
        box = self.box = self._stack.enter_context(Box())
        self._start_containerd()
        self.cluster = self._stack.enter_context(self._control_plane(box))
        self._file("kubelet.json").write_text(settings.kubelet(box.address))
        self.start_kubelet()
        self._start_controllers()
        self._import_images()
        self.wait_ready()
        self.wait(self._has_account, "namespace default to have a service account")

    def _control_plane(self, box: Box) -> Cluster:
        """The API server listens in all of the box: pods reach it as every Service's first."""
        own = next(ipaddress.ip_network(SERVICES).hosts())
        box.call("ip", "address", "add", f"{own}/32", "dev", "lo")
        return Cluster(
            site=Site(box.launch, box.address, bind="0.0.0.0", port=443, folder=box.folder),
            users={_CONTROLLERS: "", _SCHEDULER: "", self._user: "system:nodes"},
            flags=[
                f"--advertise-address={box.address}",
                # Without kube-proxy a Service's address leads nowhere: webhooks are asked in pods.
                "--enable-aggregator-routing=true",
                "--kubelet-preferred-address-types=InternalIP",
            ],
        )

    def _start_containerd(self) -> None:
        network = self._file("cni")
        network.mkdir()
        (network / "pods.conflist").write_text(settings.pod_network())
        file = self._file("containerd.toml")
        file.write_text(settings.containerd(self._runtime, network))
        # It looks for its shim on PATH.
        path = f"PATH={self._runtime}{os.pathsep}{os.environ.get('PATH', '')}"
        program = str(self._runtime / "containerd")
        self._launch("containerd", "env", path, program, "--config", str(file))

    def _start_controllers(self) -> None:
        key = self.cluster.service_account_key
        for name, user, flags in (
            (
                "kube-controller-manager",
                _CONTROLLERS,
                (
                    f"--service-account-private-key-file={key}",
                    f"--root-ca-file={self.cluster.ca}",
                    "--use-service-account-credentials",
                ),
            ),
            ("kube-scheduler", _SCHEDULER, ()),
        ):
            kubeconfig = self.cluster.kubeconfig_of(user)
            self._launch(
                name,
                str(self._kubernetes / name),
                *(f"--{kind}kubeconfig={kubeconfig}" for kind in ("", *_DELEGATED)),
                "--leader-elect=false",
                *flags,
            )

    def _import_images(self) -> None:
        socket = self.box.folder / settings.SOCKET.lstrip("/")
        self.wait(socket.exists, "containerd to listen")
        for name, write in (("pause", images.write_pause), ("vm", images.write_vm)):
            archive = self._file(f"{name}.tar")
            write(archive)
            self.import_image(archive)

    def _has_account(self) -> bool:
        listed = self.json("get", "serviceaccounts", "--namespace", "default")["items"]
        return bool(listed)

    def _launch(self, name: str, *argv: str) -> None:
        self._running[name] = self.box.launch(argv)

    def _file(self, name: str) -> Path:
        return self.box.folder / name


_DELEGATED = ("authentication-", "authorization-")
