"""The command line `peacemaker-agent`.

Exit codes: 0 done; 1 it could not be done; 2 the user's input is wrong, and nothing was touched.
"""

import json
import os
import socket
import sys
import time
from dataclasses import asdict
from selectors import DefaultSelector
from typing import TYPE_CHECKING, Final, NoReturn, cast

import click

from peacemaker import __version__
from peacemaker.claim import FULL_CLAIM_PERCENT
from peacemaker.parse import PolicyError
from peacemaker_kube import log
from peacemaker_kube.address import Address, AddressType
from peacemaker_nodeagent.act import Actuator
from peacemaker_nodeagent.agent import Agent, Options, clock
from peacemaker_nodeagent.cgroup import DEFAULT_MOUNT, CgroupError, find_hierarchy
from peacemaker_nodeagent.discover import HostFinder
from peacemaker_nodeagent.labels import Labels, LabelsError
from peacemaker_nodeagent.orders import FileOrders
from peacemaker_nodeagent.policy_files import PolicyFiles
from peacemaker_nodeagent.proc import boot_id
from peacemaker_nodeagent.records import Journal
from peacemaker_nodeagent.restore import restore_records
from peacemaker_nodeagent.roster import Roster
from peacemaker_nodeagent.run_dir import DEFAULT_RUN_DIR, AgentRuns, RunDir
from peacemaker_nodeagent.sense import SHORTEST_SPAN
from peacemaker_nodeagent.server import AgentUnreachable, ask
from peacemaker_nodeagent.view import Row, render, render_status, row

if TYPE_CHECKING:  # it brings the API client
    from peacemaker_nodeagent.cluster import Contact

WRONG_INPUT: Final = 2

_run_dir = click.option(
    "--run-dir",
    default=DEFAULT_RUN_DIR,
    show_default=True,
    help="Directory of the lock, the socket, the records of thread nices and the stop file.",
)
_cgroup_mount = click.option(
    "--cgroup-mount", default=DEFAULT_MOUNT, show_default=True, help="Where cgroups are mounted."
)
_below = click.option(
    "--below", default="/", show_default=True, help="Only VMs in cgroups below this path."
)


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="peacemaker-agent")
def main() -> None:
    """Keep the CPU peace between the QEMU virtual machines of this host, by policy.

    Shell completion: eval "$(_PEACEMAKER_AGENT_COMPLETE=bash_source peacemaker-agent)"
    """


@main.command()
@click.option("--node", help="This node's name: alone in a cluster, else the host name.")
@click.option("--kubeconfig", help="Cluster: how to reach the API server, if not as a pod does.")
@click.option(
    "--status-interval", type=click.FloatRange(min=1.0), metavar="SECONDS",
    help="Cluster: least time between two writes of the VMs' details.  [default: 30]",
)  # fmt: skip
@click.option(
    "--policy", "policies", multiple=True,
    help="Without a cluster: a file of PeacePolicies, or a directory of *.yaml. "
    "May be given several times.",
)  # fmt: skip
@click.option(
    "--labels", help="Without a cluster: YAML file that maps namespace/name to a VM's labels."
)
@click.option(
    "--max-claim-percent", type=click.IntRange(FULL_CLAIM_PERCENT, 10_000),
    help="Without a cluster: how far favoured VMs may grow their common claim beside ordinary "
    f"processes.  [default: {FULL_CLAIM_PERCENT}]",
)  # fmt: skip
@click.option(
    "--log-level", type=click.Choice(["debug", "info", "warning", "error"]), default="info",
    show_default=True,
)  # fmt: skip
@click.option("--check", is_flag=True, help="Only check the policies and labels, then exit.")
@_run_dir
@_cgroup_mount
@_below
@click.option(
    "--metrics-address", type=AddressType(),
    help="Where /metrics is served, as HOST:PORT or :PORT.  [default: nowhere]",
)  # fmt: skip
@click.option(
    "--per-vm-metrics/--no-per-vm-metrics", default=True, show_default=True,
    help="Whether each VM has metrics of its own.",
)  # fmt: skip
def run(
    node: str | None,
    kubeconfig: str | None,
    status_interval: float | None,
    policies: tuple[str, ...],
    labels: str | None,
    max_claim_percent: int | None,
    log_level: str,
    check: bool,
    run_dir: str,
    cgroup_mount: str,
    below: str,
    metrics_address: Address | None,
    per_vm_metrics: bool,
) -> None:
    """Keep the peace until SIGTERM. Values are left as they are at the end; `restore` undoes them.

    With --policy it needs no cluster; with --node alone it does what the PeaceList of that node
    says. While the file RUN_DIR/stop exists, everything is restored and the agent rests.
    """
    log.set_up(log_level)
    for_cluster = {"--kubeconfig": kubeconfig, "--status-interval": status_interval}
    for_files = {"--labels": labels, "--max-claim-percent": max_claim_percent, "--check": check}
    for option, value in (for_cluster if policies else for_files).items():
        if value:
            need = "a cluster, and --policy is without one" if policies else "--policy"
            _fail(f"{option} needs {need}", WRONG_INPUT)
    if check:
        _check(policies, labels)
        return
    if not (policies or node):
        _fail("what to do? --policy FILE without a cluster, --node NAME in one", WRONG_INPUT)
    if not (per_vm_metrics or metrics_address):
        _fail("--no-per-vm-metrics needs --metrics-address", WRONG_INPUT)
    if os.getpid() == 1:
        _fail("process 1 sees only its own processes: a pod needs hostPID, a container --pid=host")
    options = Options(node or socket.gethostname(), below, RunDir(run_dir))
    contact = None
    try:
        if policies:
            claim = max_claim_percent or FULL_CLAIM_PERCENT
            orders = FileOrders(PolicyFiles(policies), Labels(labels), options.node, claim)
            hierarchy = find_hierarchy(cgroup_mount)
            options.run_dir.lock()
            agent = Agent(options, hierarchy, orders, HostFinder(hierarchy, below))
        else:
            agent, contact = _in_cluster(options, cgroup_mount, kubeconfig, status_interval)
    except (PolicyError, LabelsError) as error:
        _fail(error, WRONG_INPUT)
    except (CgroupError, AgentRuns, OSError) as error:
        _fail(error)
    if metrics_address:
        _serve_metrics(metrics_address, agent, contact, per_vm_metrics)
    agent.run()


def _serve_metrics(address: Address, agent: Agent, contact: "Contact | None", per_vm: bool) -> None:
    from peacemaker_kube.metrics import serve
    from peacemaker_nodeagent.metrics import AgentMetrics

    metrics = AgentMetrics(agent, contact, per_vm)
    agent.outlets.append(metrics)
    try:
        serve(address, metrics, metrics.is_alive)
    except OSError as error:
        _fail(f"--metrics-address {address}: {error.strerror}")


def _in_cluster(
    options: Options, cgroup_mount: str, kubeconfig: str | None, status_interval: float | None
) -> tuple[Agent, "Contact"]:
    """Raises CgroupError, AgentRuns, OSError."""
    from peacemaker_kube.api import ConfigError
    from peacemaker_nodeagent.cluster import cluster_agent

    hierarchy = find_hierarchy(cgroup_mount)
    options.run_dir.lock()
    try:
        return cluster_agent(options, hierarchy, kubeconfig, status_interval)
    except ConfigError as error:
        _fail(error, WRONG_INPUT)


def _check(policies: tuple[str, ...], labels: str | None) -> None:
    try:
        found = PolicyFiles(policies).policies()
        Labels(labels)
    except (PolicyError, LabelsError) as error:
        _fail(error, WRONG_INPUT)
    for policy in found:
        click.echo(f"{policy.name}: {policy.mode.value}, {len(policy.rules)} rules, fine")


@main.command("list")
@click.option("--pid", type=int, help="Only the VM of this QEMU process.")
@click.option("-o", "output", type=click.Choice(["table", "wide", "json"]), default="table")
@_run_dir
@_cgroup_mount
@_below
def list_vms(pid: int | None, output: str, run_dir: str, cgroup_mount: str, below: str) -> None:
    """Show the VMs: the running agent's list, or without one what a look around finds."""
    try:
        answer = ask(RunDir(run_dir).socket, {"ask": "list"})
        rows = cast("list[Row]", answer["vms"])
    except AgentUnreachable:
        click.echo("no agent runs: this is what is there now", err=True)
        rows = _look_around(run_dir, cgroup_mount, below)
    except PermissionError as error:
        _fail(error)
    rows = sorted(rows, key=lambda each: (str(each["vm"]), int(str(each["pid"]))))
    if pid is not None:
        rows = [each for each in rows if each["pid"] == pid]
        if not rows:
            _fail(f"process {pid} is no VM of this node")
    click.echo(render(rows, output))


def _look_around(run_dir: str, cgroup_mount: str, below: str) -> list[Row]:
    """The same rows without an agent: two readings, a second apart; nothing is written."""
    try:
        hierarchy = find_hierarchy(cgroup_mount)
        journal = Journal(RunDir(run_dir).journal, boot_id())
        finder = HostFinder(hierarchy, below)
        roster = Roster(hierarchy, finder, journal, Actuator(journal), DefaultSelector())
        vms = roster.discover(clock())
    except (CgroupError, PermissionError) as error:
        _fail(error)
    if vms:
        time.sleep(SHORTEST_SPAN)
    present = roster.sensors.read(clock(), vms, frozenset()).vms
    return [row(vm, roster.sensors.recent(vm), clock()) for vm in vms if vm.uid in present]


@main.command()
@click.argument("vm")
@_run_dir
def explain(vm: str, run_dir: str) -> None:
    """Tell rule by rule what the last pass thought of VM (its name, namespace/name or pid)."""
    try:
        answer = ask(RunDir(run_dir).socket, {"ask": "explain", "vm": vm})
    except (AgentUnreachable, PermissionError) as error:
        _fail(error)
    if "error" in answer:
        _fail(answer["error"])
    click.echo("\n".join(cast("list[str]", answer["lines"])))


@main.command()
@click.option("-o", "output", type=click.Choice(["table", "json"]), default="table")
@_run_dir
def status(output: str, run_dir: str) -> None:
    """Show the node's load, the policies in force and what they do."""
    try:
        answer = ask(RunDir(run_dir).socket, {"ask": "status"})
    except (AgentUnreachable, PermissionError) as error:
        _fail(error)
    click.echo(json.dumps(answer, indent=2) if output == "json" else render_status(answer))


@main.command()
@click.option("-o", "output", type=click.Choice(["table", "json"]), default="table")
@_run_dir
@_cgroup_mount
@_below
def restore(output: str, run_dir: str, cgroup_mount: str, below: str) -> None:
    """Put back every nice and weight that an agent left and that is still ours.

    Refused while an agent runs (touch RUN_DIR/stop makes that one restore and rest).
    """
    directory = RunDir(run_dir)
    try:
        hierarchy = find_hierarchy(cgroup_mount)
        lock = directory.lock()
    except AgentRuns as error:
        _fail(f"{error}: touch {directory.stop_file} makes it restore everything and rest")
    except (CgroupError, PermissionError) as error:
        _fail(error)
    outcomes = list(restore_records(hierarchy, Journal(directory.journal, boot_id()), below))
    os.close(lock)
    if output == "json":
        click.echo(json.dumps([asdict(outcome) for outcome in outcomes], indent=2))
    else:
        for outcome in outcomes:
            for step in outcome.steps:
                note = f" ({step.note})" if step.note else ""
                click.echo(f"{outcome.subject}: {step.what} {step.found} -> {step.now}{note}")
            if outcome.problem:
                click.echo(f"{outcome.subject}: {outcome.problem}")
        restored = sum(1 for outcome in outcomes if outcome.steps)
        left = sum(1 for outcome in outcomes if outcome.problem)
        click.echo(f"{restored} restored, {left} left alone")
    if any(outcome.problem for outcome in outcomes):
        sys.exit(1)


def _fail(error: object, code: int = 1) -> NoReturn:
    """End with the error alone: a traceback is for our mistakes, not for the user's."""
    hint = ": run it as root" if isinstance(error, PermissionError) else ""
    if isinstance(error, OSError) and error.filename:
        error = f"{error.filename}: {error.strerror}"
    click.echo(f"{error}{hint}", err=True)
    sys.exit(code)
