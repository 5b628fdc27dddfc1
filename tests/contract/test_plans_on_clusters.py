"""What a cluster would say to a plan is said before: another cloud's machine, spot where none is, no card."""

import json

import pytest
import yaml
from typer.testing import CliRunner

from controller.main import app
from controller.output import Format
from controller.planning import cluster_plan, plan_json, write_plan
from pipelines.plan import Placement
from presets.errors import ConfigError, InvalidInput
from presets.gpus import VARIABLE, find_sku, skus
from presets.node_request import AksCluster, NodeAttempt, NodePlacement

A100, H100 = "Standard_NC24ads_A100_v4", "Standard_NC40ads_H100_v5"
KAITO = NodePlacement("karpenter", "azure")
AKS = NodePlacement("aks", "azure", AksCluster("s", "g", "c"))


@pytest.fixture
def asked(workspace, put, recipe_of):
    def of(instance_type=A100, **annotations):
        put(workspace, "resource.instanceType", instance_type)
        said = {f"kaiflow.dev/{key.replace('_', '-')}": value for key, value in annotations.items()}
        put(workspace, "metadata.annotations", said)
        return recipe_of(workspace)

    return of


@pytest.mark.parametrize("annotations", [{"spot": "first"}, {"spot": "only"}, {"zones": "1, 2"}])
def test_spot_and_zones_are_refused_where_kaitos_provisioner_makes_the_nodes(asked, annotations):
    with pytest.raises(ConfigError, match="makes no spot nodes and chooses no zone") as refused:
        cluster_plan(asked(**annotations), Placement(nodes=KAITO))
    assert "aks" in refused.value.fix
    assert cluster_plan(asked(**annotations), Placement(nodes=AKS)).node.attempts


@pytest.mark.parametrize(
    ("instance_type", "cloud", "fallback"),
    [
        ("p4d.24xlarge", "azure", None),
        (A100, "aws", None),
        ("a2-highgpu-1g", "azure", None),
        (A100, "azure", "p5.48xlarge"),
    ],
)
def test_a_machine_of_another_cloud_is_refused_by_its_name(asked, instance_type, cloud, fallback):
    recipe = asked(instance_type, **({"fallback_instance_types": fallback} if fallback else {}))
    with pytest.raises(ConfigError, match=fallback or instance_type) as refused:
        cluster_plan(recipe, Placement(nodes=NodePlacement("karpenter", cloud)))
    assert refused.value.reason == "WrongCloud"


def test_a_machine_that_is_in_no_table_may_be_any_clouds(asked):
    assert cluster_plan(asked("Standard_New_v9"), Placement(nodes=KAITO)).node.attempts == (
        NodeAttempt("Standard_New_v9"),
    )


def test_a_given_node_is_not_planned_as_a_machine_that_is_bought(asked, capsys):
    placement = Placement(nodes=NodePlacement("byo"))
    planned = cluster_plan(asked(...), placement)
    write_plan(planned, Format.TABLE, None, ())
    told = capsys.readouterr().out
    assert "a node that you give" in told
    assert "$" not in told
    assert plan_json(planned)["machine"] is None


def test_what_no_card_holds_is_told_by_its_largest_terms(asked, workspace, put, recipe_of):
    asked(...)
    put(workspace, "tuning.preset.name", "qwen2.5-coder-32b-instruct")
    recipe = recipe_of(workspace, LoraConfig={"r": 4096})
    with pytest.raises(ConfigError, match="fits no machine that is known") as refused:
        cluster_plan(recipe, Placement(nodes=KAITO))
    assert "adapter" in refused.value.message
    assert "LoraConfig.r" in refused.value.fix


def test_what_the_cluster_tries_next_gives_way_to_what_the_workspace_says(asked):
    nodes = NodePlacement("aks", "azure", AKS.aks, fallback_instance_types=(H100,), zones=("1",), spot="first")
    found = cluster_plan(asked(), Placement(nodes=nodes)).node.attempts
    assert found == (
        NodeAttempt(A100, "1", spot=True), NodeAttempt(A100, "1"),
        NodeAttempt(H100, "1", spot=True), NodeAttempt(H100, "1"),
    )  # fmt: skip
    own = asked(spot="never", zones="2", fallback_instance_types=A100)
    assert {(a.instance_type, a.zone, a.spot) for a in cluster_plan(own, Placement(nodes=nodes)).node.attempts} == {
        (A100, "2", False)
    }


def test_a_budget_is_that_of_the_dearest_machine_that_may_be_taken(asked):
    prices = {name: find_sku(name, skus()).price.usd_per_hour for name in (A100, H100)}  # type: ignore[union-attr]
    recipe = asked(max_cost="5", fallback_instance_types=H100)
    assert recipe.budget.max_seconds == pytest.approx(5 / max(prices.values()) * 3600, abs=0.1)
    with pytest.raises(InvalidInput, match="What Standard_New_v9 costs is not known"):
        asked(max_cost="5", fallback_instance_types="Standard_New_v9")


@pytest.fixture
def table(tmp_path):
    def written(body):
        path = tmp_path / "gpus.yaml"
        path.write_text(yaml.safe_dump(body))
        return path

    return written


def table_of(**entry):
    name = next(key for key, gpu in gpus().items() if gpu == find_sku(A100, skus()).gpu.name)  # type: ignore[union-attr]
    body = {"gpu": name, "count": 1, **entry}
    return {"skus": {"azure": {A100.lower(): body}}, "sources": {"ours": {"text": "ours", "date": "2026-11-27"}}}


def gpus():
    from presets.gpus import _table

    return {key: body["name"] for key, body in _table()["gpus"].items()}


def test_a_file_of_machines_counts_for_the_budget_too_and_spells_names_as_the_cloud_does(asked, table, monkeypatch):
    path = table(table_of(usd_per_hour=10.0, region="here", source="ours"))
    monkeypatch.setenv(VARIABLE, str(path))
    assert asked(max_cost="5").budget.max_seconds == 1800
    assert find_sku(A100, skus()).name == A100  # type: ignore[union-attr]


@pytest.mark.parametrize(
    "body",
    [table_of(count=0), table_of(count=-3), table_of(usd_per_hour=-5.0, region="x", source="ours"), {"skuz": {}}, []],
    ids=["no card", "fewer", "paid for it", "no such part", "a list"],
)
def test_a_file_of_machines_that_cannot_be_is_refused(table, body):
    with pytest.raises(ConfigError, match="not a table of GPU machines"):
        skus(table(body))


def test_the_command_says_what_a_cluster_would_refuse(tmp_path, workspace, put):
    put(workspace, "tuning.preset.name", "HuggingFaceTB/SmolLM2-360M-Instruct")
    put(workspace, "resource.instanceType", ...)
    file = tmp_path / "ws.yaml"
    file.write_text(yaml.safe_dump(workspace))
    shown = CliRunner().invoke(app, ["plan", str(file)])
    assert shown.exit_code == 0, shown.output
    assert "Such a cluster refuses it: No machine is named" in shown.output
    told = yaml.safe_load(CliRunner().invoke(app, ["plan", str(file), "-o", "yaml"]).output)
    assert told["refused"]["reason"] == "InstanceTypeMissing"


def test_the_command_says_when_a_budget_ends_the_training(tmp_path, workspace):
    file = tmp_path / "ws.yaml"
    file.write_text(yaml.safe_dump(workspace))
    shown = CliRunner().invoke(app, ["plan", str(file), "--max-hours", "0.5", "--tokens", "10000000"])
    assert "ends after 0.5 h at the latest" in shown.output


def test_more_servers_than_the_node_has_gpus_are_refused_before_anything_is_paid_for(asked, workspace, put, recipe_of):
    asked()
    put(workspace, "tuning.deploy", {"replicas": 2})
    with pytest.raises(ConfigError, match="the node that has trained has 1") as refused:
        cluster_plan(recipe_of(workspace), Placement(nodes=KAITO))
    assert refused.value.reason == "TooManyReplicas"
    put(workspace, "tuning.deploy", {"replicas": 2, "runtime": "transformers"})
    assert cluster_plan(recipe_of(workspace), Placement(nodes=KAITO))
    put(workspace, "tuning.deploy", {"replicas": 2})
    put(workspace, "resource.instanceType", "Standard_NC48ads_A100_v4")
    assert cluster_plan(recipe_of(workspace), Placement(nodes=KAITO)).node.gpus == 2
    put(workspace, "resource.instanceType", "Standard_New_v9")  # which may have any number
    assert cluster_plan(recipe_of(workspace), Placement(nodes=KAITO))


@pytest.mark.parametrize("place", ["input", "output"])
def test_a_folder_of_a_node_is_no_volume_of_a_clusters(asked, workspace, put, recipe_of, place):
    """Who may write Workspaces, and no pods, would read what lies on nodes."""
    asked()
    put(workspace, f"tuning.{place}", {"volumeSource": {"hostPath": {"path": "/"}}})
    with pytest.raises(ConfigError, match=rf"tuning\.{place}\.volumeSource") as refused:
        cluster_plan(recipe_of(workspace), Placement(nodes=KAITO))
    assert refused.value.reason == "HostPathRefused"


def test_the_budget_is_counted_by_the_prices_of_the_file_that_is_named(table, tmp_path, workspace, monkeypatch):
    """The file must be known before the Workspace is read: the rules and the budget ask for its machines."""
    monkeypatch.setenv(VARIABLE, "set, so that it is again what it was")
    monkeypatch.delenv(VARIABLE)
    path = tmp_path / "w.yaml"
    path.write_text(yaml.safe_dump(workspace))
    named = ("--gpus", str(table(table_of(usd_per_hour=10.0, region="here", source="ours"))))
    said = CliRunner().invoke(app, ["plan", str(path), *named, "--max-cost", "5", "-o", "json"])
    assert json.loads(said.stdout)["budget_seconds"] == 1800
