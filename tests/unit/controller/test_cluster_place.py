"""What the commands read off a cluster."""

from typing import Any

from controller.cluster_place import COMPONENT, RUN_OF_POD, ClusterPlace


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
