"""What the deploy step leaves on a cluster, revision after revision; the API server is a folder of objects."""

from dataclasses import asdict

import pytest

from presets.errors import KaiflowError
from presets.recipe import DeployRecipe
from presets.serving_place import ServingPlace
from steps import deploy_cluster
from steps.contract import Context, Request
from steps.deploy_cluster import deploy
from steps.node_provisioner import Clock
from tests.unit.steps.test_serving_objects import SERVED, WORKSPACE

BUDGET = "/apis/policy/v1/namespaces/team/poddisruptionbudgets/ws"


class Objects:
    """Objects by their paths; Deployments are rolled out at once, Services have an address."""

    def __init__(self):
        self.kept = {}
        self.comes_up = True  # whether the servers of what is applied do
        self.pods = []

    def get(self, path):
        return self.kept.get(path)

    def apply(self, path, body):
        added = {"Service": {"spec": {**body["spec"], "clusterIP": "10.0.0.1"}}}
        if body["kind"] == "Deployment":
            replicas = body["spec"]["replicas"]
            done = {"observedGeneration": 1, "replicas": replicas, "updatedReplicas": replicas}
            available = replicas if self.comes_up else 0
            added = {"Deployment": {"metadata": {**body["metadata"], "generation": 1, "resourceVersion": "7"},
                                    "status": {**done, "availableReplicas": available}}}  # fmt: skip
            waiting = {"restartCount": 0, "state": {"waiting": {"reason": "ErrImageNeverPull"}}, "image": "serve"}
            self.pods = [{"metadata": body["spec"]["template"]["metadata"], "status": {"containerStatuses": [waiting]}}]
        self.kept[path] = {**body, **added.get(body["kind"], {})}

    def list(self, path, labels):
        return self.pods

    def delete(self, path):
        del self.kept[path]


@pytest.fixture
def served(tmp_path, monkeypatch):
    monkeypatch.setattr(deploy_cluster, "answers", lambda address: None)
    cluster = Objects()

    def at(replicas, run=SERVED.run, **options):
        cluster.comes_up = options.get("comes_up", True)
        request = Request(
            verb="deploy", workspace=WORKSPACE, store=SERVED.store, target="cluster",
            recipe={
                "model": asdict(SERVED.model), "quantization": asdict(SERVED.quantization),
                "deploy": asdict(DeployRecipe(True, replicas, "auto")), "place": asdict(ServingPlace("serve")),
            },
            inputs={"run": run, "weights": SERVED.weights, "port": "5000", "workflow": "ws-r1"},
        )  # fmt: skip
        deploy(request, Context(tmp_path, lambda done, total: None), cluster, Clock(sleep=lambda _: None))  # type: ignore[arg-type]
        return cluster.kept

    return at


def test_the_budget_goes_with_the_second_replica(served):
    assert BUDGET in served(2)
    assert BUDGET not in served(1)  # it would let the only pod never be moved


def test_a_budget_of_somebody_else_stays(served):
    served(1)[BUDGET] = {"metadata": {"labels": {"app": "theirs"}}}
    assert BUDGET in served(1)


DEPLOYMENT = "/apis/apps/v1/namespaces/team/deployments/ws"


def adapter(kept):
    return kept[DEPLOYMENT]["spec"]["template"]["metadata"]["annotations"]["kaiflow.dev/adapter"]


def test_where_the_new_servers_do_not_come_up_the_deployment_is_that_of_those_that_answer(served):
    kept = served(1)
    first = kept[DEPLOYMENT]["spec"]
    with pytest.raises(KaiflowError, match="image serve cannot be started"):
        served(1, run="sha256:" + "9" * 64, comes_up=False)
    assert (adapter(kept), kept[DEPLOYMENT]["spec"]) == (SERVED.run, first)
    assert "resourceVersion" in kept[DEPLOYMENT]["metadata"]
    assert adapter(served(1, run="sha256:" + "8" * 64)) == "sha256:" + "8" * 64


def test_a_first_deployment_that_does_not_come_up_stays_to_be_looked_at(served):
    with pytest.raises(KaiflowError):
        served(1, comes_up=False)
