"""The table of all that the agent tells Prometheus."""

from typing import Final

from peacemaker_kube.metrics import Kind, Metric

PREFIX: Final = "peacemaker_agent_"


def _counter(name: str, unit: str, meaning: str, *labels: str) -> Metric:
    return Metric(f"{PREFIX}{name}", Kind.COUNTER, labels, unit, meaning)


def _gauge(name: str, unit: str, meaning: str, *labels: str) -> Metric:
    return Metric(f"{PREFIX}{name}", Kind.GAUGE, labels, unit, meaning)


NODE: Final = (
    _gauge("build_info", "1", "The version of the agent, and that of the node's cgroups.",
           "version", "cgroup"),
    _gauge("node_load1", "ratio", "Load average of 1 minute for each online CPU."),
    _gauge("node_load5", "ratio", "Load average of 5 minutes for each online CPU."),
    _gauge("node_load15", "ratio", "Load average of 15 minutes for each online CPU."),
    _gauge("node_cpus", "CPUs", "Online CPUs."),
    _gauge("suspended", "0 or 1", "Whether everything is restored and left alone."),
    _gauge("vms", "VMs", "VMs found on the node, by state.", "state"),
    _gauge("claim_weight", "weight",
           "Sum of the weights of VMs that take part in a claim, over all parent cgroups."),
    _gauge("claim_baseline_weight", "weight",
           "Sum of the baselines of the same VMs: what their claim was before the agent."),
    _gauge("max_claim_ratio", "ratio", "How far the claim may grow beyond its baseline."),
)  # fmt: skip

POLICIES: Final = (
    _gauge("governed_vms", "VMs", "VMs that the policy governs; none if it is Observe.",
           "policy"),
    _gauge("observed_vms", "VMs", "VMs that an Observe policy sees.", "policy"),
    _gauge("adjusted_vms", "VMs", "Governed VMs whose nice is not their baseline.", "policy"),
    _gauge("floored_vms", "VMs",
           "Governed VMs that were to have less weight than the kernel allows.", "policy"),
    _gauge("contested_vms", "VMs",
           "VMs of the policy that are left to somebody else who keeps writing their values.",
           "policy"),
    _gauge("failed_vms", "VMs",
           "VMs of the policy whose values before it are unknown, or cannot be written.",
           "policy"),
    _gauge("would_adjust_vms", "VMs",
           "VMs whose nice would not be their baseline if an Observe policy were Enforce.",
           "policy"),
    _gauge("missing_signals", "signals",
           "Signals, and faults of expressions, that the last pass of the policy met.", "policy"),
    _gauge("rule_active", "0 or 1", "Whether the last pass found the rule active.",
           "policy", "rule"),
    _counter("passes_total", "passes", "Evaluations of the policy.", "policy"),
    _counter("pass_seconds_total", "seconds",
             "Time that evaluating the policy took, without reading sensors and writing.",
             "policy"),
    _counter("adjustments_total", "changes", "Changes of a VM's nice by the rule.",
             "policy", "rule"),
    _counter("would_adjust_total", "changes",
             "Changes that a rule of an Observe policy would have made.", "policy", "rule"),
    _counter("blocked_picks_total", "picks",
             "VMs that the rule picked and did not move: bound, cooldown, already-adjusted (by an "
             "earlier rule), or unmoved (they are where the rule leads).",
             "policy", "rule", "reason"),
)  # fmt: skip

WORK: Final = (
    _counter("pass_cpu_seconds_total", "seconds",
             "CPU time of all passes, with the readings before and the writes after them."),
    _counter("weight_writes_total", "writes", "Weights written, restores aside."),
    _counter("thread_nice_writes_total", "threads", "Threads whose nice was set, restores aside."),
    _counter("restores_total", "VMs",
             "VMs that got back what they had: their weight, or their threads' nice.", "what"),
    _counter("write_failures_total", "attempts",
             "Attempts to bring a VM to its values that the kernel refused."),
    _counter("reasserts_total", "weights",
             "Weights that somebody reset to their baseline, and that were put back."),
    _counter("rebases_total", "weights",
             "Weights that somebody else wrote, and that became the VM's new baseline."),
    _counter("thread_corrections_total", "times",
             "Times that somebody else had set a VM's threads' nice, and it was put back."),
    _counter("contests_total", "times",
             "Times that a VM was left to somebody else who kept writing its values."),
)  # fmt: skip

CLUSTER: Final = (
    _gauge("watch_heard_timestamp_seconds", "seconds since the epoch",
           "When the API server last said something to the watch of the node's PeaceList; at rest "
           "it does so each minute."),
    _counter("watch_restarts_total", "lists",
             "Lists taken anew because the watch could not go on: its version expired, an error, "
             "or no answer (unreachable).", "reason"),
    _counter("status_writes_total", "writes",
             "Writes of the PeaceList's status: written, refused, or no answer (unreachable).",
             "result"),
)  # fmt: skip
"""Only in a cluster."""

_VM: Final = ("namespace", "name")

VMS: Final = (
    _gauge("vm_nice", "nice", "The VM's nice, -20..19; lower gains.", *_VM),
    _gauge("vm_effective_nice", "nice",
           "The nice whose meaning is nearest to the VM's weight, after the claim guard.", *_VM),
    _gauge("vm_weight", "weight",
           "The weight of the VM's own cgroup, as last found or written; absent without one.",
           *_VM),
    _gauge("vm_baseline_weight", "weight", "The weight that it had before the agent.", *_VM),
    _counter("vm_cpu_seconds_total", "seconds",
             "CPU time of the VM's own cgroup; of its QEMU where it has none.", *_VM),
    _gauge("vm_wait_ratio", "ratio",
           "Share of time that its vCPUs were runnable but not running since the reading before, "
           "0-1.", *_VM),
)  # fmt: skip
"""Unless --no-per-vm-metrics says so."""

METRICS: Final = (*NODE, *POLICIES, *WORK, *CLUSTER, *VMS)
