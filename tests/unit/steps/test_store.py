"""The OCI layout: whole or not there, verified, readable by others."""

import hashlib
import json
import os
import subprocess
import sys
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from presets.errors import ConfigError, DataError
from steps.layout_index import INDEX_TYPE
from steps.oci_layout import LayoutStore, safe_title
from steps.registry_store import RegistryStore
from steps.store import MANIFEST_TYPE, TITLE, Manifest, canonical, open_store, publish


@pytest.fixture
def store(tmp_path):
    return LayoutStore(tmp_path / "store")


def files(tmp_path, **contents):
    folder = tmp_path / "in"
    folder.mkdir(exist_ok=True)
    for name, text in contents.items():
        (folder / name).write_text(text)
    return {f"sub/{name}": folder / name for name in contents}


def test_what_is_published_is_found_by_tag_and_digest_and_comes_out_equal(store, tmp_path):
    manifest = publish(store, "application/x", files(tmp_path, a="one", b="two"), {"k": "v"}, ["t1"])
    assert store.find("t1") == store.find(manifest.digest) == manifest
    store.check_out(manifest, tmp_path / "out")
    assert (tmp_path / "out/sub/a").read_text() == "one"
    assert manifest.annotations == {"k": "v"}


def test_the_same_content_has_the_same_digest_everywhere(tmp_path):
    digests = {
        publish(LayoutStore(tmp_path / name), "t", files(tmp_path, a="x"), {"b": "1", "a": "2"}, [name]).digest
        for name in ("one", "two")
    }
    assert len(digests) == 1


def test_it_is_an_oci_image_layout(store, tmp_path):
    manifest = publish(store, "application/x", files(tmp_path, a="one"), {}, ["t1"])
    assert json.loads((store.root / "oci-layout").read_text()) == {"imageLayoutVersion": "1.0.0"}
    index = json.loads((store.root / "index.json").read_text())
    entry = index["manifests"][0]
    assert entry["digest"] == manifest.digest
    assert entry["annotations"]["org.opencontainers.image.ref.name"] == "t1"
    blob = (store.root / "blobs/sha256" / manifest.digest.removeprefix("sha256:")).read_bytes()
    assert hashlib.sha256(blob).hexdigest() == manifest.digest.removeprefix("sha256:")
    assert len(blob) == entry["size"]


def test_a_tag_moves_and_the_old_artifact_stays(store, tmp_path):
    old = publish(store, "t", files(tmp_path, a="1"), {}, ["latest"])
    new = publish(store, "t", files(tmp_path, a="2"), {}, ["latest"])
    assert store.find("latest") == new
    assert store.find(old.digest) == old


def test_a_damaged_blob_is_refused_and_made_anew_next_time(store, tmp_path):
    manifest = publish(store, "t", files(tmp_path, a="good"), {}, ["t1"])
    blob = store.root / "blobs/sha256" / manifest.layers[0].digest.removeprefix("sha256:")
    blob.chmod(0o644)
    blob.write_text("evil")
    with pytest.raises(DataError, match="does not match its digest"):
        store.check_out(manifest, tmp_path / "out")
    assert not (tmp_path / "out/sub/a").exists()
    assert store.find("t1") is None
    publish(store, "t", files(tmp_path, a="good"), {}, ["t1"])
    store.check_out(manifest, tmp_path / "out")
    assert (tmp_path / "out/sub/a").read_text() == "good"


def test_an_artifact_with_a_missing_blob_is_not_there(store, tmp_path):
    manifest = publish(store, "t", files(tmp_path, a="x"), {}, ["t1"])
    (store.root / "blobs/sha256" / manifest.layers[0].digest.removeprefix("sha256:")).unlink()
    assert store.find("t1") is None


def test_a_manifest_that_does_not_match_its_digest_is_not_there(store, tmp_path):
    manifest = publish(store, "t", files(tmp_path, a="x"), {}, ["t1"])
    blob = store.root / "blobs/sha256" / manifest.digest.removeprefix("sha256:")
    blob.write_bytes(blob.read_bytes().replace(b"sub/a", b"sub/b"))
    assert store.find("t1") is None


KILLED = """
import os, sys
from pathlib import Path
from steps.oci_layout import LayoutStore
import steps.oci_layout as module
store = LayoutStore(Path(sys.argv[1]))
module._sync = lambda writer: (writer.flush(), os.kill(os.getpid(), 9))
store.add_file(Path(sys.argv[2]), "x", {})
"""


def test_a_kill_in_the_middle_of_a_write_leaves_nothing_half_written(store, tmp_path):
    source = tmp_path / "big"
    source.write_bytes(os.urandom(3 << 20))
    killed = subprocess.run([sys.executable, "-c", KILLED, str(store.root), str(source)], check=False)
    assert killed.returncode == -9
    assert list((store.root / "ingest").iterdir())
    assert not list((store.root / "blobs/sha256").iterdir())

    again = LayoutStore(store.root)

    assert not list((again.root / "ingest").iterdir())
    digest = hashlib.sha256(source.read_bytes()).hexdigest()
    assert again.add_file(source, "x", {}).digest == f"sha256:{digest}"


def test_parts_of_another_host_are_left_to_it_until_nothing_has_been_written_for_a_day(store):
    fresh, old = store.root / "ingest/pod-a.7-00", store.root / "ingest/pod-b.7-00"
    for part in (fresh, old):
        part.write_bytes(b"part")
    long_ago = time.time() - 2 * 86400
    os.utime(old, (long_ago, long_ago))
    LayoutStore(store.root)
    assert fresh.exists()
    assert not old.exists()


def test_a_layout_that_can_only_be_read_is_read(store, tmp_path, monkeypatch):
    manifest = publish(store, "t", files(tmp_path, a="x"), {}, ["t1"])
    (store.root / "ingest").rmdir()
    monkeypatch.setattr(os, "access", lambda *_: False)
    assert LayoutStore(store.root).find("t1") == manifest
    assert not (store.root / "ingest").exists()


def others_index(store, tmp_path):
    """Put an index of two images into the layout, as buildah does, and another's entry that is unlike ours."""
    images = [publish(store, "t", files(tmp_path, a=name), {}, []) for name in ("one", "two")]
    named = [{"mediaType": MANIFEST_TYPE, "digest": m.digest, "size": m.size} for m in images]
    index = store.add_bytes(canonical({"schemaVersion": 2, "manifests": named}), INDEX_TYPE)
    path = store.root / "index.json"
    entries = [
        {**index.to_json(), "annotations": {"org.opencontainers.image.ref.name": "many", "x": "y"}},
        {**named[0], "platform": {"os": "linux", "architecture": "arm64"}},
        {"mediaType": "text/plain", "digest": f"sha512:{'0' * 128}", "size": 1},
    ]
    path.write_text(json.dumps({"schemaVersion": 2, "manifests": entries}))
    return images, entries


def test_what_others_have_put_into_the_layout_stays_as_it_is(store, tmp_path):
    images, entries = others_index(store, tmp_path)
    mine = publish(store, "t", files(tmp_path, a="three"), {}, ["mine"])
    about = publish(store, "t", files(tmp_path, a="four"), {}, [], subject=mine)
    assert store.referrers(mine.digest) == [about]
    assert set(store.tags()) == {"many", "mine"}
    store.untag("mine")
    written = json.loads((store.root / "index.json").read_text())["manifests"]
    assert sorted(written, key=str) == sorted(entries, key=str)
    assert store.find(mine.digest) is store.find(about.digest) is None
    assert [store.find(image.digest) for image in images] == images


def test_an_index_that_loses_its_tag_stays_whole_where_another_names_its_images(store, tmp_path):
    images, _ = others_index(store, tmp_path)
    publish(store, "t", files(tmp_path, a="two"), {}, ["mine"])  # the second image
    store.untag("many")
    assert set(store.tags()) == {"mine"}
    assert [store.find(image.digest) for image in images] == images


def test_an_index_that_is_none_is_refused_and_not_written_over(store, tmp_path):
    (store.root / "index.json").write_text("[]")
    with pytest.raises(DataError, match="no index"):
        publish(store, "t", files(tmp_path, a="x"), {}, ["t1"])
    assert (store.root / "index.json").read_text() == "[]"


def test_two_processes_may_tag_at_once(store, tmp_path):
    code = """
import sys
from pathlib import Path
from steps.oci_layout import LayoutStore
from steps.store import publish
store = LayoutStore(Path(sys.argv[1]))
for i in range(20):
    path = Path(sys.argv[2]) / f"{sys.argv[3]}{i}"
    path.write_text(path.name)
    publish(store, "t", {"f": path}, {}, [path.name])
"""
    started = [subprocess.Popen([sys.executable, "-c", code, str(store.root), str(tmp_path), name]) for name in "ab"]
    assert [process.wait() for process in started] == [0, 0]
    assert set(store.tags()) == {f"{name}{i}" for name in "ab" for i in range(20)}


@pytest.mark.parametrize("title", ["", "/etc/passwd", "../x", "a/../../x", "a\0b"])
def test_a_title_that_leaves_its_folder_is_refused(title):
    with pytest.raises(DataError):
        safe_title(title)


@given(st.text(max_size=30))
def test_every_accepted_title_stays_below_its_folder(title):
    try:
        path = safe_title(title)
    except DataError:
        return
    assert not path.is_absolute()
    assert ".." not in path.parts


@pytest.mark.parametrize("digest", ["sha256:..", "sha256:" + "g" * 64, "md5:" + "0" * 32, "sha256:../../x"])
def test_a_digest_is_never_a_path(store, digest):
    with pytest.raises(DataError):
        store.open_blob(digest)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=9),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=9), inner, max_size=3),
    max_leaves=9,
)
GOOD = {
    "schemaVersion": 2, "artifactType": "application/x",
    "config": {"mediaType": "c", "digest": "sha256:" + "0" * 64, "size": 2},
    "layers": [{"mediaType": "l", "digest": "sha256:" + "1" * 64, "size": 3, "annotations": {TITLE: "a"}}],
    "annotations": {"k": "v"},
}  # fmt: skip


@given(st.binary(max_size=60) | JSON.map(lambda body: json.dumps(body).encode()))
def test_what_is_no_manifest_is_refused_with_a_reason(data):
    try:
        Manifest.from_bytes("sha256:" + "2" * 64, data)
    except DataError as refused:
        assert refused.reason == "ManifestInvalid"


@given(st.sampled_from(["artifactType", "config", "layers", "annotations"]), JSON)
def test_a_manifest_with_a_part_of_another_kind_is_read_or_refused(part, value):
    try:
        Manifest.from_bytes("sha256:" + "2" * 64, json.dumps({**GOOD, part: value}).encode())
    except DataError as refused:
        assert refused.reason == "ManifestInvalid"


@given(st.sampled_from(["mediaType", "digest", "size", "annotations"]), JSON)
def test_a_layer_with_a_part_of_another_kind_is_read_or_refused(part, value):
    layers = [{**GOOD["layers"][0], part: value}]
    try:
        found = Manifest.from_bytes("sha256:" + "2" * 64, json.dumps({**GOOD, "layers": layers}).encode())
    except DataError as refused:
        assert refused.reason == "ManifestInvalid"
    else:
        assert found.layers[0].size >= 0
        assert all(isinstance(note, str) for note in found.layers[0].annotations.values())


def test_a_store_is_opened_by_what_its_name_begins_with(tmp_path):
    assert isinstance(open_store(f"layout:{tmp_path}"), LayoutStore)
    assert isinstance(open_store("registry:r.example.com/x"), RegistryStore)
    with pytest.raises(ConfigError, match="is no store"):
        open_store("s3://bucket")
