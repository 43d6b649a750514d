"""How soon does an installation keep the peace?

On a real node (kubelet, containerd, a control plane) runs a VM, and a policy is there that moves it
at its first pass. Then, several times:

- install: from `helm install` until the kernel has the VM's new weight. Images are on the node, and
  no Lease is: an operator that is installed anew right after it was uninstalled waits for the end
  of its predecessor's, which lost the right to give it back.
- agent: from the start of the agent's container until its pod is Ready, as the kubelet has it, in
  whole seconds.
- uninstall: from `helm uninstall` until it returns; every VM is restored then.
"""

import argparse
import time
from datetime import datetime

from bench._cluster import poll
from bench._report import Figure, arguments, run, say
from node import Node, vm
from tests.node.release import Document, Release
from tests.node.scene import put

INTERVAL = 15
"""Seconds: the default of a policy."""
TIMEOUT = 120.0
LOOK_EVERY = 0.02


def measure(parsed: argparse.Namespace) -> list[Figure]:
    installed, ready, uninstalled = [], [], []
    with Node() as node:
        vm.serve(node)
        release = Release(node)
        say("a first installation brings the CRDs")
        release.install()
        guest = vm.start(node, "guest")
        baseline = guest.own.weight()
        release.uninstall()
        policy = put(10, "guest")
        policy["spec"]["interval"] = f"{INTERVAL}s"
        node.apply(policy)
        for number in range(parsed.repetitions):
            say(f"installation {number + 1} of {parsed.repetitions}")
            release.kubectl("delete", "lease", "peacemaker-operator")
            begin = time.monotonic()
            release.begin_install()
            moved = "the VM's weight to move"
            poll(lambda: guest.own.weight() != baseline, LOOK_EVERY, TIMEOUT, moved)
            installed.append(time.monotonic() - begin)
            release.wait_rolled_out()
            ready.append(_seconds_to_ready(release.agent()))
            begin = time.monotonic()
            release.uninstall()
            uninstalled.append(time.monotonic() - begin)
            if guest.own.weight() != baseline:
                raise RuntimeError(f"the VM's weight is {guest.own.weight()}, not {baseline}")
    return [
        Figure("install: until a VM is moved", "s", tuple(installed), at_most=INTERVAL + 10),
        Figure("agent: until its pod is Ready", "s", tuple(ready), at_most=5.0),
        Figure("uninstall: VMs restored, all gone", "s", tuple(uninstalled)),
    ]


def _seconds_to_ready(pod: Document) -> float:
    (container,) = pod["status"]["containerStatuses"]
    (ready,) = (each for each in pod["status"]["conditions"] if each["type"] == "Ready")
    started = datetime.fromisoformat(container["state"]["running"]["startedAt"])
    return (datetime.fromisoformat(ready["lastTransitionTime"]) - started).total_seconds()


if __name__ == "__main__":
    parser = arguments(__doc__)
    parser.add_argument("--repetitions", type=int, default=5, help="installations (default 5)")
    run("Install: a chart on a real node", measure, parser.parse_args())
