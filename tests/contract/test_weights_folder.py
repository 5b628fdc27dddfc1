"""Base weights in a folder of one's own machine: known by what is in it, never pickled, never on a cluster."""

from dataclasses import asdict, replace

import pytest

from controller.loading import errors_of, surroundings
from controller.planning import cluster_plan
from pipelines.plan import Placement
from presets.errors import ConfigError, DataError
from presets.manifest import parse_workspace
from presets.recipe import ModelRecipe
from steps import weights
from steps.base_tokenizer import TokenizerMissing, load_tokenizer, tokenizer_digests
from steps.contract import Context, Request, WorkspaceRef
from steps.oci_layout import LayoutStore
from steps.store import TITLE
from tests.registries import safetensors

MODEL = ModelRecipe("p", "org/base", "main", "mit", False, 512, None, "bfloat16", None, None, None)
FILES = {"config.json": b"{}", "model.safetensors": safetensors(b"one"), "tokenizer.json": b"{}"}
NOT_WANTED = {"pytorch_model.bin": b"pickle", "modeling_phi3.py": b"code", "README.md": b"words"}


def model_in(folder, files=FILES):
    folder.mkdir()
    for name, data in files.items():
        (folder / name).write_bytes(data)
    return folder


def staged(tmp_path, folder):
    """Run the step; return its result and what it has put into the store."""
    store = LayoutStore(tmp_path / "store")
    request = Request(
        verb="weights", workspace=WorkspaceRef(name="a", namespace="b", uid="c", revision="d"),
        store=f"layout:{tmp_path / 'store'}", target="local",
        recipe={"model": asdict(replace(MODEL, folder=str(folder)))}, inputs={"stage": "true"},
    )  # fmt: skip
    work = tmp_path / "work"
    work.mkdir(exist_ok=True)
    result = weights.run(request, Context(work, lambda done, total: None))
    manifest = store.find(result.outputs["weights"])
    assert manifest is not None
    return result, manifest


def test_what_a_model_needs_is_taken_and_the_folder_stays_as_it_was(tmp_path):
    folder = model_in(tmp_path / "model", {**FILES, **NOT_WANTED})
    _, manifest = staged(tmp_path, folder)
    assert {layer.annotations[TITLE] for layer in manifest.layers} == set(FILES)
    assert manifest.annotations["kaiflow.model.revision"].startswith("sha256:")
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == {**FILES, **NOT_WANTED}


def test_the_same_files_elsewhere_are_the_same_weights_and_others_in_the_same_place_are_not(tmp_path):
    first, _ = staged(tmp_path, model_in(tmp_path / "a"))
    moved, _ = staged(tmp_path, model_in(tmp_path / "b"))
    assert moved.outputs == {**first.outputs, "cached": "true"}
    (tmp_path / "a" / "model.safetensors").write_bytes(safetensors(b"two"))
    changed, _ = staged(tmp_path, tmp_path / "a")
    assert changed.outputs["cached"] == "false"
    assert changed.outputs["weights"] != first.outputs["weights"]


def test_links_of_the_hubs_cache_are_followed(tmp_path):
    blobs, snapshot = model_in(tmp_path / "blobs"), tmp_path / "snapshot"
    snapshot.mkdir()
    for path in blobs.iterdir():
        (snapshot / path.name).symlink_to(path)
    staged(tmp_path, snapshot)
    store = LayoutStore(tmp_path / "store")
    manifest = store.find(next(iter(store.tags())))
    assert manifest is not None
    store.check_out(manifest, tmp_path / "out")
    assert (tmp_path / "out" / "model.safetensors").read_bytes() == safetensors(b"one")
    assert not (tmp_path / "out" / "model.safetensors").is_symlink()


@pytest.mark.parametrize(
    "files", [{}, {"config.json": b"{}", "pytorch_model.bin": b"x"}, {"model.safetensors": safetensors(b"x")}]
)
def test_a_folder_without_a_model_as_safetensors_is_refused(tmp_path, files):
    with pytest.raises(DataError, match=r"config\.json and \*\.safetensors"):
        staged(tmp_path, model_in(tmp_path / "model", files))


def test_a_shard_whose_link_leads_nowhere_is_missed(tmp_path):
    index = b'{"weight_map": {"a": "model.safetensors", "b": "more.safetensors"}}'
    folder = model_in(tmp_path / "model", {**FILES, "model.safetensors.index.json": index})
    (folder / "more.safetensors").symlink_to(tmp_path / "gone")
    with pytest.raises(DataError, match=r"more\.safetensors is missing"):
        staged(tmp_path, folder)


def test_a_state_folder_below_a_cache_is_as_good_as_any(tmp_path):
    below = tmp_path / ".cache" / "kaiflow"
    below.mkdir(parents=True)
    _, manifest = staged(below, model_in(tmp_path / "model"))
    assert len(manifest.layers) == len(FILES)


def test_a_folder_that_is_not_there_is_refused(tmp_path):
    with pytest.raises(DataError, match="is not there"):
        staged(tmp_path, tmp_path / "none")


def test_weights_that_change_as_they_are_read_are_not_kept(tmp_path, monkeypatch):
    folder = model_in(tmp_path / "model")
    take = weights.take

    def changed_first(*arguments):
        (folder / "model.safetensors").write_bytes(safetensors(b"two"))
        take(*arguments)

    monkeypatch.setattr(weights, "take", changed_first)
    with pytest.raises(DataError, match="changed as it was read"):
        staged(tmp_path, folder)
    assert LayoutStore(tmp_path / "store").tags() == {}


def test_a_cluster_is_told_that_no_pod_sees_the_folder(workspace, put, recipe_of):
    put(workspace, "metadata.annotations", {"kaiflow.dev/weights-folder": "/models/phi"})
    with pytest.raises(ConfigError, match="which no pod sees"):
        cluster_plan(recipe_of(workspace), Placement())


def test_a_gated_model_needs_no_token_where_its_files_are_at_hand(workspace, put, recipe_of):
    def refused():
        return [e.field for e in errors_of(parse_workspace(workspace, "ws"), {}, surroundings(), config_required=False)]

    put(workspace, "tuning.preset.name", "llama-3.1-8b-instruct")
    assert refused() == ["tuning.preset.presetOptions.modelAccessSecret"]
    put(workspace, "metadata.annotations", {"kaiflow.dev/weights-folder": "/models/llama"})
    assert refused() == []
    assert recipe_of(workspace).model.folder == "/models/llama"


def test_the_audit_measures_by_the_tokenizer_of_the_folder_and_is_another_with_another(tmp_path):
    model = replace(MODEL, folder=str(model_in(tmp_path / "model")))
    before = tokenizer_digests(model)
    with pytest.raises(TokenizerMissing, match=r"tokenizer\.json"):
        load_tokenizer(model, tmp_path / "kept")
    (tmp_path / "model" / "tokenizer.json").write_bytes(b'{"version": "1.0"}')
    assert [name for name, _ in before] == ["tokenizer.json"]
    assert tokenizer_digests(model) != before
