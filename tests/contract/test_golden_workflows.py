"""Each example beside its golden Workflow: ``make golden`` writes them anew, CI refuses a drift."""

import os
from pathlib import Path

import pytest
import yaml
from hera.workflows import models as m

from controller.loading import load_one
from controller.output import Format
from controller.planning import rendered
from pipelines.plan import Placement, plan
from pipelines.support import check_supported
from pipelines.workflow import checked, compile_workflow
from presets.errors import ConfigError, InvalidInput
from steps.contract import OUTPUTS

ROOT = Path(__file__).parents[2]
EXAMPLES = sorted((ROOT / "examples").glob("*.yaml"))
GOLDEN = ROOT / "tests" / "golden"


@pytest.fixture(params=EXAMPLES, ids=lambda path: path.stem)
def example(request):
    return request.param


def documents(example):
    return list(yaml.safe_load_all(rendered(load_one(example, None).recipe, Format.YAML, Placement())))


def test_the_workflow_of_an_example_is_its_golden_file(example):
    text = rendered(load_one(example, None).recipe, Format.YAML, Placement()) + "\n"
    golden = GOLDEN / example.name
    if os.environ.get("KAIFLOW_REGENERATE") and not os.environ.get("CI"):
        golden.write_text(text)
    assert text == golden.read_text()


def test_no_golden_file_is_left_over():
    assert {path.name for path in GOLDEN.glob("*.yaml")} == {path.name for path in EXAMPLES}


def test_it_passes_argos_own_models_and_loses_nothing(example):
    kinds = {"Workflow": m.Workflow, "CronWorkflow": m.CronWorkflow}
    for body in documents(example):
        model = kinds[body["kind"]].model_validate(body)
        again = model.model_dump(mode="json", by_alias=True, exclude_none=True)
        assert again == body


def test_names_are_unique_and_argos(example):
    for body in documents(example):
        assert checked(body) is body


def test_two_templates_of_one_name_are_refused(example):
    body = documents(example)[0]
    body["spec"]["templates"].append(body["spec"]["templates"][0])
    with pytest.raises(ConfigError, match="refuses these names"):
        checked(body)


def test_every_step_gives_the_outputs_of_its_contract_and_runs_restricted(example):
    for body in documents(example):
        spec = body["spec"].get("workflowSpec", body["spec"])
        assert spec["securityContext"]["runAsNonRoot"] is True
        for template in spec["templates"]:
            if "dag" in template:
                continue
            names = tuple(p["name"] for p in template["outputs"]["parameters"])
            assert names == OUTPUTS[template["name"]]
            security = template["container"]["securityContext"]
            assert security["capabilities"] == {"drop": ["ALL"]}
            assert not security["allowPrivilegeEscalation"]
            assert security["readOnlyRootFilesystem"]


def test_release_is_the_exit_handler(example):
    for body in documents(example):
        spec = body["spec"].get("workflowSpec", body["spec"])
        assert spec["onExit"] == "release"


def test_no_secret_is_in_a_workflow(example):
    text = rendered(load_one(example, None).recipe, Format.YAML, Placement())
    assert "HF_TOKEN=" not in text
    assert "password" not in text.lower()


def test_a_schedule_becomes_a_cron_workflow_in_its_time_zone():
    workflow, cron = documents(ROOT / "examples" / "scheduled-retune.yaml")
    assert cron["kind"] == "CronWorkflow"
    assert cron["spec"]["schedules"] == ["0 3 * * 0"]
    assert cron["spec"]["timezone"] == "Europe/Prague"
    assert cron["spec"]["concurrencyPolicy"] == "Forbid"
    assert cron["spec"]["workflowSpec"]["templates"] == workflow["spec"]["templates"]


def test_the_local_engine_takes_what_needs_no_volume_and_refuses_the_rest_by_name(example):
    body = compile_workflow(plan(load_one(example, None).recipe))
    if example.stem != "image-to-volume":
        check_supported(body)
        return
    with pytest.raises(InvalidInput) as caught:
        check_supported(body)
    assert [e.field for e in caught.value.errors] == ["spec.volumes[output].persistentVolumeClaim"]
