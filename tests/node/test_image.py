"""The images: what is in them, what is not, and that what they were stripped of is not missed."""

import ast
import json
import os
import re
import shutil
import signal
import tomllib
from collections.abc import Iterator
from importlib.metadata import distributions
from pathlib import Path
from typing import Any

import pytest

from image.sizes import SITE, STDLIB, size
from lab import Fleet, PodTree, start, wait_for
from lab.policy import put
from lab.processes import TIMEOUT, launch
from peacemaker_kube.api import ApiError
from tests.cluster.deployment import NAMESPACE, OPERATOR, deployed, kubeconfig, token
from tests.cluster.program import free_ports
from tests.node.images import Container, containers

# A build takes minutes, and it is a fixture's.
pytestmark = pytest.mark.timeout(func_only=True)

ROOT = Path(__file__).parents[2]
SIDES = ("agent", "operator")
PACKAGES = {
    "agent": ("peacemaker", "kube/peacemaker_kube", "nodeagent/peacemaker_nodeagent"),
    "operator": ("peacemaker", "kube/peacemaker_kube", "operator/peacemaker_operator"),
}
LEASES = f"/apis/coordination.k8s.io/v1/namespaces/{NAMESPACE}/leases"
VERSION = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]

# What an image of a service has no use for, and an intruder has.
UNWANTED = {
    *("sh", "bash", "dash", "busybox", "env", "chroot", "mount"),
    *("apt", "apt-get", "dpkg", "pip", "pip3", "gcc", "cc", "ld", "make"),
    *("curl", "wget", "perl"),
}

ONLY_FOR_ASYNCIO = {
    *("aiohappyeyeballs", "aiohttp", "aiohttp-retry", "aiosignal", "attrs", "frozenlist"),
    *("multidict", "propcache", "yarl"),
}
"""Of the locked packages, those that the agent never imports."""


@pytest.fixture(scope="module")
def images() -> Iterator[dict[str, Container]]:
    with containers() as both:
        yield both


@pytest.fixture(params=SIDES)
def side(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def image(images: dict[str, Container], side: str) -> Container:
    return images[side]


@pytest.mark.parametrize(("side", "megabytes"), [("agent", 105), ("operator", 165)])
def test_an_image_is_no_larger_than_its_parts(
    images: dict[str, Container], side: str, megabytes: int
) -> None:
    assert size(images[side].tree) < megabytes * 1e6


@pytest.mark.parametrize(("side", "user"), [("agent", "0:0"), ("operator", "65532:65532")])
def test_an_image_says_who_it_is_and_runs_as_whom(
    images: dict[str, Container], side: str, user: str
) -> None:
    config = images[side].config
    assert config["User"] == user
    assert config["Entrypoint"] == [f"/opt/peacemaker/bin/peacemaker-{side}"]
    said = config["Labels"]
    label = "org.opencontainers.image."
    assert said[f"{label}title"] == f"peacemaker-{side}"
    assert said[f"{label}description"]
    assert said[f"{label}licenses"] == "Apache-2.0"
    assert said[f"{label}version"] == VERSION
    assert re.fullmatch(r"[0-9a-f]{40}(-dirty)?|unknown", said[f"{label}revision"])


def test_there_is_no_shell_no_compiler_and_no_package_manager(image: Container, side: str) -> None:
    files = [path for path in image.tree.rglob("*") if not path.is_dir()]
    assert not {path.name for path in files} & UNWANTED
    programs = {path.name for path in files if path.parent.name in ("bin", "sbin")}
    assert programs == {f"peacemaker-{side}", "python", "python3", "python3.11"}
    for empty in ("var/lib/apt", "var/cache/apt", "root/.cache", "tools", "product", "image"):
        assert not (image.tree / empty).exists()
    assert not (image.tree / SITE / "pip").exists()


def test_nothing_can_be_run_as_another_user_or_written_by_everybody(image: Container) -> None:
    loose = [
        path
        for path in image.tree.rglob("*")
        if not path.is_symlink() and path.lstat().st_mode & 0o6002
    ]
    # Debian's own folders; there are no such files.
    allowed = {"tmp", "var/tmp", "var/local", "var/lock", "var/mail"}
    assert {str(path.relative_to(image.tree)) for path in loose} <= allowed


def test_every_source_has_its_bytecode_once_and_nothing_will_be_compiled_again(
    image: Container,
) -> None:
    trees = [image.tree / STDLIB, image.tree / SITE]
    sources = {path for tree in trees for path in tree.rglob("*.py")}
    compiled = list(image.tree.rglob("*.pyc"))
    made_of = [path.parent.parent / f"{path.name.partition('.')[0]}.py" for path in compiled]
    assert len(set(made_of)) == len(made_of)
    assert set(made_of) == sources
    # PEP 552: the second word says that the source is found by its hash (1), and not looked at (2).
    assert {path.read_bytes()[4:8] for path in compiled} == {b"\x01\0\0\0"}


def test_the_bill_of_materials_is_what_is_there(image: Container, side: str) -> None:
    bill = json.loads((image.tree / "usr/share/doc/peacemaker/sbom.cdx.json").read_bytes())
    assert (bill["bomFormat"], bill["specVersion"]) == ("CycloneDX", "1.6")
    product = bill["metadata"]["component"]
    assert (product["name"], product["version"]) == ("peacemaker", VERSION)
    listed = {kind: of_kind(bill, kind) for kind in ("pypi", "deb")}
    installed = {
        (normal(each.name), each.version) for each in distributions(path=[str(image.tree / SITE)])
    }
    assert listed["pypi"] == installed - {("peacemaker", VERSION)}
    unused = ONLY_FOR_ASYNCIO if side == "agent" else set()
    assert listed["pypi"] == {pin for pin in locked(side) if pin[0] not in unused}
    packages = (image.tree / "var/lib/dpkg/status.d").iterdir()
    assert listed["deb"] == {control(package.read_text()) for package in packages}


def of_kind(bill: dict[str, Any], kind: str) -> set[tuple[str, str]]:
    found = [each for each in bill["components"] if each["purl"].startswith(f"pkg:{kind}/")]
    names = (normal(each["name"]) if kind == "pypi" else each["name"] for each in found)
    return {(name, each["version"]) for name, each in zip(names, found, strict=True)}


def normal(name: str) -> str:
    """A distribution's name as an index compares it (PEP 503)."""
    return re.sub(r"[-_.]+", "-", name).lower()


def locked(side: str) -> set[tuple[str, str]]:
    text = (ROOT / f"requirements/{side}.txt").read_text()
    return {(normal(name), pin) for name, pin in re.findall(r"(?m)^(\S+)==(\S+)", text)}


def control(text: str) -> tuple[str, str]:
    fields = dict(re.findall(r"(?m)^(Package|Version): (.*)$", text))
    return fields["Package"], fields["Version"]


def test_every_library_that_a_program_needs_is_there(image: Container) -> None:
    binaries = [path for path in image.tree.rglob("*") if is_elf(path)]
    assert len(binaries) > 50
    (loader,) = image.tree.glob("lib*/ld-linux-*.so.*")
    for binary in binaries:
        inside = f"/{binary.relative_to(image.tree)}"
        done = image.run(f"/{loader.relative_to(image.tree)}", "--list", inside)
        assert "not found" not in done.stdout + done.stderr, inside
        assert done.returncode == 0 or "statically linked" in done.stderr, (inside, done.stderr)


def is_elf(path: Path) -> bool:
    if path.is_symlink() or not path.is_file():
        return False
    with path.open("rb") as file:
        return file.read(4) == b"\x7fELF"


IMPORT_ALL = """
import importlib, json, sys
for module, name in json.loads(sys.argv[1]):
    found = importlib.import_module(module)
    if name and not hasattr(found, name):
        importlib.import_module(f"{module}.{name}")
"""


def test_everything_that_the_product_imports_is_there(image: Container, side: str) -> None:
    wanted = sorted(imports(side))
    assert ("kubernetes.client", "ApiClient") in wanted
    done = image.run("/opt/peacemaker/bin/python", "-c", IMPORT_ALL, json.dumps(wanted))
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def imports(side: str) -> set[tuple[str, str]]:
    """Each (module, name) of the side's sources, late imports too, and the modules themselves."""
    found = set()
    for package in PACKAGES[side]:
        folder = ROOT / package
        for file in folder.rglob("*.py"):
            if file.name != "__main__.py":  # it runs what it imports
                module = file.relative_to(folder.parent).with_suffix("").parts
                found.add((".".join(module).removesuffix(".__init__"), ""))
            for node in ast.walk(ast.parse(file.read_bytes())):
                if isinstance(node, ast.ImportFrom) and node.module:
                    found |= {(node.module, each.name) for each in node.names}
                elif isinstance(node, ast.Import):
                    found |= {(each.name, "") for each in node.names}
    return found


def test_programs_run_on_a_read_only_root(image: Container, side: str) -> None:
    assert image.run("--version").stdout == f"peacemaker-{side}, version {VERSION}\n"
    done = image.run("/opt/peacemaker/bin/python", "-c", "open('/opt/new', 'w')")
    assert "Read-only file system" in done.stderr


def test_the_agent_checks_the_shipped_policies_and_tells_a_wrong_one_by_line_and_column(
    images: dict[str, Container], tmp_path: Path
) -> None:
    agent = images["agent"]
    done = agent.run(
        *("run", "--check", "--policy", "/run/policies"),
        mounts={ROOT / "policies": "/run/policies"},
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert "seed-figure-7: Enforce, 2 rules, fine" in done.stdout.splitlines()
    (tmp_path / "wrong.yaml").write_text(put(5, "a").replace("vm.name", "vm.nmae"))
    done = agent.run("run", "--check", "--policy", "/run/wrong", mounts={tmp_path: "/run/wrong"})
    assert done.returncode == 2
    assert re.search(r"wrong\.yaml.*nmae", done.stderr)


def test_the_agent_adjusts_a_vm_and_restores_it(
    images: dict[str, Container], tmp_path: Path
) -> None:
    agent = images["agent"]
    (tmp_path / "policy.yaml").write_text(put(5, "a"))
    mounts = {tmp_path: "/run/peacemaker"}
    with PodTree() as tree, Fleet() as fleet:
        place = tree.pod(weight=1024)
        guest = fleet.keep(start("a", cgroup=place.leaf, paused=True))
        words = ("run", "--policy", "/run/peacemaker/policy.yaml", "--below", tree.root)
        running = fleet.keep(launch(agent.command(*words, mounts=mounts)))

        def is_adjusted() -> bool:
            running.must_run()
            return {os.getpriority(os.PRIO_PROCESS, tid) for tid in guest.threads()} == {5}

        wait_for(is_adjusted, TIMEOUT, "every thread of the VM to have nice 5")
        wait_for(lambda: place.own.weight() < 1024, TIMEOUT, "the VM's weight to be lowered")
        # As the kubelet's probe asks.
        asked = agent.run("status", "-o", "json", mounts=mounts)
        assert (asked.returncode, asked.stderr) == (0, "")
        assert [each["name"] for each in json.loads(asked.stdout)["policies"]] == ["test"]
        running.child.send_signal(signal.SIGTERM)
        assert running.child.wait(TIMEOUT) == 0
        done = agent.run("restore", "--below", tree.root, mounts=mounts)
        assert (done.returncode, done.stderr) == (0, "")
        assert {os.getpriority(os.PRIO_PROCESS, tid) for tid in guest.threads()} == {0}
        assert place.own.weight() == 1024


def test_the_operator_becomes_the_leader_of_a_real_api_server(
    images: dict[str, Container], tmp_path: Path
) -> None:
    health, metrics, webhook = (f"127.0.0.1:{port}" for port in free_ports(3))
    with deployed() as (cluster, api), Fleet() as fleet:
        # As paths, which is how a pod has them: what a kubeconfig holds itself is written to /tmp.
        file = kubeconfig(cluster, token(api, OPERATOR), tmp_path / "kubeconfig")
        file.write_text(file.read_text().replace(str(cluster.ca), "ca.crt"))
        shutil.copy(cluster.ca, tmp_path / "ca.crt")
        words = (
            *("run", "--kubeconfig", "/run/cluster/kubeconfig", "--namespace", NAMESPACE),
            *("--health-address", health, "--metrics-address", metrics),
            *("--webhook-address", webhook, "--webhook-url", f"https://{webhook}"),
        )
        tmp_path.chmod(0o755)
        operator = images["operator"].command(*words, mounts={tmp_path: "/run/cluster"})
        running = fleet.keep(launch(operator))

        def leader() -> str:
            running.must_run()
            try:
                lease = api.get(f"{LEASES}/peacemaker-operator")
            except ApiError as error:
                if error.status == 404:
                    return ""
                raise
            return str(lease["spec"].get("holderIdentity") or "")

        assert wait_for(leader, TIMEOUT, "the Lease to have a holder")
        running.child.send_signal(signal.SIGTERM)
        assert running.child.wait(TIMEOUT) == 0
