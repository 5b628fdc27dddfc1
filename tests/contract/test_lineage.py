"""From an image back to rows, base and recipe; every byte hashed again; and what nobody needs removed."""

import json
import os
import time

import pytest

from presets.errors import DataError
from presets.names import is_cache_tag
from steps.lineage import lineage, verify, walked
from steps.oci_layout import LayoutStore
from steps.provenance import attach
from steps.pruning import prune
from steps.registry_store import RegistryStore
from steps.store import copy, publish
from tests.contract.test_registry_store import NOBODY
from tests.registries import digest, registry

DAY = 86400


@pytest.fixture
def store(tmp_path):
    return LayoutStore(tmp_path / "store")


RECIPE = b'{"lora":{"r":8}}'


def artifact(store, folder, kind, notes, *tags, text="", subject=None):
    folder.mkdir(exist_ok=True)
    path = folder / f"{kind}.bin"
    path.write_text(f"{kind} {text} " * 100)
    files = {path.name: path}
    if kind == "report":
        files["recipe.json"] = folder / "recipe.json"
        files["recipe.json"].write_bytes(RECIPE)
    return publish(store, f"application/vnd.kaiflow.{kind}.v1", files, notes, tags, subject)


def made(store, folder, tag="1", text="a"):
    """Store rows, base, run, report and image as the steps do; return the digests."""
    dataset = artifact(store, folder, "dataset", {"kaiflow.dataset.rows": "9"}, f"kaiflow-dataset-{text}", text=text)
    weights = artifact(store, folder, "weights", {"kaiflow.model": "org/base"}, "kaiflow-weights-w")
    notes = {
        "kaiflow.run.key": text, "kaiflow.run.recipe": digest(RECIPE), "kaiflow.run.dataset": dataset.digest,
        "kaiflow.run.weights": weights.digest, "kaiflow.run.tuned-loss": "3", "kaiflow.version": "0.1.0",
    }  # fmt: skip
    run = artifact(store, folder, "adapter", notes, f"kaiflow-run-{text}", text=text)
    report = artifact(
        store, folder, "report", {"kaiflow.run": run.digest}, f"kaiflow-report-{text}", text=text, subject=run
    )
    said = {
        **notes, "kaiflow.run": run.digest, "kaiflow.model": "org/base", "kaiflow.model.revision": "r",
        "kaiflow.workspace": "team/ws", "sh.kaito.model.name": "base",
    }  # fmt: skip
    image = artifact(store, folder, "image", said, f"kaiflow-image-{text}", tag, text=text)
    made = {"image": image, "run": run, "dataset": dataset, "weights": weights, "report": report}
    made["provenance"] = attach(store, image, "registry/team/adapter")
    return {what: manifest.digest for what, manifest in made.items()}


def test_an_image_leads_back_to_its_run_rows_and_base(store, tmp_path):
    digests = made(store, tmp_path / "in")
    found = list(walked(lineage(store, "1")))
    assert [(depth, link.what) for depth, link in found] == [
        (0, "image"), (1, "run"), (2, "dataset"), (2, "weights"), (2, "report"), (1, "provenance"),
    ]  # fmt: skip
    assert {link.what: link.digest for _, link in found} == digests
    assert all(link.manifest is not None for _, link in found)


def test_where_only_the_image_was_pushed_the_rest_is_told_by_its_digest(store, tmp_path):
    digests = made(store, tmp_path / "in")
    image = store.find("1")
    assert image is not None
    with registry(tmp_path) as address:
        elsewhere = RegistryStore(f"{address}/team/adapter", NOBODY)
        assert copy(image, store, elsewhere, ["1"]) == image
        found = {link.what: link for _, link in walked(lineage(elsewhere, "1"))}
        there = {what: digest for what, digest in digests.items() if what not in ("report", "provenance")}
        assert {what: link.digest for what, link in found.items()} == there
        assert found["image"].manifest is not None
        assert found["run"].manifest is None
        checks = list(verify(elsewhere, lineage(elsewhere, "1")))
    assert [c.what for c in checks if "not in this store" in c.what] == [
        "run, not in this store", "dataset, not in this store", "weights, not in this store",
        "provenance, not in this store",
    ]  # fmt: skip
    assert not any(check.problem for check in checks)


def test_what_is_no_adapter_of_ours_is_said(store, tmp_path):
    artifact(store, tmp_path / "in", "image", {}, "other")
    with pytest.raises(DataError, match="says nothing of a run"):
        lineage(store, "other")
    with pytest.raises(DataError, match="no image nothing"):
        lineage(store, "nothing")


def test_everything_is_as_it_was(store, tmp_path):
    made(store, tmp_path / "in")
    checks = list(verify(store, lineage(store, "1")))
    assert len(checks) == 13  # six configs, seven files: the report has the recipe beside it
    assert not any(check.problem for check in checks)


@pytest.mark.parametrize("what", ["image", "adapter", "dataset", "weights"])
@pytest.mark.parametrize(
    ("harm", "said"), [("flip", "its bytes are others"), ("cut", "and the manifest says"), ("remove", "it is gone")]
)
def test_a_blob_that_is_not_what_it_was_is_found(store, tmp_path, what, harm, said):
    made(store, tmp_path / "in")
    link = lineage(store, "1")
    title = f"{what}.bin"
    blob = next(
        layer
        for _, found in walked(link)
        if found.manifest
        for layer in found.manifest.layers
        if title in layer.annotations.values()
    )
    path = store.root / "blobs/sha256" / blob.digest.removeprefix("sha256:")
    path.chmod(0o644)
    data = path.read_bytes()
    if harm == "remove":
        path.unlink()
    else:
        path.write_bytes(data[:-1] + (b"?" if harm == "flip" else b""))
    problems = [check for check in verify(store, link) if check.problem]
    assert [check.digest for check in problems] == [blob.digest]
    assert said in problems[0].problem


def test_an_image_that_says_something_else_than_its_run_is_found(store, tmp_path):
    digests = made(store, tmp_path / "in")
    with store.open_blob(digests["image"]) as reader:
        body = json.loads(reader.read())
    body["annotations"]["kaiflow.run.tuned-loss"] = "0.1"
    store.add_manifest(json.dumps(body).encode(), ["flattered"])
    problems = [check.problem for check in verify(store, lineage(store, "flattered")) if check.problem]
    assert problems == ["it says 0.1, and its run says 3"]


def test_a_statement_that_says_otherwise_than_its_image_is_found(store, tmp_path):
    digests = made(store, tmp_path / "in")
    image, said = store.find("1"), provenance(store, digests["provenance"])
    said["predicate"]["buildDefinition"]["resolvedDependencies"][0]["digest"] = {"sha256": "0" * 64}
    forged = tmp_path / "provenance.intoto.json"
    forged.write_text(json.dumps(said))
    publish(store, "application/vnd.in-toto+json", {forged.name: forged}, {}, [], subject=image)
    empty = tmp_path / "empty.intoto.json"
    empty.write_text("[]")
    publish(store, "application/vnd.in-toto+json", {empty.name: empty}, {}, [], subject=image)
    problems = [(check.what, check.problem) for check in verify(store, lineage(store, "1")) if check.problem]
    assert sorted(problems) == [
        ("provenance", "it is no provenance statement of kaiflow"),
        ("provenance", "it names another one than the image does: dataset"),
    ]


def test_a_report_with_another_recipe_is_found(store, tmp_path):
    digests = made(store, tmp_path / "in")
    other = tmp_path / "recipe.json"
    other.write_text("{}")
    kind = "application/vnd.kaiflow.report.v1"
    publish(store, kind, {other.name: other}, {}, ["other"], subject=store.find(digests["run"]))
    problems = [(check.what, check.problem) for check in verify(store, lineage(store, "1")) if check.problem]
    assert problems == [("report: recipe.json", "it is another recipe than the run tells of")]


def provenance(store, digest):
    """Return the statement of an attached artifact."""
    manifest = store.find(digest)
    with store.open_blob(manifest.layers[0].digest) as reader:
        return json.loads(reader.read())


def test_the_statement_is_slsa_provenance_of_the_image(store, tmp_path):
    digests = made(store, tmp_path / "in")
    attached = store.find(digests["provenance"])
    assert attached.subject == digests["image"]
    assert attached.layers[0].media_type == "application/vnd.in-toto+json"
    assert attached.annotations["in-toto.io/predicate-type"] == "https://slsa.dev/provenance/v1"
    said = provenance(store, digests["provenance"])
    assert said["_type"] == "https://in-toto.io/Statement/v1"
    assert said["subject"] == [{"name": "registry/team/adapter", "digest": hexed(digests["image"])}]
    build = said["predicate"]["buildDefinition"]
    assert {d["name"]: d["digest"] for d in build["resolvedDependencies"]} == {
        what: hexed(digests[what]) for what in ("dataset", "weights")
    }
    assert build["externalParameters"]["recipe"] == digest(RECIPE)


def hexed(name):
    return {"sha256": name.removeprefix("sha256:")}


def test_attaching_again_attaches_nothing_new_and_removing_the_image_takes_it_away(store, tmp_path):
    digests = made(store, tmp_path / "in")
    image = store.find("1")
    assert attach(store, image, "registry/team/adapter").digest == digests["provenance"]
    assert [m.digest for m in store.referrers(image.digest)] == [digests["provenance"]]
    store.untag("1")
    assert store.referrers(image.digest) != []  # the cache tag still names the image
    store.untag("kaiflow-image-a")
    assert store.referrers(image.digest) == []
    assert store.find(digests["provenance"]) is None


def aged(store, days):
    """Make everything in the store so many days old."""
    for path in (store.root / "blobs/sha256").iterdir():
        os.utime(path, (time.time() - days * DAY,) * 2)


def test_what_no_image_is_made_of_is_removed_when_it_is_old(store, tmp_path):
    made(store, tmp_path / "in", text="a")
    made(store, tmp_path / "in", text="b")  # the same tag moves on: a's image is no longer the user's
    aged(store, 31)
    removed = prune(store, time.time(), 30)
    assert {pruned.tag for pruned in removed} == {f"kaiflow-{kind}-a" for kind in ("dataset", "run", "report", "image")}
    assert "kaiflow-report-b" in store.tags()  # the report of a run that is needed
    assert sum(pruned.freed_bytes for pruned in removed) > 0
    assert {tag for tag in store.tags() if not is_cache_tag(tag)} == {"1"}
    assert not any(check.problem for check in verify(store, lineage(store, "1")))


def test_what_is_young_or_needed_stays_and_a_dry_run_removes_nothing(store, tmp_path):
    made(store, tmp_path / "in", text="a")
    made(store, tmp_path / "in", text="b")
    assert prune(store, time.time(), 30) == []
    before = store.tags()
    aged(store, 31)
    assert len(prune(store, time.time(), 30, dry=True)) == 4
    assert store.tags() == before


def test_a_users_tag_may_begin_as_ours_do(store, tmp_path):
    artifact(store, tmp_path / "in", "image", {}, "kaiflow-demo")
    aged(store, 2)
    assert prune(store, time.time(), 1) == []


def test_without_an_image_of_the_users_all_of_the_cache_may_go(store, tmp_path):
    artifact(store, tmp_path / "in", "weights", {}, "kaiflow-weights-w")
    artifact(store, tmp_path / "in", "image", {}, "latest")
    aged(store, 2)
    assert [pruned.tag for pruned in prune(store, time.time(), 1)] == ["kaiflow-weights-w"]
    assert set(store.tags()) == {"latest"}


@pytest.mark.parametrize("what", ["run", "dataset", "weights", "report", "provenance"])
@pytest.mark.parametrize("harm", ["a layer is cut short", "the manifest is another"])
def test_what_was_damaged_before_anybody_looked_is_found(store, tmp_path, what, harm):
    digests = made(store, tmp_path / "in")
    manifest = store.find(digests[what])
    assert manifest is not None
    harmed = digests[what] if harm == "the manifest is another" else manifest.layers[0].digest
    path = store.root / "blobs" / "sha256" / harmed.removeprefix("sha256:")
    path.chmod(0o644)
    path.write_bytes(path.read_bytes()[:-1] + b"?" if harm == "the manifest is another" else b"")
    checks = list(verify(store, lineage(store, "1")))
    if what in ("report", "provenance"):  # they tell of another: whoever is not there is said to be missing
        assert f"{what}, not in this store" in [c.what for c in checks]
    else:
        assert [c.what for c in checks if c.problem] == [what]


def test_a_vocabulary_among_the_files_is_no_manifest(store, tmp_path):
    """Qwen's ``vocab.json`` has a token ``layers``, and one ``config``."""
    (tmp_path / "vocab.json").write_text('{"layers": 35271, "config": 1, "manifests": 7}')
    publish(store, "application/x", {"vocab.json": tmp_path / "vocab.json"}, {}, ["kaiflow-weights-q"])
    gone = publish(store, "application/x", {"f": tmp_path / "vocab.json"}, {}, [])
    store.discard(gone)
    assert [p.tag for p in prune(store, time.time(), 0)] == ["kaiflow-weights-q"]


def test_an_image_of_the_users_that_has_lost_a_layer_keeps_what_it_was_made_of(store, tmp_path):
    made(store, tmp_path / "in")
    image = store.find("1")
    assert image is not None
    (store.root / "blobs/sha256" / image.layers[0].digest.removeprefix("sha256:")).unlink()
    assert prune(store, time.time() + 99 * DAY, 1) == []


def test_an_image_of_the_users_that_cannot_be_read_ends_the_look(store, tmp_path):
    made(store, tmp_path / "in")
    made(store, tmp_path / "in", tag="2", text="b")
    (store.root / "blobs/sha256" / store.tags()["1"].removeprefix("sha256:")).unlink()
    with pytest.raises(DataError, match="nothing is removed"):
        prune(store, time.time() + 99 * DAY, 1)
    assert {"kaiflow-run-a", "kaiflow-run-b"} <= set(store.tags())
