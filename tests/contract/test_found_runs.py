"""A training that is found again is judged as it was when it ended: what the gate has refused stays refused."""

import pytest

from controller.loading import load_one
from pipelines.plan import plan, told
from presets.recipe import EvaluationRecipe
from steps import tune
from steps.base_weights import FILES_TYPE
from steps.content_keys import ADAPTER_TYPE
from steps.contract import Context, Request, WorkspaceRef
from steps.fetch import ARTIFACT_TYPE as DATASET_TYPE
from steps.oci_layout import LayoutStore
from steps.push import judge
from steps.store import publish
from tests.contract.test_golden_workflows import ROOT

WORSE, BETTER = "3.0 0.2 0.01", "3.0 -0.2 0.01"  # loss of what is published, difference, its standard error


@pytest.fixture
def store(tmp_path):
    return LayoutStore(tmp_path / "store")


@pytest.fixture
def trainings():
    return []


@pytest.fixture
def trained(tmp_path, store, monkeypatch, trainings):
    """Trains, by a function that says how the adapter did against what is published; trainings are counted."""
    recipe = told(plan(load_one(ROOT / "examples/quickstart.yaml", None).recipe), "tune")
    (tmp_path / "file").write_text("x")
    files = {"config.json": tmp_path / "file"}
    dataset = publish(store, DATASET_TYPE, files, {"kaiflow.dataset.content": "sha256:rows"}, [])
    weights = publish(store, FILES_TYPE, files, {tune.REVISION: "1"}, [])

    def once(published, says, gate="enforce"):
        def train_here(request, context, key, *_):
            output = context.work / "adapter" / key
            output.mkdir(parents=True, exist_ok=True)
            (output / "adapter_model.safetensors").write_text("adapter")
            trainings.append(key)
            return {
                "steps": 4, "total_steps": 4, "stopped_by": "", "base": {"loss": 3.5}, "tuned": {"loss": 3.2},
                "difference": -0.3, "standard_error": 0.01, "against_published": says if published else "",
                **dict.fromkeys(tune.OF_THIS_MACHINE, 1),
            }  # fmt: skip

        monkeypatch.setattr(tune, "train_here", train_here)
        monkeypatch.setattr(tune, "report", lambda *_: "page")
        judged = {**recipe["evaluation"], "gate": gate}
        inputs = {"dataset": dataset.digest, "weights": weights.digest, "published": published}
        request = Request(
            verb="tune", workspace=WorkspaceRef(name="w", namespace="n", uid="u", revision="r"),
            store=f"layout:{tmp_path}/store", target="local", recipe={**recipe, "evaluation": judged}, inputs=inputs,
        )  # fmt: skip
        return dict(tune.run(request, Context(tmp_path / "work", lambda done, total: None)).outputs)

    return once


def verdict(store, outputs):
    adapter = store.find(outputs["run"])
    return judge(adapter, EvaluationRecipe("enforce", 0), outputs["against-published"])[0]


def test_what_the_gate_has_refused_is_refused_again_when_it_is_found(store, trained, trainings):
    published = publish(store, ADAPTER_TYPE, {}, {"kaiflow.run.key": "of before"}, []).digest
    first, second = trained(published, WORSE), trained(published, "never asked")
    assert (first["cached"], second["cached"]) == ("false", "true")
    assert verdict(store, first) == verdict(store, second) == "refused"
    assert len(trainings) == 1


def test_what_was_never_compared_with_what_is_published_now_is_not_taken_for_better(store, trained):
    alone = trained("", "")
    assert verdict(store, alone) == "passed"
    published = publish(store, ADAPTER_TYPE, {}, {"kaiflow.run.key": "of before"}, []).digest
    compared = trained(published, WORSE)
    assert compared["run"] == alone["run"]
    assert verdict(store, compared) == "refused"
    assert trained(published, BETTER)["against-published"] == WORSE


def test_where_nobody_asks_how_it_did_against_it_or_it_is_gone_nothing_is_trained_again(store, trained, trainings):
    trained("", "")
    assert trained("sha256:" + "0" * 64, WORSE)["against-published"] == ""
    published = publish(store, ADAPTER_TYPE, {}, {"kaiflow.run.key": "of before"}, []).digest
    assert trained(published, WORSE, gate="off")["cached"] == "true"
    assert len(trainings) == 1


def test_what_is_published_itself_needs_no_comparison(trained, trainings):
    first = trained("", "")
    again = trained(first["run"], WORSE)
    assert (again["cached"], again["against-published"]) == ("true", "")
    assert len(trainings) == 1
