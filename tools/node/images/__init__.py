"""The images of the test pods: `pause`, which every pod has, and `vm`, a virt-launcher with QEMU.

They are made of one C file and of the QEMU that the host has, with no base image below and no
registry: a second's work, done anew for each node.
"""

from node.images.build import PAUSE, VM, ImageError, write_pause, write_vm

__all__ = ["PAUSE", "VM", "ImageError", "write_pause", "write_vm"]
