"""A throw-away Debian machine with cgroup v2, PSI and systemd, for tests that need a real one.

`python -m guest run -- CMD` boots it under QEMU's own CPU (TCG, so that it runs wherever QEMU
does), runs the command in a copy of the checkout and exits with the command's status.
"""
