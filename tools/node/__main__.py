"""`python -m node`: a node to try things on, until Ctrl-C."""

import signal
import sys
from contextlib import suppress

from gobuild import MissingError
from node import BoxError, ImageError, Node, NodeError


def main() -> None:
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        with suppress(KeyboardInterrupt), Node() as node:
            print(f"ready; Ctrl-C ends it\n  export KUBECONFIG={node.kubeconfig}", flush=True)
            signal.pause()
    except (BoxError, ImageError, MissingError, NodeError) as error:
        sys.exit(str(error))


if __name__ == "__main__":
    main()
