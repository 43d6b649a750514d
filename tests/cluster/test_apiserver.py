"""The control plane that the other tests stand on."""

from pathlib import Path

import pytest
from kubernetes.client import ApiClient

from apiserver import Cluster, MissingError, Programs, programs
from tests.cluster.api import POLICIES, ask
from tests.cluster.documents import POLICY, stored


def test_what_is_stored_outlives_the_api_server(cluster: Cluster, api: ApiClient) -> None:
    with stored(api, POLICIES, POLICY) as created:
        cluster.stop_server()
        cluster.start_server()
        assert ask(api, "GET", f"{POLICIES}/p")["metadata"]["uid"] == created["metadata"]["uid"]


def test_programs_are_taken_from_kubebuilder_assets(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("KUBEBUILDER_ASSETS", str(tmp_path))
    names = ("kube-apiserver", "etcd", "kubectl")
    for name in names:
        with pytest.raises(MissingError, match=rf"{name} is no program .*KUBEBUILDER_ASSETS"):
            programs()
        (tmp_path / name).touch(mode=0o755)
    assert programs() == Programs(*(tmp_path / name for name in names))


def test_without_go_it_is_said_how_to_have_it(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr("sys.prefix", str(tmp_path))
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("KUBEBUILDER_ASSETS", raising=False)
    with pytest.raises(MissingError, match=r"go is not installed.*make install"):
        programs()


def test_a_build_that_fails_says_why_and_leaves_nothing(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    go = tmp_path / "bin" / "go"
    go.parent.mkdir()
    go.write_text(
        "#!/bin/sh\ncase $1 in version) ;; list) echo v1.2.3 ;; *) echo no $1; exit 1 ;; esac"
    )
    go.chmod(0o755)
    monkeypatch.setattr("sys.prefix", str(tmp_path))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.delenv("KUBEBUILDER_ASSETS", raising=False)
    with pytest.raises(MissingError, match=r"(?s)exit status 1.*no build"):
        programs()
    assert [left.name for left in (tmp_path / "cache/peacemaker/go").iterdir()] == ["lock"]
