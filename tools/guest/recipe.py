"""What the guest is made of. Every value here is part of the cache key of its image."""

import hashlib
from pathlib import Path

SUITE = "bookworm"
PYTHON = "3.11"  # the suite's own; wheels are fetched for it
KERNEL = "linux-image-cloud-amd64"  # NVMe and ext4 are built in: it boots without an initrd
PACKAGES = (
    "systemd",
    "systemd-sysv",
    "dbus",
    "python3",
    "procps",
    "qemu-system-x86",
    "seabios",
)

# Units that cost seconds of an emulated CPU and serve nobody in a machine that lives for one
# command. There is no network, no login and nothing to keep.
MASKED = (
    "apt-daily-upgrade.timer",
    "apt-daily.timer",
    "console-getty.service",
    "dpkg-db-backup.timer",
    "e2scrub_all.timer",
    "e2scrub_reap.service",
    "fstrim.timer",
    "getty.target",
    "systemd-ask-password-wall.path",
    "systemd-journal-flush.service",
    "systemd-logind.service",
    "systemd-networkd.service",
    "systemd-pstore.service",
    "systemd-tmpfiles-clean.timer",
    "systemd-update-utmp-runlevel.service",
    "systemd-update-utmp.service",
    "systemd-user-sessions.service",
)

# Not needed to run anything; left out, the image is written in half the time.
DROPPED = (
    "usr/share/doc",
    "usr/share/info",
    "usr/share/locale",
    "usr/share/man",
    "var/cache/apt",
    "var/lib/apt/lists",
)

ROOTFS = Path(__file__).parent / "rootfs"  # files laid over the installed system, modes kept


def digest() -> str:
    """The recipe's identity: it changes with any value above and with any file of ROOTFS."""
    whole = hashlib.sha256(repr((SUITE, KERNEL, PACKAGES, MASKED, DROPPED)).encode())
    for path in sorted(ROOTFS.rglob("*")):
        if path.is_file():
            mode = path.stat().st_mode
            whole.update(repr((str(path.relative_to(ROOTFS)), mode, path.read_bytes())).encode())
    return whole.hexdigest()[:16]
