"""A real kube-apiserver with its etcd, for tests and benchmarks.

Import it with `PYTHONPATH=tools`, or try one by hand with `python -m apiserver`::

    with Cluster() as cluster:
        api = kubernetes.config.new_client_from_config(str(cluster.kubeconfig))

Both programs are built once from Go modules (tools/go), or taken from $KUBEBUILDER_ASSETS.
"""

from apiserver.cluster import Cluster
from apiserver.programs import MissingError, Programs, programs

__all__ = ["Cluster", "MissingError", "Programs", "programs"]
