"""push: the image in the store and, where it is wanted, in its own registry: once, whole, under a tag of its own."""

import json
import shutil
import subprocess
import tarfile

import httpx
import pytest

from presets.errors import ConfigError, DataError
from steps import push
from steps.contract import Context, Request, Target, WorkspaceRef
from steps.docker_config import DockerConfig
from steps.lineage import lineage, verify, walked
from steps.oci_layout import LayoutStore
from steps.registry_store import RegistryStore
from steps.store import publish
from tests.registries import INDEX, MANIFEST, Pusher, digest, registry
from tests.registry_proxy import proxied

NOTES = {
    "kaiflow.run.base-loss": "5", "kaiflow.run.tuned-loss": "3", "kaiflow.run.difference": "-2",
    "kaiflow.run.standard-error": "0.1", "kaiflow.run.key": "k", "kaiflow.run.recipe": "sha256:" + "1" * 64,
    "kaiflow.run.dataset": "sha256:" + "2" * 64, "kaiflow.run.weights": "sha256:" + "3" * 64,
    "kaiflow.version": "0.1.0",
}  # fmt: skip
MODEL = {
    "preset": "p", "hugging_face_id": "org/base", "revision": "0" * 40, "license": "mit", "gated": False,
    "context_tokens": 512, "chat_template": None, "compute_dtype": "bfloat16", "weights_image": None, "package": None,
    "access_secret": None,
}  # fmt: skip
DATA = {
    "urls": [], "image": None, "pull_secrets": [], "volume_source": None, "path": None, "context_column": None,
    "response_column": None, "messages_column": None, "shuffle": True, "seed": 1, "held_out_fraction": 0.1,
}  # fmt: skip


@pytest.fixture(scope="module")
def address(tmp_path_factory):
    with registry(tmp_path_factory.mktemp("registry")) as found:
        yield found


def adapter(folder, store, text="weights"):
    """Store what the tune step leaves."""
    folder.mkdir(exist_ok=True)
    (folder / "adapter_config.json").write_text('{"r": 8}')
    (folder / "adapter_model.safetensors").write_text(text * 1000)
    files = {path.name: path for path in folder.iterdir()}
    return publish(store, "application/vnd.kaiflow.adapter.v1", files, NOTES, ["kaiflow-run-x"])


def pushed(
    tmp_path,
    store,
    image,
    *,
    name="ws",
    publishing=True,
    text="weights",
    target: Target = "local",
    created="",
    against="",
    volume=None,
):
    """Run the step."""
    uri = f"layout:{store.root}" if isinstance(store, LayoutStore) else store
    opened = store if isinstance(store, LayoutStore) else RegistryStore(store.removeprefix("registry:"), NOBODY)
    request = Request(
        verb="push",
        workspace=WorkspaceRef(name=name, namespace="team", uid="u", revision="r"),
        store=uri,
        target=target,
        recipe={
            "model": MODEL, "data": DATA, "evaluation": {"gate": "enforce", "sample_prompts": 6},
            "output": {"image": image, "push_secret": None, "volume_source": volume},
        },
        inputs={
            "run": adapter(tmp_path / "adapter", opened, text).digest, "publish": str(publishing).lower(),
            "scheduled": str(bool(created)).lower(), "created": created, "against": against,
        },
    )  # fmt: skip
    work = tmp_path / "work"
    shutil.rmtree(work, ignore_errors=True)
    work.mkdir()
    return push.run(request, Context(work, lambda done, total: None))


NOBODY = DockerConfig([])


def test_the_image_lies_in_its_registry_as_it_lies_in_the_store(address, tmp_path):
    store = LayoutStore(tmp_path / "store")
    result = pushed(tmp_path, store, f"{address}/team/adapter:1")
    found = RegistryStore(f"{address}/team/adapter", NOBODY).find("1")
    assert found == store.find("1")
    assert found is not None
    assert found.digest == result.outputs["digest"]
    assert found.annotations["kaiflow.workspace"] == "team/ws"


def test_without_push_nothing_leaves_this_machine(address, tmp_path):
    store = LayoutStore(tmp_path / "store")
    pushed(tmp_path, store, f"{address}/team/quiet:1", publishing=False)
    assert store.find("1") is not None
    assert RegistryStore(f"{address}/team/quiet", NOBODY).find("1") is None


def test_pushed_again_no_blob_moves(address, tmp_path):
    store = LayoutStore(tmp_path / "store")
    with proxied(address, lambda _: False) as (proxy, seen):
        first = pushed(tmp_path, store, f"{proxy}/team/again:1")
        uploads = seen["PATCH upload"]
        again = pushed(tmp_path, store, f"{proxy}/team/again:1")
        assert (seen["PATCH upload"], again.outputs["cached"]) == (uploads, "true")
    assert again.outputs["digest"] == first.outputs["digest"]


def test_a_workspace_replaces_its_own_image_and_nobody_elses(address, tmp_path):
    store = LayoutStore(tmp_path / "store")
    first = pushed(tmp_path, store, f"{address}/team/owned:1")
    second = pushed(tmp_path, store, f"{address}/team/owned:1", text="better")
    assert first.outputs["digest"] != second.outputs["digest"]
    with pytest.raises(ConfigError, match="belongs to the Workspace team/ws") as refused:
        pushed(tmp_path, store, f"{address}/team/owned:1", name="another")
    assert refused.value.reason == "TagTaken"
    found = RegistryStore(f"{address}/team/owned", NOBODY).find("1")
    assert found is not None
    assert found.digest == second.outputs["digest"]


def test_an_image_that_kaiflow_did_not_make_is_not_replaced(address, tmp_path):
    Pusher(address, "team/foreign").image_of([], "1")
    with pytest.raises(ConfigError, match="was not made by kaiflow"):
        pushed(tmp_path, LayoutStore(tmp_path / "store"), f"{address}/team/foreign:1")


def test_on_a_cluster_the_store_is_the_images_own_repository(address, tmp_path):
    store = f"registry:{address}/team/cluster"
    result = pushed(tmp_path, store, f"{address}/team/cluster:7", target="cluster")
    tags = RegistryStore(f"{address}/team/cluster", NOBODY).tags()
    assert tags["7"] == result.outputs["digest"]
    assert any(tag.startswith("kaiflow-image-") for tag in tags)


def test_from_a_cache_repository_of_the_same_registry_the_image_is_mounted(address, tmp_path):
    with proxied(address, lambda _: False) as (proxy, seen):
        store = f"registry:{proxy}/team/cache"
        pushed(tmp_path, store, f"{proxy}/team/beside:1", target="cluster")
        before = seen["PATCH upload"]
        with_mounts = pushed(tmp_path, store, f"{proxy}/team/third:1", target="cluster")
        # the adapter of the test is published anew; the image's own layer and config move nowhere
        assert seen["GET blob"] <= before + len(with_mounts.outputs)
    assert RegistryStore(f"{address}/team/third", NOBODY).find("1") is not None


VOLUME = {"persistentVolumeClaim": {"claimName": "results"}}


@pytest.mark.parametrize("cached", [True, False], ids=["out of a cache", "of a run whose artifacts lie there"])
def test_into_a_volume_the_image_goes_as_an_oci_layout_that_skopeo_reads(address, tmp_path, monkeypatch, cached):
    volume = tmp_path / "volume"
    volume.mkdir()
    monkeypatch.setattr(push, "OUTPUT_FOLDER", volume)
    store = f"registry:{address}/cache-of-volumes" if cached else LayoutStore(volume)
    result = pushed(tmp_path, store, None, target="cluster", volume=VOLUME)
    found = LayoutStore(volume).find("latest")
    assert found is not None
    assert found.digest == result.outputs["digest"]
    told = [part.what for _, part in walked(lineage(LayoutStore(volume), "latest"))]
    assert {"image", "provenance"} <= set(told)
    again = pushed(tmp_path, store, None, target="cluster", volume=VOLUME, text="better")
    with pytest.raises(ConfigError, match="belongs to the Workspace team/ws"):
        pushed(tmp_path, store, None, target="cluster", volume=VOLUME, name="another")
    if shutil.which("skopeo"):
        command = ["skopeo", "inspect", "--format", "{{.Digest}}", f"oci:{volume}:latest"]
        assert subprocess.check_output(command, text=True).strip() == again.outputs["digest"]


def test_a_registry_that_shows_something_else_than_was_pushed_is_not_believed(address, tmp_path):
    other = Pusher(address, "team/raced")
    replaced, moved = [], []

    def race(exchange):
        moved.extend(["1"] if exchange.kind == "PUT manifest" and exchange.path.endswith("/1") else [])
        if exchange.kind == "GET manifest" and exchange.path.endswith("/1") and moved:
            replaced.append(other.image_of([], "1"))
        return False

    with proxied(address, race) as (proxy, _), pytest.raises(DataError) as refused:
        pushed(tmp_path, LayoutStore(tmp_path / "store"), f"{proxy}/team/raced:1")
    assert refused.value.reason == "PushNotSeen"
    assert replaced


def test_a_tag_that_somebody_takes_during_the_upload_is_left_to_them(address, tmp_path):
    other, theirs = Pusher(address, "team/taken"), []

    def take(exchange):
        if exchange.kind == "PUT upload" and not theirs:
            theirs.append(other.image_of([], "1"))
        return False

    with proxied(address, take) as (proxy, _), pytest.raises(ConfigError, match="was not made by kaiflow"):
        pushed(tmp_path, LayoutStore(tmp_path / "store"), f"{proxy}/team/taken:1")
    assert digest(served(address, "team/taken", "1")) == theirs[0]


@pytest.mark.parametrize("what", ["layer", "config", "manifest"])
@pytest.mark.parametrize("harm", ["another byte", "gone"])
def test_an_image_that_was_damaged_in_the_store_is_made_anew(address, tmp_path, what, harm):
    store = LayoutStore(tmp_path / "store")
    image = f"{address}/team/healed-{what}-{harm[:2]}:1"
    first = pushed(tmp_path, store, image, publishing=False)
    found = store.find("1")
    assert found is not None
    assert found.config is not None
    damaged = {"layer": found.layers[0].digest, "config": found.config.digest, "manifest": found.digest}[what]
    path = store.root / "blobs/sha256" / damaged.removeprefix("sha256:")
    path.chmod(0o644)
    path.unlink() if harm == "gone" else path.write_bytes(b"?" + path.read_bytes()[1:])
    try:
        again = pushed(tmp_path, store, image)
    except DataError:  # it is seen when it is sent
        again = pushed(tmp_path, store, image)
    assert again.outputs["digest"] == first.outputs["digest"]
    name = image.rpartition(":")[0]
    assert not [
        c.problem for c in verify(RegistryStore(name, NOBODY), lineage(RegistryStore(name, NOBODY), "1")) if c.problem
    ]


@pytest.mark.skipif(not shutil.which("skopeo"), reason="skopeo is not installed: apt-get install skopeo")
def test_skopeo_copies_it_and_kaitos_puller_finds_the_adapter_below_data(address, tmp_path):
    """KAITO's puller: skopeo to a directory, layers decompressed, each untarred (presets/workspace, v0.12)."""
    result = pushed(tmp_path, LayoutStore(tmp_path / "store"), f"{address}/team/skopeo:1")
    target = tmp_path / "pulled"
    command = [
        "skopeo", "copy", "--insecure-policy", "--src-tls-verify=false", "--dest-decompress",
        f"docker://{address}/team/skopeo:1", f"dir:{target}",
    ]  # fmt: skip
    subprocess.run(command, check=True, capture_output=True)
    manifest = json.loads((target / "manifest.json").read_text())
    names = []
    for layer in manifest["layers"]:
        with tarfile.open(target / layer["digest"].removeprefix("sha256:")) as archive:
            names += archive.getnames()
    assert names == ["data", "data/adapter_config.json", "data/adapter_model.safetensors"]
    inspected = subprocess.run(
        ["skopeo", "inspect", "--tls-verify=false", "--format", "{{.Digest}}", f"docker://{address}/team/skopeo:1"],
        check=True, capture_output=True, text=True,
    )  # fmt: skip
    assert inspected.stdout.strip() == result.outputs["digest"]


def served(address, repository, reference):
    """Return the manifest or index as the registry gives it."""
    accept = {"Accept": f"{MANIFEST}, {INDEX}"}
    return httpx.get(f"http://{address}/v2/{repository}/manifests/{reference}", headers=accept).content


def test_an_index_under_the_tag_is_not_ours_to_replace(address, tmp_path):
    pusher = Pusher(address, "team/index")
    image = pusher.image_of([], "one")
    entry = {"mediaType": MANIFEST, "digest": image, "size": len(served(address, "team/index", image))}
    before = pusher.manifest({"schemaVersion": 2, "mediaType": INDEX, "manifests": [entry]}, "1")
    with pytest.raises(DataError, match="is not the manifest of an image"):
        pushed(tmp_path, LayoutStore(tmp_path / "store"), f"{address}/team/index:1")
    assert digest(served(address, "team/index", "1")) == before


def test_a_run_of_the_schedule_has_a_tag_of_its_own_beside_the_users(tmp_path):
    store = LayoutStore(tmp_path / "store")
    for text, created in (("first", "2026-11-22T03:00:04Z"), ("second", "2026-11-29T03:00:02Z")):
        pushed(tmp_path, store, "r.example.com/team/a:1.0", text=text, created=created, publishing=False)
    newest, first = store.find("1.0"), store.find("1.0-20261122T030004Z")
    assert newest is not None
    assert first is not None
    assert newest == store.find("1.0-20261129T030002Z")
    assert newest.digest != first.digest


@pytest.mark.parametrize(("difference", "verdict"), [(-0.01, "passed"), (0.0, "refused"), (0.2, "refused")])
def test_what_is_no_better_than_what_is_published_is_refused(tmp_path, difference, verdict):
    against = f"3.0 {difference} 0.02"
    store = LayoutStore(tmp_path / "store")
    if verdict == "passed":
        pushed(tmp_path, store, "r.example.com/team/a:1", publishing=False, against=against)
    else:
        with pytest.raises(DataError, match="against what is published"):
            pushed(tmp_path, store, "r.example.com/team/a:1", publishing=False, against=against)
