"""What the commands read off a cluster."""

from typing import Any, cast

import pytest

from controller.cluster_place import COMPONENT, RUN_OF_POD, ClusterPlace
from presets.errors import ConfigError


class Pods:
    """A cluster with one Workspace and some pods."""

    namespace = "team"

    def __init__(self, pods):
        self._pods = pods

    def get(self, path):
        return {"metadata": {"name": "ws"}, "status": {"state": "Ready", "workflow": "ws-new"}}

    def list(self, path, labels):
        return self._pods

    def text(self, path, query):
        return f"from {path.split('/')[-2]}\n"


def pod(name, component, run=""):
    labels = {COMPONENT: component, **({RUN_OF_POD: run} if run else {})}
    return {"metadata": {"name": name, "creationTimestamp": "2026-11-27T00:00:00Z", "labels": labels}}


def test_logs_are_those_of_the_newest_run_and_of_the_server(capsys):
    pods = [pod("old", "tune", "ws-old"), pod("new", "tune", "ws-new"), pod("serves", "server")]
    cluster: Any = Pods(pods)
    ClusterPlace(cluster, None).logs("ws", None, follow=False, tail=None)
    said = capsys.readouterr().out
    assert "from new" in said
    assert "from serves" in said
    assert "from old" not in said


def test_logs_begin_where_it_is_asked_for(capsys):
    cluster: Any = Pods([pod("new", "tune", "ws-new")])
    cluster.text = lambda path, query: "one\ntwo\nthree\n"
    ClusterPlace(cluster, None).logs("ws", None, follow=False, tail=2)
    assert capsys.readouterr().out == "two\nthree\n"


def test_a_log_that_is_not_to_be_had_for_a_moment_is_not_printed_twice(capsys, monkeypatch):
    """One look failed made the next print all of it again."""
    answers = iter(["one\n", None, "one\ntwo\n", "one\ntwo\n"])
    cluster: Any = Pods([pod("new", "tune", "ws-new")])
    cluster.text = lambda path, query: next(answers)
    states = iter(["Running", "Running", "Running", "Ready", "Ready"])
    cluster.get = lambda path: {"metadata": {"name": "ws"}, "status": {"state": next(states), "workflow": "ws-new"}}
    monkeypatch.setattr("time.sleep", lambda seconds: None)
    ClusterPlace(cluster, None).logs("ws", None, follow=True, tail=None)
    assert capsys.readouterr().out == "one\ntwo\n"


def test_a_cluster_that_does_not_know_workspaces_is_told_from_one_that_has_none():
    cluster: Any = Pods([])
    cluster.get = lambda path: None if path == "/apis/kaito.sh/v1beta1" else {}
    with pytest.raises(ConfigError, match="does not know Workspaces"):
        ClusterPlace(cluster, None).workspaces({}, everywhere=False)
    cluster.get = lambda path: {}
    assert ClusterPlace(cluster, None).workspaces({}, everywhere=False) == []


@pytest.mark.parametrize("name", ["ws-aaaa-cleanup", "ws-aaaa-cleanup-x7k2p"])
def test_what_gives_nodes_back_is_not_stopped_whatever_argos_ui_has_called_it(name):
    run = {"metadata": {"name": name, "labels": {"kaiflow.dev/cleanup": ""}}, "status": {"phase": "Running"}}
    assert ClusterPlace(cast("Any", Pods([run])), None).stop("ws") == []
