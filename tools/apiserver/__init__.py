"""A real kube-apiserver with its etcd, for tests and benchmarks.

Import it with `PYTHONPATH=tools`, or try one by hand with `python -m apiserver`::

    with Cluster() as cluster:
        api = kubernetes.config.new_client_from_config(str(cluster.kubeconfig))

Both programs are built once from Go modules (tools/go), or taken from $KUBEBUILDER_ASSETS.
"""

from apiserver.cluster import Cluster, Site
from apiserver.programs import Programs, programs
from gobuild import MissingError

__all__ = ["Cluster", "MissingError", "Programs", "Site", "programs"]
