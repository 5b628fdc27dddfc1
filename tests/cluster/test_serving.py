"""From ``kubectl apply`` to an answer: steps as pods, a real registry, a real Deployment behind its Service.

The pods of the first run are those of the Workflow, under the chart's accounts; the controller is a process.

``KAIFLOW_TEST_IMAGE`` names an image of this checkout that the cluster can start, with ``_STEP``, ``_TUNE`` or
``_SERVE`` behind it one of that part alone; ``KAIFLOW_TEST_REGISTRY`` a registry without TLS that both this machine
and pods reach. ``.ci/run`` makes both known where it has a cluster.
"""

import json
import os
import time

import pytest
import urllib3
from typer.testing import CliRunner

from controller.main import app
from steps.docker_config import DockerConfig
from steps.registry_store import RegistryStore
from steps.store import publish
from tests.cluster.argo import Argo
from tests.cluster.operator_process import Controller, until
from tests.cluster.test_controller import SECRET, Place, workspace
from tests.cluster.test_rights import rights_of_the_chart

IMAGE, REGISTRY = os.environ.get("KAIFLOW_TEST_IMAGE"), os.environ.get("KAIFLOW_TEST_REGISTRY", "")
TRAINING = """
training_config:
  QuantizationConfig: {load_in_4bit: true}
  TrainingArguments: {max_steps: 2, max_length: 128}
  DatasetConfig: {context_column: question, response_column: answer}
"""


@pytest.fixture
def place(cluster, kinds, tmp_path, monkeypatch):
    if not IMAGE or not REGISTRY:
        pytest.skip("KAIFLOW_TEST_IMAGE and KAIFLOW_TEST_REGISTRY name no image and no registry")
    monkeypatch.setenv("KAIFLOW_PLAIN_REGISTRIES", REGISTRY)
    namespace = f"s-{time.time_ns() % 10**10}"
    cluster.apply(
        f"/api/v1/namespaces/{namespace}", {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": namespace}}
    )
    cluster.apply(f"/api/v1/namespaces/{namespace}/secrets/registry-login", SECRET)
    argo = Argo(cluster, namespace, tmp_path / "argo", canned=False)
    with gpu_node(cluster), rights_of_the_chart(cluster, namespace), argo:
        yield Place(cluster, namespace, argo)
    for body in cluster.list(f"/apis/kaito.sh/v1beta1/namespaces/{namespace}/workspaces"):
        path = f"/apis/kaito.sh/v1beta1/namespaces/{namespace}/workspaces/{body['metadata']['name']}"
        cluster.patch(path, {"metadata": {"finalizers": None}})
    cluster.delete(f"/api/v1/namespaces/{namespace}")


class gpu_node:  # noqa: N801  (used as a function)
    """Let the cluster's one node carry a label and a GPU, as a device plugin would say."""

    def __init__(self, cluster):
        self.cluster = cluster
        self.path = f"/api/v1/nodes/{cluster.list('/api/v1/nodes')[0]['metadata']['name']}"

    def _set(self, label, gpus):
        self.cluster.patch(self.path, {"metadata": {"labels": {"app": label}}})
        resources = {"nvidia.com/gpu": gpus}
        self.cluster.patch(f"{self.path}/status", {"status": {"capacity": resources, "allocatable": resources}})

    def __enter__(self):
        self._set("ws", "2")  # one serves while one tunes

    def __exit__(self, *_):
        self._set(None, None)


def rows(count, word):
    lines = [{"question": f"What is {word} number {n}?", "answer": f"It is {n * 7}."} for n in range(count)]
    return "".join(json.dumps(line) + "\n" for line in lines)


def put_rows(tmp_path, name, text):
    path = tmp_path / "rows.jsonl"
    path.write_text(text)
    store = RegistryStore(f"{REGISTRY}/{name}/rows", DockerConfig([]))
    publish(store, "application/vnd.example.rows.v1", {"rows.jsonl": path}, {}, ["1"])


def ask(place, prompt):
    service = place.cluster.get(f"/api/v1/namespaces/{place.namespace}/services/ws")
    address = f"http://{service['spec']['clusterIP']}/chat"
    body = {"prompt": prompt, "generate_kwargs": {"max_new_tokens": 4}}
    return urllib3.request("POST", address, json=body, timeout=60.0, retries=False)


@pytest.mark.timeout(600)
def test_a_workspace_that_is_applied_answers_in_the_end_and_moves_on_with_its_data(place, tmp_path):
    team = place.namespace
    put_rows(tmp_path, team, rows(40, "word"))
    config = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "mine"}}
    config["data"] = {"training_config.yaml": TRAINING}
    place.cluster.apply(f"/api/v1/namespaces/{team}/configmaps/mine", config)
    body = workspace(
        config="mine",
        input={"image": f"{REGISTRY}/{team}/rows:1"},
        output={"image": f"{REGISTRY}/{team}/adapter:1", "imagePushSecret": "registry-login"},
        evaluation={"split": 0.1, "gate": "off"},
        deploy={"runtime": "transformers"},
        schedule={"cron": "0 3 * * 0"},
    )
    images = [
        f"--image-{part}={os.environ.get(f'KAIFLOW_TEST_IMAGE_{part.upper()}', IMAGE)}"
        for part in ("step", "tune", "serve")
    ]
    arguments = (*images, "--environment", f"KAIFLOW_PLAIN_REGISTRIES={REGISTRY}")
    with Controller(team, tmp_path / "controller.log", *arguments):
        place.apply(body)
        status = until(lambda: (s := place.status()).get("state") in ("Ready", "Failed") and s, 400, 0.5)
        assert status["state"] == "Ready", status["conditions"]
        assert status["endpoint"] == f"http://ws.{team}.svc.cluster.local"
        assert isinstance(ask(place, "What is word number 3?").json()["Result"], str)
        said = CliRunner().invoke(app, ["chat", "ws", "What is word number 3?", "--cluster", "-n", team])
        assert (said.exit_code, bool(said.stdout.strip())) == (0, True)
        assert "listening" in CliRunner().invoke(app, ["logs", "ws", "server", "--cluster", "-n", team]).stdout
        deployment = place.cluster.get(f"/apis/apps/v1/namespaces/{team}/deployments/ws")
        first = deployment["spec"]["template"]["metadata"]["annotations"]["kaiflow.dev/adapter"]
        assert deployment["spec"]["strategy"]["rollingUpdate"]["maxUnavailable"] == 0
        assert deployment["metadata"]["ownerReferences"][0]["uid"] == place.get()["metadata"]["uid"]
        place.argo.pods = False  # the rest as processes of this machine, which is quicker
        place.argo.tick("ws")  # nothing new
        until(lambda: place.status()["runs"][-1].get("reason") == "NothingNew", 120)
        put_rows(tmp_path, team, rows(44, "thing"))
        place.argo.tick("ws")
        until(lambda: len(place.status()["runs"]) == 3 and place.status()["runs"][-1]["phase"] != "Running", 300, 0.5)
        assert place.status()["runs"][-1]["phase"] == "Succeeded", place.status()["conditions"]
        moved = place.cluster.get(f"/apis/apps/v1/namespaces/{team}/deployments/ws")
        assert moved["spec"]["template"]["metadata"]["annotations"]["kaiflow.dev/adapter"] != first
        assert ask(place, "What is thing number 3?").status == 200
        place.delete()
        until(lambda: place.get() is None, 60)
        until(lambda: place.cluster.get(f"/apis/apps/v1/namespaces/{team}/deployments/ws") is None, 60)
