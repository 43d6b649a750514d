"""`python -m apiserver`: a control plane to try things on, until Ctrl-C."""

import signal
import sys
from contextlib import suppress

from apiserver.cluster import Cluster
from gobuild import MissingError


def main() -> None:
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        with suppress(KeyboardInterrupt), Cluster() as cluster:
            print(f"ready; Ctrl-C ends it\n  export KUBECONFIG={cluster.kubeconfig}", flush=True)
            signal.pause()
    except MissingError as error:
        sys.exit(str(error))


if __name__ == "__main__":
    main()
