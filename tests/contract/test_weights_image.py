"""Base weights out of images of a real registry: KAITO's way and others; nothing pickled is taken."""

import pytest

from presets.errors import DataError, NotPermittedError
from presets.recipe import ModelRecipe
from steps import base_weights, weights
from steps.base_weights import lay_out, read_origin
from steps.contract import Context, Request, WorkspaceRef
from steps.oci_layout import LayoutStore
from tests.registries import TAR, TAR_GZIP, Pusher, registry, safetensors, tar

FILES = {
    "config.json": b"{}", "model-00001-of-00002.safetensors": safetensors(b"one"),
    "model-00002-of-00002.safetensors": safetensors(b"two"),
    "model.safetensors.index.json": b"{}", "tokenizer.json": b"{}", "tokenizer_config.json": b"{}",
}  # fmt: skip
NOT_WANTED = {
    "pytorch_model.bin": b"pickle", "modeling_phi3.py": b"code", "README.md": b"words", "tokenizer.pkl": b"pickle",
    "tokenizer.py": b"code", "vocab.pkl": b"pickle", "pytorch.model": b"pickle",
    "consolidated.safetensors": safetensors(b"all"),
}  # fmt: skip
OTHERS = {**FILES, "config.json": b"{ }"}
TITLE = "org.opencontainers.image.title"
MODEL = ModelRecipe("p", "org/base", "main", "mit", False, 512, None, "bfloat16", "IMAGE", None, None)


@pytest.fixture(scope="module")
def address(tmp_path_factory):
    with registry(tmp_path_factory.mktemp("registry")) as found:
        yield found


def put(tmp_path, image, *, stage=True):
    """Run the step; return its result and the names of the files in the store."""
    from dataclasses import asdict

    store = LayoutStore(tmp_path / "store")
    request = Request(
        verb="weights",
        workspace=WorkspaceRef(name="a", namespace="b", uid="c", revision="d"),
        store=f"layout:{tmp_path / 'store'}",
        target="local",
        recipe={"model": {**asdict(MODEL), "weights_image": image}},
        inputs={"stage": str(stage).lower()},
    )
    work = tmp_path / "work"
    work.mkdir(exist_ok=True)
    result = weights.run(request, Context(work, lambda done, total: None))
    manifest = store.find(result.outputs["weights"])
    assert manifest is not None
    return result, {layer.annotations[TITLE] for layer in manifest.layers}, manifest


def test_files_by_their_titles_as_oras_pushes_them(address, tmp_path):
    push = Pusher(address, "kaito/by-title")
    layers = [(TAR, data, {TITLE: f"weights/{name}"}) for name, data in {**FILES, **NOT_WANTED}.items()]
    digest = push.image_of(layers, "0.2.0")
    _, names, manifest = put(tmp_path, f"{push.image}:0.2.0")
    assert names == set(FILES)
    assert manifest.annotations["kaiflow.model.revision"] == digest


def test_a_folder_deep_in_an_image(address, tmp_path):
    push = Pusher(address, "kaito/deep")
    content = {f"workspace/model/weights/{name}": data for name, data in {**FILES, **NOT_WANTED}.items()}
    push.image_of([(TAR, tar({"etc/config.json": b"{}"}), {}), (TAR_GZIP, tar(content), {})], "1")
    assert put(tmp_path, f"{push.image}:1")[1] == set(FILES)


def test_the_same_image_is_not_pulled_again_and_another_under_the_same_tag_is(address, tmp_path):
    push = Pusher(address, "kaito/moving")
    push.image_of([(TAR, data, {TITLE: name}) for name, data in FILES.items()], "1")
    first, _, _ = put(tmp_path, f"{push.image}:1")
    again, _, _ = put(tmp_path, f"{push.image}:1")
    assert (first.outputs["cached"], again.outputs["cached"]) == ("false", "true")
    assert again.outputs["weights"] == first.outputs["weights"]
    push.image_of([(TAR, data, {TITLE: name}) for name, data in OTHERS.items()], "1")
    moved, _, _ = put(tmp_path, f"{push.image}:1")
    assert moved.outputs["cached"] == "false"


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ({"data/config.json": b"{}", "data/pytorch_model.bin": b"x"}, "only pickled weights"),
        ({"data/readme": b"x"}, "no model as safetensors"),
        (
            {f"{folder}/{name}": data for folder in ("a", "b") for name, data in FILES.items()},
            "holds 2 models",
        ),
    ],
)
def test_an_image_without_one_model_is_refused(address, tmp_path, content, said):
    push = Pusher(address, "kaito/odd")
    push.image_of([(TAR, tar(content), {})], "1")
    with pytest.raises(DataError, match=said):
        put(tmp_path, f"{push.image}:1")


def test_an_image_that_is_not_there_or_not_open_is_told(address, tmp_path):
    with pytest.raises(DataError, match="MANIFEST_UNKNOWN"):
        put(tmp_path, f"{address}/kaito/none:1")
    closed = tmp_path / "closed"
    closed.mkdir()
    with registry(closed, password=True) as other, pytest.raises(NotPermittedError):
        put(tmp_path, f"{other}/kaito/closed:1")


def test_where_nobody_keeps_them_only_their_origin_is_stored_and_they_are_taken_from_there(address, tmp_path):
    push = Pusher(address, "kaito/not-staged")
    digest = push.image_of([(TAR, data, {TITLE: f"weights/{name}"}) for name, data in FILES.items()], "1")
    _, names, manifest = put(tmp_path, f"{push.image}:1", stage=False)
    assert names == {"origin.json"}
    store = LayoutStore(tmp_path / "store")
    assert read_origin(store, manifest).revision == digest
    push.image_of([(TAR, data, {TITLE: name}) for name, data in OTHERS.items()], "1")  # the tag moves on
    for _ in range(2):
        lay_out(store, manifest, tmp_path / "image", tmp_path / "weights")
    assert {p.name: p.read_bytes() for p in (tmp_path / "weights").iterdir()} == FILES


def test_a_mounted_image_is_used_as_it_lies(address, tmp_path, monkeypatch):
    push = Pusher(address, "kaito/mounted")
    digest = push.image_of([(TAR, data, {TITLE: name}) for name, data in FILES.items()], "1")
    _, _, manifest = put(tmp_path, f"{push.image}@{digest}", stage=False)
    mounted = tmp_path / "mounted" / "workspace" / "model"
    mounted.mkdir(parents=True)
    for name, data in {**FILES, **NOT_WANTED}.items():
        (mounted / name).write_bytes(data)
    monkeypatch.setattr(base_weights, "IMAGE_FOLDER", tmp_path / "mounted")
    lay_out(LayoutStore(tmp_path / "store"), manifest, tmp_path / "image", tmp_path / "weights")
    laid = {path.name: path for path in (tmp_path / "weights").iterdir()}
    assert set(laid) == set(FILES)  # code and pickles stay where they are
    assert all(path.is_symlink() and path.read_bytes() == FILES[name] for name, path in laid.items())


def test_a_model_beside_a_folder_of_data_is_found(address, tmp_path):
    push = Pusher(address, "kaito/beside")
    content = {"data/readme.txt": b"words", **{f"models/{name}": data for name, data in FILES.items()}}
    push.image_of([(TAR, tar(content), {})], "1")
    assert put(tmp_path, f"{push.image}:1")[1] == set(FILES)


@pytest.mark.parametrize(
    ("files", "said"),
    [
        (
            {**FILES, "model-00002-of-00002.safetensors": safetensors(b"two")[:-1]},
            "00002-of-00002.safetensors is cut short",
        ),
        ({**FILES, "model-00001-of-00002.safetensors": b""}, "00001-of-00002.safetensors is cut short"),
        (
            {**FILES, "model.safetensors.index.json": b'{"weight_map": {"a": "model-00003-of-00003.safetensors"}}'},
            "00003-of-00003.safetensors is missing",
        ),
    ],
    ids=["cut", "empty", "missing"],
)
def test_a_model_that_is_not_whole_is_refused(address, tmp_path, files, said):
    push = Pusher(address, "kaito/parts")
    push.image_of([(TAR, data, {TITLE: name}) for name, data in files.items()], "1")
    with pytest.raises(DataError, match=said):
        put(tmp_path, f"{push.image}:1")
