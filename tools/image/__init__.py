"""The product's container images, built from the checkout on a machine without an image registry.

`python -m image build` makes both and says what takes how much; tests take `ensure_images()`. The
base of the build is made by debootstrap, buildah runs the Dockerfile in a chroot, and everything is
kept in the user's cache: a content that was built once is not built again. It needs root.
"""

from image.archive import unpack
from image.build import Image, ensure_images
from image.buildah import ImageError

__all__ = ["Image", "ImageError", "ensure_images", "unpack"]
