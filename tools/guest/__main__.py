"""Command line of the guest: `build` makes what is cached, `run` runs a command in it."""

import argparse
import signal
import sys
from collections.abc import Sequence
from pathlib import Path
from types import FrameType
from typing import NoReturn

import cache
from guest.checkout import CHECKOUT
from guest.host import CACHE, GuestError, require_commands
from guest.image import Image, ensure_image
from guest.machine import Machine, run
from guest.packages import ensure_packages

TROUBLE = 125  # as `env` and `timeout` do: the tool's own failure, not the command's


def main(argv: Sequence[str] | None = None) -> int:
    """Return the command's exit status, or TROUBLE with the reason on stderr."""
    arguments = _parser().parse_args(argv)
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, _unwind)
    try:
        require_commands()
        requirements = arguments.requirements or CHECKOUT / "requirements/test.txt"
        image, packages = _prepare(requirements)
        if arguments.action == "build":
            return 0
        machine = Machine(arguments.smp, arguments.memory, arguments.append, arguments.timeout)
        return run(
            arguments.command,
            machine=machine,
            image=image,
            packages=packages,
            results=arguments.results,
        )
    except (GuestError, OSError) as error:
        print(f"guest: {error}", file=sys.stderr)
        return TROUBLE
    except KeyboardInterrupt:
        return 128 + signal.SIGINT


def _unwind(number: int, _: FrameType | None) -> NoReturn:
    """End by a signal, but through every `finally`, so that the guest and scratch files go too."""
    # A second one, as `timeout` and a closed terminal send to the whole group, must not cut it off.
    signal.signal(number, signal.SIG_IGN)
    sys.exit(128 + number)


def _prepare(requirements: Path) -> tuple[Image, Path]:
    with cache.locked(cache.folder(CACHE)):
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
