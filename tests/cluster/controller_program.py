"""A controller in a process of its own, to be killed or stopped: KUBECONFIG NAMESPACE NAME."""

import signal
import sys

from peacemaker_kube import log
from peacemaker_kube.api import Api
from peacemaker_operator.controller import Controller, Pace
from peacemaker_operator.leader import Timing

if __name__ == "__main__":
    log.set_up("info")
    api = Api.load(sys.argv[1])
    api.client.user_agent = sys.argv[3]  # by which managedFields name who wrote
    timing = Timing(lease=4, renew=3, retry=1)
    controller = Controller(
        api, sys.argv[2], sys.argv[3], timing=timing, pace=Pace(silent_after=3600.0)
    )
    controller.start()
    signal.sigwait({signal.SIGTERM})
    controller.stop()
