"""Where a server listens."""

from peacemaker_kube.address import Address

__all__ = ["Address"]
