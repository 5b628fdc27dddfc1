"""The image layout that KAITO, Kubernetes, oras and skopeo read."""

import gzip
import hashlib
import io
import json
import tarfile

import pytest

from steps.adapter_image import build_layer, created_at, publish_image
from steps.oci_layout import LayoutStore


@pytest.fixture
def adapter(tmp_path):
    folder = tmp_path / "adapter"
    (folder / "extra").mkdir(parents=True)
    (folder / "adapter_config.json").write_text("{}")
    (folder / "adapter_model.safetensors").write_bytes(bytes(range(256)) * 5000)
    (folder / "extra" / "a.txt").write_text("a")
    return {p.relative_to(folder).as_posix(): p for p in folder.rglob("*") if p.is_file()}


def test_files_lie_under_data_sorted_and_anonymous(adapter, tmp_path):
    layer = build_layer(adapter, tmp_path / "layer")
    with tarfile.open(layer.path) as tar:
        members = tar.getmembers()
    assert [m.name for m in members] == [
        "data", "data/adapter_config.json", "data/adapter_model.safetensors", "data/extra", "data/extra/a.txt",
    ]  # fmt: skip
    assert {(m.uid, m.gid, m.mtime, m.uname) for m in members} == {(0, 0, 0, "")}
    assert {m.mode for m in members if m.isfile()} == {0o644}
    assert {m.mode for m in members if m.isdir()} == {0o755}


def test_the_tar_ends_with_exactly_two_empty_blocks(adapter, tmp_path):
    tar = gzip.decompress(build_layer(adapter, tmp_path / "layer").path.read_bytes())
    end = len(tar.rstrip(b"\0"))
    assert len(tar) == (end + 511) // 512 * 512 + 1024


def test_the_diff_id_is_the_digest_of_the_tar(adapter, tmp_path):
    layer = build_layer(adapter, tmp_path / "layer")
    assert layer.diff_id == f"sha256:{hashlib.sha256(gzip.decompress(layer.path.read_bytes())).hexdigest()}"


def test_nothing_is_compressed(adapter, tmp_path):
    size = sum(path.stat().st_size for path in adapter.values())
    assert build_layer(adapter, tmp_path / "layer").path.stat().st_size > size


def test_the_same_files_give_the_same_image_whoever_owns_them(adapter, tmp_path):
    first = publish_image(
        LayoutStore(tmp_path / "a"), build_layer(adapter, tmp_path / "l1"), {"x": "y"}, created_at(), ["t"]
    )
    for path in adapter.values():
        path.touch()
        path.chmod(0o600)
    second = publish_image(
        LayoutStore(tmp_path / "b"), build_layer(adapter, tmp_path / "l2"), {"x": "y"}, created_at(), ["t"]
    )
    assert first.digest == second.digest


def test_the_config_is_a_real_image_config(adapter, tmp_path):
    store = LayoutStore(tmp_path / "store")
    layer = build_layer(adapter, tmp_path / "layer")
    manifest = publish_image(store, layer, {}, "2026-01-01T00:00:00Z", ["t"])
    with store.open_blob(manifest.digest) as reader:
        body = json.load(reader)
    with store.open_blob(body["config"]["digest"]) as reader:
        config = json.load(reader)
    assert body["config"]["mediaType"] == "application/vnd.oci.image.config.v1+json"
    assert config["rootfs"] == {"type": "layers", "diff_ids": [layer.diff_id]}
    assert (config["os"], config["architecture"]) == ("linux", "amd64")
    assert body["layers"][0]["annotations"]["io.deis.oras.content.unpack"] == "true"
    assert body["layers"][0]["annotations"]["io.deis.oras.content.digest"] == layer.diff_id
    with store.open_blob(body["layers"][0]["digest"]) as reader:
        assert tarfile.open(fileobj=io.BytesIO(reader.read())).getnames()[0] == "data"


def test_the_time_is_the_callers(monkeypatch):
    monkeypatch.delenv("SOURCE_DATE_EPOCH", raising=False)
    assert created_at() == "1970-01-01T00:00:00Z"
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "1767225600")
    assert created_at() == "2026-01-01T00:00:00Z"
