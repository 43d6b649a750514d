"""What the tests of the whole chain have: one real node, on which VMs and the product run."""

import os
from collections.abc import Iterator

import pytest

from apiserver import MissingError, programs
from gobuild import build
from gobuild.catalogue import CONTAINER_RUNTIME, HELM, KUBERNETES_NODE
from image import ImageError, ensure_images
from node import Node, vm
from tests.node.release import Release
from tests.node.scene import Scene

if os.geteuid() != 0:
    raise pytest.UsageError("a node's programs make namespaces, mounts and cgroups: run as root")


def pytest_collection_finish(session: pytest.Session) -> None:
    """Build the programs before the first test's clock runs, for all to see: it takes minutes."""
    if session.config.option.collectonly:
        return
    capture = session.config.pluginmanager.getplugin("capturemanager")
    with capture.global_and_fixture_disabled():
        try:
            programs()
            build(KUBERNETES_NODE)
            build(CONTAINER_RUNTIME)
            build(HELM)
            ensure_images()
        except (ImageError, MissingError) as error:
            raise pytest.UsageError(str(error)) from None


@pytest.fixture(scope="session")
def node() -> Iterator[Node]:
    """The node that the tests share, ready for KubeVirt's VMs."""
    with Node() as node:
        vm.serve(node)
        yield node


@pytest.fixture(scope="session")
def release(node: Node) -> Release:
    """The product, installed. It goes with the node."""
    release = Release(node)
    release.install()
    return release


@pytest.fixture
def scene(node: Node) -> Iterator[Scene]:
    """VMs of the test's own."""
    with Scene(node) as scene:
        yield scene
