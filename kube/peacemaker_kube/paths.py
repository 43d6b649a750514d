"""Where the API server keeps what peacemaker reads and writes."""

from typing import Final

API_VERSION: Final = "peacemaker.dev/v1alpha1"

PEACE_POLICIES: Final = f"/apis/{API_VERSION}/peacepolicies"
PEACE_LISTS: Final = f"/apis/{API_VERSION}/peacelists"
VMIS: Final = "/apis/kubevirt.io/v1/virtualmachineinstances"
NODES: Final = "/api/v1/nodes"
NAMESPACES: Final = "/api/v1/namespaces"
PRIORITY_CLASSES: Final = "/apis/scheduling.k8s.io/v1/priorityclasses"
WEBHOOKS: Final = "/apis/admissionregistration.k8s.io/v1/validatingwebhookconfigurations"


def item(collection: str, name: str) -> str:
    """One object of a collection."""
    return f"{collection}/{name}"


def status(collection: str, name: str) -> str:
    """The status of one object of a collection."""
    return f"{collection}/{name}/status"


def core(namespace: str, plural: str) -> str:
    """A collection of the core group in a namespace: configmaps, secrets, pods, events."""
    return f"/api/v1/namespaces/{namespace}/{plural}"
