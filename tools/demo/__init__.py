"""The demonstration: real VMs fight for one CPU, `nice` moves nothing, and the agent does.

`python -m demo` boots QEMU guests in pod-shaped cgroups, measures who gets how much, and ends with
the figures beside the kernel's own arithmetic, a picture, and the host as it was.
"""
