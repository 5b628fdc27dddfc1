"""Whose Workspaces are taken."""

import asyncio
from types import SimpleNamespace
from typing import Any

import pytest

from controller import actions
from controller.cluster_operator import Operator, Settings, is_of_another
from controller.events import Told
from controller.kube_api import ApiError
from controller.operator_metrics import OperatorMetrics
from pipelines.plan import Placement
from presets.crd import crd


def test_ours_is_told_from_kaitos_by_its_label_whoever_installed_it():
    by_helm = crd()
    by_helm["metadata"]["labels"]["app.kubernetes.io/managed-by"] = "Helm"
    kaitos = {"metadata": {"name": "workspaces.kaito.sh", "labels": {"app.kubernetes.io/managed-by": "Helm"}}}
    assert not is_of_another(None)
    assert not is_of_another(by_helm)
    assert is_of_another(kaitos)
    assert is_of_another({"metadata": {"name": "workspaces.kaito.sh"}})


@pytest.mark.parametrize(("status", "annotated_alone"), [(404, False), (403, True)])
def test_where_the_crd_cannot_be_read_kaitos_workspaces_do_not_become_ours(status, annotated_alone):
    assert asyncio.run(shares(status)) is annotated_alone


def test_an_api_server_that_cannot_say_now_is_asked_again_by_the_next_life():
    with pytest.raises(ApiError):
        asyncio.run(shares(503))


async def shares(status):
    """Return what the controller takes itself to be, where the CRD is answered so."""

    class Answers:
        async def get(self, path):
            if status == 404:
                return
            raise ApiError(status, f"GET {path}", "said the server")

    answers: Any = Answers()
    return await Operator(answers, Settings(Placement()), OperatorMetrics())._shares_with_kaito()


class Refusing:
    """Performs everything but one kind of action, which the API server refuses."""

    def __init__(self, refused, status):
        self.refused, self.status, self.did = refused, status, []

    async def perform(self, subject, action):
        self.did.append(action)
        if isinstance(action, self.refused):
            raise ApiError(self.status, "POST workflows", "admission webhook denied the request")


@pytest.mark.parametrize(("status", "told"), [(403, True), (422, True), (500, False)])
def test_a_workflow_that_the_api_server_refuses_is_told_and_the_status_written(status, told):
    operator = Operator(SimpleNamespace(), Settings(Placement()), OperatorMetrics())  # type: ignore[arg-type]
    operator._performer = performer = Refusing(actions.CreateRun, status)  # type: ignore[assignment]
    body = {"metadata": {"namespace": "n", "name": "w", "generation": 1, "annotations": {}}}
    todo = [actions.CreateRun(), actions.WriteStatus({"state": "Pending"})]
    seen = SimpleNamespace(workspace=body, workflows=[], intent=None)
    with pytest.raises(ApiError):
        asyncio.run(operator._do(("n", "w"), seen, None, todo))  # type: ignore[arg-type]
    kinds = [type(action).__name__ for action in performer.did]
    assert kinds == (["CreateRun", "Tell", "WriteStatus"] if told else ["CreateRun"])


def test_what_was_refused_is_not_told_as_done_and_a_node_that_is_held_keeps_its_run():
    """A status that says that the run is gone would let nobody give its node back any more."""
    operator = Operator(SimpleNamespace(), Settings(Placement()), OperatorMetrics())  # type: ignore[arg-type]
    operator._performer = performer = Refusing(actions.ReleaseRun, 403)  # type: ignore[assignment]
    body = {"metadata": {"namespace": "n", "name": "w", "generation": 1, "annotations": {}}}
    given_back, gone = Told("NodeReleased", "its node is given back"), Told("RunDeleted", "it is gone")
    todo: list[actions.Action] = [
        actions.ReleaseRun("w-1", gone=True), actions.Tell(given_back, when="done"),
        actions.Tell(gone, when="written"), actions.WriteStatus({"state": "Failed"}),
    ]  # fmt: skip
    with pytest.raises(ApiError):
        asyncio.run(operator._do(("n", "w"), SimpleNamespace(workspace=body, workflows=[], intent=None), None, todo))  # type: ignore[arg-type]
    told = [action.told.reason for action in performer.did if isinstance(action, actions.Tell)]
    assert told == ["ReconcileFailed"]
    assert not any(isinstance(action, actions.WriteStatus) for action in performer.did)
    performer.did.clear()
    todo[0] = actions.ReleaseRun("w-1")  # of a run that is there: it can be looked at again
    with pytest.raises(ApiError):
        asyncio.run(operator._do(("n", "w"), SimpleNamespace(workspace=body, workflows=[], intent=None), None, todo))  # type: ignore[arg-type]
    told = [action.told.reason for action in performer.did if isinstance(action, actions.Tell)]
    assert told == ["ReconcileFailed", "RunDeleted"]
    assert isinstance(performer.did[-1], actions.WriteStatus)


def test_rights_that_have_gone_are_looked_at_again():
    """They go with their namespace, and what leaves with it must not wait for what nobody may do any more."""
    operator = Operator(SimpleNamespace(), Settings(Placement()), OperatorMetrics())  # type: ignore[arg-type]
    operator._performer = Refusing(actions.CreateCleanup, 403)  # type: ignore[assignment]
    memory = operator._observer.memory["n", "w"]
    memory.wish = known = SimpleNamespace()  # type: ignore[assignment]
    body = {"metadata": {"namespace": "n", "name": "w", "generation": 1, "annotations": {}}}
    seen = SimpleNamespace(workspace=body, workflows=[], intent=None)
    asyncio.run(operator._do(("n", "w"), seen, None, [actions.DeleteServing()]))  # type: ignore[arg-type]
    assert memory.wish is known
    with pytest.raises(ApiError):
        asyncio.run(operator._do(("n", "w"), seen, None, [actions.CreateCleanup()]))  # type: ignore[arg-type]
    assert memory.wish is None
