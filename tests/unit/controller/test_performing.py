"""What is done where another was faster, or has the name."""

import asyncio
from types import SimpleNamespace
from typing import Any

import pytest

from controller.actions import ApplyCron, CreateRun, Remember
from controller.intent import MARKED
from controller.kube_api import ApiError
from controller.performing import Performer, Subject
from presets.errors import ConfigError

WORKSPACE = {"metadata": {"name": "ws", "namespace": "team", "uid": "u", "resourceVersion": "1"}}
WORKFLOW, CRON = {"metadata": {"name": "ws-1"}}, {"metadata": {"name": "ws"}}


def performed(action, **answers):
    """Do the action, the API server answering by name of the call; return what was asked of it."""
    asked = []

    def answering(verb):
        async def answer(path, body=None):
            asked.append((verb, body))
            return answers.get(verb)

        return answer

    async def compiled(workspace, config_map):
        return WORKFLOW, CRON

    api: Any = SimpleNamespace(**{verb: answering(verb) for verb in ("get", "create", "apply", "merge")})
    performer = Performer(api, compiled, lambda kind, body, quiet: None)  # type: ignore[arg-type]
    asyncio.run(performer.perform(Subject(WORKSPACE, None), action))
    return asked


def owned_by(uid):
    return {"metadata": {"name": "ws", "ownerReferences": [{"kind": "Workspace", "uid": uid}]}}


@pytest.mark.parametrize("there", [owned_by("another"), {"metadata": {"name": "ws"}}], ids=["another's", "nobody's"])
def test_a_cronworkflow_of_somebody_else_is_let_alone(there):
    with pytest.raises(ConfigError, match="CronWorkflow 'ws'") as refused:
        performed(ApplyCron(), get=there)
    assert refused.value.reason == "NameTaken"


@pytest.mark.parametrize("there", [owned_by("u"), None], ids=["ours", "none"])
def test_our_own_schedule_is_applied(there):
    assert ("apply", CRON) in performed(ApplyCron(), get=there, apply=CRON)


def test_a_conflict_that_left_no_workflow_is_tried_again():
    assert performed(CreateRun(), create=None, get=WORKFLOW)[-1][0] == "get"
    with pytest.raises(ApiError, match="neither created nor there"):
        performed(CreateRun(), create=None, get=None)


def test_the_mark_says_whose_it_is():
    ((_, body),) = performed(Remember("aaaa", 2))
    assert body["metadata"]["annotations"][MARKED] == "u"
