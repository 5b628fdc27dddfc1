"""The command line on a real API server."""

import json
import os
from pathlib import Path

import pytest
import yaml
from typer.testing import CliRunner

from controller.main import app
from presets.errors import KaiflowError
from tests.cluster.operator_process import until
from tests.cluster.test_controller import controller, place, workspace  # noqa: F401  (fixtures)

CONFIG = "training_config:\n  QuantizationConfig: {load_in_4bit: true}\n  TrainingArguments: {max_steps: 2}\n"


@pytest.fixture
def kaiflow(place):  # noqa: F811
    def run(*arguments, code=0):
        done = CliRunner().invoke(app, [*arguments, "-n", place.namespace])
        assert done.exit_code == code or isinstance(done.exception, KaiflowError), done.output
        if done.exit_code and isinstance(done.exception, KaiflowError):
            raise done.exception
        return done.stdout

    return run


def test_a_workspace_is_submitted_watched_stopped_explained_and_deleted(place, controller, kaiflow, tmp_path: Path):  # noqa: F811
    config = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "mine"}}
    config["data"] = {"training_config.yaml": CONFIG}
    file = tmp_path / "ws.yaml"
    file.write_text(yaml.safe_dump_all([workspace(config="mine"), config]))
    kaiflow("submit", str(file), "--dry-run")
    assert place.get() is None
    place.argo.seconds = 3.0
    kaiflow("submit", str(file))
    until(lambda: place.status().get("state") == "Running")
    assert "ws " in kaiflow("get", "--cluster")
    assert kaiflow("get", "--kubeconfig", os.environ["KUBECONFIG"], "-o", "name") == "workspace.kaito.sh/ws\n"
    assert json.loads(kaiflow("get", "ws", "--cluster", "-o", "json"))["status"]["state"] == "Running"
    kaiflow("stop", "ws", "--cluster")
    place.wait_state("Failed")
    told = kaiflow("why", "ws", "--cluster")
    assert "ws is Failed" in told
    assert "Stopped" in told
    assert "fetch" in kaiflow("status", "ws", "--cluster", "-w", code=1)
    kaiflow("delete", "ws", "--cluster")
    until(lambda: place.get() is None, 60)


def test_what_is_wrong_with_a_file_is_said_before_the_cluster_is_asked(place, kaiflow, tmp_path: Path):  # noqa: F811
    file = tmp_path / "ws.yaml"
    file.write_text(yaml.safe_dump(workspace(method="full")))
    with pytest.raises(KaiflowError, match="full"):
        kaiflow("submit", str(file))
    assert place.get() is None


def test_a_name_that_is_not_there_names_the_nearest(place, kaiflow):  # noqa: F811
    place.apply(workspace("support"))
    with pytest.raises(KaiflowError) as missing:
        kaiflow("status", "suport", "--cluster")
    assert "support" in missing.value.fix
    with pytest.raises(KaiflowError, match="no pod of tune"):
        kaiflow("logs", "support", "tune", "--cluster")
    with pytest.raises(KaiflowError, match="not served"):
        kaiflow("chat", "support", "hello", "--cluster")
    assert "No controller has looked at it yet" in kaiflow("why", "support", "--cluster")
