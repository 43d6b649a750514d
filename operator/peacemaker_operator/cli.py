"""The command line `peacemaker-operator`.

Exit codes: 0 done; 1 it could not be done; 2 the user's input is wrong, and nothing was touched;
3 (suspend) all is done that could be, and some nodes did not answer.
"""

import json
import os
import secrets
import socket
import sys
from dataclasses import asdict
from typing import Final, NoReturn
from urllib.parse import urlsplit

import click

from peacemaker import __version__
from peacemaker.duration import parse_duration
from peacemaker_kube import log
from peacemaker_kube.address import Address, AddressType
from peacemaker_kube.api import Api, ApiError, ApiUnreachable, ConfigError
from peacemaker_kube.metrics import serve
from peacemaker_operator import frame
from peacemaker_operator.check import check as check_installation
from peacemaker_operator.controller import Controller, Pace
from peacemaker_operator.metrics import OperatorMetrics
from peacemaker_operator.serving import Place, service_names
from peacemaker_operator.suspend import NO_IMAGE, NoAnswer, Outcome
from peacemaker_operator.suspend import resume as resume_nodes
from peacemaker_operator.suspend import suspend as suspend_nodes
from peacemaker_operator.webhook import HANDLER
from peacemaker_operator.webhook_figures import WebhookFigures

NAMESPACE: Final = "peacemaker"
WRONG_INPUT: Final = 2
UNANSWERED: Final = 3


class _DurationType(click.ParamType[float]):
    name = "duration"

    def convert(
        self, value: object, param: click.Parameter | None, ctx: click.Context | None
    ) -> float:
        try:
            return value if isinstance(value, float) else parse_duration(str(value))
        except ValueError as error:
            self.fail(str(error), param, ctx)


class _UrlType(click.ParamType[str]):
    name = "url"

    def convert(
        self, value: object, param: click.Parameter | None, ctx: click.Context | None
    ) -> str:
        parts = urlsplit(str(value))
        if parts.scheme != "https" or not parts.hostname or parts.query or parts.fragment:
            self.fail(f"{value!r} is no https://HOST[:PORT] without ? and #", param, ctx)
        return str(value)


_kubeconfig = click.option(
    "--kubeconfig", type=click.Path(dir_okay=False),
    help="Default: the pod's service account, then $KUBECONFIG, then ~/.kube/config.",
)  # fmt: skip
_namespace = click.option(
    "--namespace", "-n", show_default="the pod's, or that of the kubeconfig, or peacemaker",
    help="Where the operator and its settings are.",
)  # fmt: skip
_output = click.option("-o", "output", type=click.Choice(["text", "json"]), default="text")


@click.group(
    context_settings={
        "help_option_names": ["-h", "--help"],
        "auto_envvar_prefix": "PEACEMAKER_OPERATOR",
    }
)
@click.version_option(__version__, prog_name="peacemaker-operator")
def main() -> None:
    """Make PeaceLists of PeacePolicies and VirtualMachineInstances.

    Each option of a command is also read from the environment: that of --namespace of run from
    PEACEMAKER_OPERATOR_RUN_NAMESPACE. Shell completion:
    eval "$(_PEACEMAKER_OPERATOR_COMPLETE=bash_source peacemaker-operator)"
    """


@main.command()
@_kubeconfig
@_namespace
@click.option(
    "--metrics-address", type=AddressType(), default=":8080", show_default=True,
    help="Where /metrics is served.",
)  # fmt: skip
@click.option(
    "--health-address", type=AddressType(), default=":8081", show_default=True,
    help="Where /healthz and /readyz are served.",
)  # fmt: skip
@click.option(
    "--webhook-address", type=AddressType(), default=":9443", show_default=True,
    help="Where the API server asks whether a policy makes sense.",
)  # fmt: skip
@click.option("--no-webhook", is_flag=True, help="Serve no webhook.")
@click.option(
    "--webhook-url", type=_UrlType(),
    help="How the API server reaches the webhook if not by its Service: out of the cluster.",
)  # fmt: skip
@click.option(
    "--leader-elect/--no-leader-elect", default=True, show_default=True,
    help="Without, this must be the only replica.",
)  # fmt: skip
@click.option(
    "--identity", help="This replica's name in the Lease. Default: host name and a number."
)
@click.option(
    "--status-interval", type=_DurationType(), default="30s", show_default=True,
    help="Least time between two writes of a policy's figures. Its conditions are written at once.",
)  # fmt: skip
@click.option(
    "--agent-silent-after", type=_DurationType(), default="60s", show_default=True,
    help="How long a node has no ready agent pod before its PeaceList says so.",
)  # fmt: skip
@click.option(
    "--log-level", type=click.Choice(["debug", "info", "warning", "error"]), default="info",
    show_default=True,
)  # fmt: skip
def run(
    kubeconfig: str | None,
    namespace: str | None,
    metrics_address: Address,
    health_address: Address,
    webhook_address: Address,
    no_webhook: bool,
    webhook_url: str | None,
    leader_elect: bool,
    identity: str | None,
    status_interval: float,
    agent_silent_after: float,
    log_level: str,
) -> None:
    """Keep PeaceLists and the status of policies right until SIGTERM."""
    log.set_up(log_level)
    if no_webhook and webhook_url:
        _fail("--webhook-url is of no use with --no-webhook", WRONG_INPUT)
    api, namespace = _connect(kubeconfig, namespace)
    controller = Controller(
        api,
        namespace,
        identity or f"{socket.gethostname()}-{secrets.token_hex(4)}",
        leader_elect=leader_elect,
        pace=Pace(details=status_interval, silent_after=agent_silent_after),
    )
    webhook = None if no_webhook else (webhook_address, _place(namespace, webhook_url))
    figures = WebhookFigures()
    try:
        serve(metrics_address, OperatorMetrics(controller, figures if webhook else None))
        frame.run(controller, api, frame.Frame(health_address, webhook, figures))
    except (frame.FrameError, OSError) as error:
        log.error("operator ends", why=error)
        sys.exit(1)


def _place(namespace: str, url: str | None) -> Place:
    """Where the webhook is; the last part of a URL's path is kopf's name of the handler."""
    names = service_names(namespace)
    if url is None:
        return Place(namespace, names)
    host = urlsplit(url).hostname or ""
    return Place(namespace, names | {host}, f"{url.rstrip('/')}/{HANDLER}")


@main.command()
@click.option(
    "--timeout", type=_DurationType(), default="120s", show_default=True,
    help="How long to wait for the nodes.",
)  # fmt: skip
@click.option(
    "--leave-unanswered", is_flag=True,
    help="Exit code 0 also if some nodes did not answer: uninstalling goes on without them.",
)  # fmt: skip
@_output
@_kubeconfig
@_namespace
def suspend(
    timeout: float,
    leave_unanswered: bool,
    output: str,
    kubeconfig: str | None,
    namespace: str | None,
) -> None:
    """Have every node restore its VMs and rest, and wait until all have.

    Exit code 3: some nodes did not answer; they are named with the command that restores each.
    Suspended stays so, also for nodes to come and across upgrades, until `resume`.
    """
    log.set_up("error")
    api, namespace = _connect(kubeconfig, namespace)
    try:
        outcome = suspend_nodes(api, namespace, timeout, _progress)
    except (ApiError, ApiUnreachable, NoAnswer) as error:
        _fail(error)
    if output == "json":
        click.echo(json.dumps(asdict(outcome), indent=2))
    else:
        _tell(outcome)
    if outcome.unanswered and not leave_unanswered:
        sys.exit(UNANSWERED)


def _tell(outcome: Outcome) -> None:
    count = len(outcome.restored) + len(outcome.unanswered)
    click.echo(f"suspended: {len(outcome.restored)} of {count} nodes restored")
    for each in outcome.unanswered:
        click.echo(f"{each.node}: {each.why}; once it can be reached, restore it with\n  "
                   f"{each.command}")  # fmt: skip
    if outcome.unanswered and outcome.image is None:
        click.echo(f"{NO_IMAGE} stands for the image of peacemaker's agent: no agent pod is left")


@main.command()
@click.option(
    "--timeout", type=_DurationType(), default="60s", show_default=True,
    help="How long to wait for the operator.",
)  # fmt: skip
@_output
@_kubeconfig
@_namespace
def resume(timeout: float, output: str, kubeconfig: str | None, namespace: str | None) -> None:
    """Undo `suspend`: policies come into force again, and the operator tells every node."""
    log.set_up("error")
    api, namespace = _connect(kubeconfig, namespace)
    try:
        nodes = resume_nodes(api, namespace, timeout, _progress)
    except (ApiError, ApiUnreachable, NoAnswer) as error:
        _fail(error)
    text = json.dumps({"resumed": nodes}, indent=2)
    click.echo(text if output == "json" else f"resumed: {len(nodes)} nodes")


@main.command()
@click.option(
    "--timeout", type=_DurationType(), default="60s", show_default=True,
    help="How long to wait for what may come right by itself.",
)  # fmt: skip
@_output
@_kubeconfig
@_namespace
def check(timeout: float, output: str, kubeconfig: str | None, namespace: str | None) -> None:
    """Tell whether the installation is complete and at work, and what to do where it is not.

    Are PeacePolicies and PeaceLists served, does Pod Security let agents be, does an operator lead,
    is each agent ready? Exit code 1: no.
    """
    log.set_up("error")
    api, namespace = _connect(kubeconfig, namespace)
    try:
        findings = check_installation(api, namespace, timeout, _progress)
    except (ApiError, ApiUnreachable) as error:
        _fail(error)
    if output == "json":
        click.echo(json.dumps([asdict(each) for each in findings], indent=2))
    else:
        for each in findings:
            click.echo(f"{each.result}: {each.message}")
            if each.command:
                click.echo(f"  {each.command}")
    if not all(each.is_well for each in findings):
        sys.exit(1)


def _connect(kubeconfig: str | None, namespace: str | None) -> tuple[Api, str]:
    if kubeconfig is not None and not os.path.exists(kubeconfig):
        _fail(f"--kubeconfig: there is no file {kubeconfig}", WRONG_INPUT)
    try:
        api = Api.load(kubeconfig)
    except ConfigError as error:
        _fail(error, WRONG_INPUT)
    return api, namespace or (api.namespace if api.namespace != "default" else NAMESPACE)


def _progress(line: str) -> None:
    click.echo(line, err=True)


def _fail(error: object, code: int = 1) -> NoReturn:
    """End with the error alone: a traceback is for our mistakes, not for the user's."""
    click.echo(str(error), err=True)
    sys.exit(code)
