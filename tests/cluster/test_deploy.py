"""The deploy step against a real API server: what is left where new servers do not come up."""

import time
from dataclasses import asdict

import pytest

from presets.errors import KaiflowError
from presets.recipe import DeployRecipe
from presets.serving_place import ServingPlace
from steps.contract import Context, Request, WorkspaceRef
from steps.deploy_cluster import deploy
from steps.node_provisioner import Clock
from tests.unit.steps.test_serving_objects import SERVED


@pytest.fixture
def namespace(cluster):
    name = f"d-{time.time_ns() % 10**10}"
    body = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}}
    cluster.apply(f"/api/v1/namespaces/{name}", body)
    yield name
    cluster.delete(f"/api/v1/namespaces/{name}")


def test_the_deployment_is_again_that_of_the_run_before(cluster, namespace, tmp_path):
    path = f"/apis/apps/v1/namespaces/{namespace}/deployments/ws"

    def fails(run):
        """An image of no name can be started nowhere: the step says so at once."""
        workspace = WorkspaceRef(name="ws", namespace=namespace, uid="", revision="r1")
        request = Request(
            verb="deploy", workspace=workspace, store=SERVED.store, target="cluster",
            recipe={
                "model": asdict(SERVED.model), "quantization": asdict(SERVED.quantization),
                "deploy": asdict(DeployRecipe(True, 1, "auto")), "place": asdict(ServingPlace(f"No Name {run}")),
            },
            inputs={"run": run, "weights": SERVED.weights, "port": "5000", "workflow": f"ws-{run[-2:]}"},
        )  # fmt: skip
        with pytest.raises(KaiflowError, match="cannot be started"):
            deploy(request, Context(tmp_path, lambda done, total: None), cluster, Clock(sleep=time.sleep))

    fails("sha256:" + "1" * 64)
    first = cluster.get(path)["spec"]
    fails("sha256:" + "2" * 64)
    assert cluster.get(path)["spec"] == first
