"""Command line: `python -m image build [--output DIR]`."""

import argparse
import shutil
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

import cache
from image.archive import unpack
from image.build import ensure_images
from image.buildah import CACHE, ImageError
from image.sizes import table


def main(argv: Sequence[str] | None = None) -> int:
    """Return 0, or 1 with the reason on stderr."""
    arguments = _parser().parse_args(argv)
    try:
        for side, image in ensure_images().items():
            archive = image.archive
            if arguments.output:
                arguments.output.mkdir(parents=True, exist_ok=True)
                archive = Path(shutil.copy(archive, arguments.output / f"peacemaker-{side}.tar"))
            with tempfile.TemporaryDirectory(dir=cache.folder(CACHE)) as tree:
                unpack(image, Path(tree))
                print(f"{image.name}\n{archive}\n{table(Path(tree))}\n")
    except (ImageError, OSError) as error:
        print(f"image: {error}", file=sys.stderr)
        return 1
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="image", description="The product's container images.")
    actions = parser.add_subparsers(dest="action", required=True)
    build = actions.add_parser("build", help="build both images, and say what takes how much")
    build.add_argument("--output", type=Path, metavar="DIR", help="copy the OCI archives there")
    return parser


if __name__ == "__main__":
    sys.exit(main())
