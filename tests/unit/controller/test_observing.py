"""What is asked for one by one, where rights are missing."""

import asyncio
from types import SimpleNamespace
from typing import Any

import pytest

from controller.intent import Intent, Refusal
from controller.kube_api import ApiError, Object
from controller.observing import FRESH_SECONDS, Observer, _is_of_another, is_telling, must_ask_again
from controller.reflector import Key
from pipelines.nodes import node_id
from pipelines.plan import Placement
from steps.contract import UID_LABEL, WORKSPACE_LABEL

KEY = ("team", "tune-phi-3")


class Looking:
    """How the Workspace is looked at, where the API server answers by ``get``."""

    def __init__(self, workspace, get, text=None):
        workspace["metadata"] |= {"namespace": KEY[0], "uid": "u-1", "generation": 1}

        async def answered(path, query=None, accept=""):
            return get(path)

        api: Any = SimpleNamespace(get=answered, text=text)
        self.runs: dict[Key, Object] = {}
        live: list[Any] = [SimpleNamespace(objects=o, known=True) for o in ({KEY: workspace}, self.runs, {})]
        self.observer = Observer(api, Placement(), *live)

    def __call__(self):
        seen = asyncio.run(self.observer.observe(KEY))
        assert seen is not None
        return seen[0]


def wish_of(workspace, get):
    """Return what the Workspace asks for, where the API server answers by ``get``."""
    return Looking(workspace, get)().intent


def forbidden(path):
    raise ApiError(403, f"GET {path}", "configmaps is forbidden")


@pytest.mark.parametrize("config", ["mine", ...], ids=["names a ConfigMap", "names none"])
def test_a_namespace_that_the_controller_was_given_no_rights_in_is_told_so(workspace, put, config):
    said = wish_of(put(workspace, "tuning.config", config), forbidden)
    assert isinstance(said, Refusal)
    assert said.reason == "NamespaceNotServed"
    assert "'team'" in said.message
    assert "namespaces" in said.message  # the value of the chart
    assert "--reset-then-reuse-values" in said.message  # --reuse-values lacks what a newer chart has come to know


def test_without_rights_to_look_for_secrets_they_are_taken_to_be_there(workspace):
    assert isinstance(wish_of(workspace, lambda path: forbidden(path) if "secrets" in path else None), Intent)


def test_a_secret_that_is_missing_is_named(workspace):
    said = wish_of(workspace, lambda path: None)
    assert isinstance(said, Refusal)
    assert said.reason == "SecretNotFound"


def test_a_namespace_that_is_served_now_is_looked_at_again(workspace, put, monkeypatch):
    put(workspace, "tuning.output", {"volumeSource": {"persistentVolumeClaim": {"claimName": "out"}}})  # no Secret
    rights, now = [], [100.0]

    def get(path):
        if not rights:
            forbidden(path)

    look = Looking(workspace, get)
    monkeypatch.setattr("controller.observing.time", SimpleNamespace(monotonic=lambda: now[0]))
    refused = look()
    assert isinstance(refused.intent, Refusal)
    assert must_ask_again(refused)
    rights.append("given")
    now[0] += FRESH_SECONDS + 1
    assert isinstance(look().intent, Intent)


def test_what_a_crd_of_fewer_fields_did_not_keep_is_remembered(workspace):
    workspace["status"] = {"state": "Ready"}
    look = Looking(workspace, lambda path: None)
    look.observer.memory[KEY].less_stored = ({"state": "Ready", "workflow": "w"}, {"state": "Ready"})
    assert look().workspace["status"] == {"state": "Ready", "workflow": "w"}
    workspace["status"] = {"state": "Failed"}  # somebody else has written it
    assert look().workspace["status"] == {"state": "Failed"}


def test_a_log_that_does_not_come_holds_nobody_up(workspace, monkeypatch):
    async def never(path, query):
        await asyncio.sleep(60)

    monkeypatch.setattr("controller.observing.LOG_TIMEOUT_SECONDS", 0.05)
    look = Looking(workspace, lambda path: None, text=never)
    name = "ws-1"
    node = {"id": "ws-1-1", "name": f"{name}.tune", "displayName": "tune", "type": "Pod", "phase": "Running"}
    run = {
        "metadata": {"name": name, "namespace": KEY[0], "creationTimestamp": "2026-11-25T09:00:00Z",
                     "labels": {WORKSPACE_LABEL: KEY[1]}},
        "spec": {"templates": [{"dag": {"tasks": [{"name": "tune"}]}}]},
        "status": {"phase": "Running", "nodes": {node_id(name, f"{name}.tune"): node}},
    }  # fmt: skip
    look.runs[KEY[0], name] = run
    look.observer.index(None, run)
    seen = look()
    assert is_telling(seen)
    assert seen.training is None


def test_a_run_of_the_schedule_of_an_earlier_workspace_is_none_of_ours():
    """Its owner is the CronWorkflow, whose garbage is collected later."""
    of_schedule = {
        "metadata": {"labels": {UID_LABEL: "old"}, "ownerReferences": [{"kind": "CronWorkflow", "uid": "c"}]}
    }
    assert _is_of_another(of_schedule, "new")
    assert not _is_of_another(of_schedule, "old")
    assert not _is_of_another({"metadata": {}}, "new")  # an older kaiflow's
