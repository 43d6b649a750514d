"""Command line of the guest: `build` makes what is cached, `run` runs a command in it."""

import argparse
import signal
import sys
from collections.abc import Sequence
from pathlib import Path

from guest.checkout import find_checkout
from guest.host import GuestError, locked, require_commands
from guest.image import Image, ensure_image
from guest.machine import Machine, run
from guest.packages import ensure_packages

TROUBLE = 125  # as `env` and `timeout` do: the tool's own failure, not the command's


def main(argv: Sequence[str] | None = None) -> int:
    """Return the command's exit status, or TROUBLE with the reason on stderr."""
    arguments = _parser().parse_args(argv)
    # An end by a signal still unwinds, so that the guest and the scratch files go too.
    signal.signal(signal.SIGTERM, lambda number, _: sys.exit(128 + number))
    signal.signal(signal.SIGHUP, lambda number, _: sys.exit(128 + number))
    try:
        require_commands()
        checkout = find_checkout()
        requirements = arguments.requirements or checkout / "requirements/test.txt"
        image, packages = _prepare(requirements)
        if arguments.action == "build":
            return 0
        machine = Machine(arguments.smp, arguments.memory, arguments.append, arguments.timeout)
        return run(machine, image, packages, checkout, arguments.command, arguments.results)
    except (GuestError, OSError) as error:
        print(f"guest: {error}", file=sys.stderr)
        return TROUBLE
    except KeyboardInterrupt:
        return 128 + signal.SIGINT


def _prepare(requirements: Path) -> tuple[Image, Path]:
    with locked():
        return ensure_image(), ensure_packages(requirements)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="guest", description="A throw-away test machine.")
    parser.add_argument(
        "--requirements", type=Path, help="locked packages (default requirements/test.txt)"
    )
    actions = parser.add_subparsers(dest="action", required=True)
    actions.add_parser("build", help="make and cache the machine's disks")
    running = actions.add_parser("run", help="run a command in the machine, as root in /repo")
    running.add_argument("--results", type=Path, help="folder for what /results holds at the end")
    running.add_argument("--timeout", type=float, default=900.0, help="seconds (default 900)")
    running.add_argument("--smp", type=int, default=2, help="CPUs (default 2)")
    running.add_argument("--memory", default="2G", help="as QEMU writes it (default 2G)")
    running.add_argument("--append", default="", help="more kernel arguments, e.g. psi=0")
    running.add_argument("command", nargs="+", metavar="CMD", help="after --: command, arguments")
    return parser


if __name__ == "__main__":
    sys.exit(main())
