"""A registry forgets what nothing needs once that has been so for long enough, and never a tag of the user's."""

import time

import pytest

from presets.errors import ConfigError, TryAgainError
from steps import backoff
from steps.lineage import lineage, verify, walked
from steps.registry_pruning import MARKS_TAG, prune_registry, unmark
from steps.registry_store import RegistryStore
from steps.store import copy
from tests.contract.test_lineage import DAY, artifact, made
from tests.contract.test_registry_store import NOBODY
from tests.registries import INDEX, MANIFEST, Pusher, registry
from tests.registry_proxy import proxied

NOW = time.time()


@pytest.fixture(scope="module")
def address(tmp_path_factory):
    with registry(tmp_path_factory.mktemp("registry")) as found:
        yield found


def test_what_nothing_needs_goes_when_that_has_been_so_for_long_enough(address, tmp_path):
    store = RegistryStore(f"{address}/team/moved-on", NOBODY)
    made(store, tmp_path / "in", text="a")
    artifact(store, tmp_path / "in", "dataset", {}, "kaiflow-dataset-mine", "my-rows", text="mine")
    kept = made(store, tmp_path / "in", text="b")  # the same tag moves on
    first = prune_registry(store, NOW, 30)
    assert (first.removed, first.waiting) == ([], 4)
    assert prune_registry(store, NOW + 29 * DAY, 30).removed == []
    before = store.tags()
    gone = {f"kaiflow-{kind}-a" for kind in ("dataset", "run", "report", "image")}
    assert {p.tag for p in prune_registry(store, NOW + 31 * DAY, 30, dry=True).removed} == gone
    assert store.tags() == before
    look = prune_registry(store, NOW + 31 * DAY, 30)
    assert {p.tag for p in look.removed} == gone
    assert all(p.freed_bytes > 0 for p in look.removed)
    left = {tag for tag in store.tags() if not tag.startswith("sha256-")}
    assert left == {"1", "my-rows", "kaiflow-dataset-mine", MARKS_TAG, "kaiflow-weights-w"} | {
        f"kaiflow-{kind}-b" for kind in ("dataset", "run", "report", "image")
    }
    link = lineage(store, "1")
    assert {part.digest for part in link.parts} == {kept["run"], kept["provenance"]}
    assert not any(check.problem for check in verify(store, link))
    assert prune_registry(store, NOW + 90 * DAY, 30).removed == []


def test_what_is_needed_again_begins_anew(address, tmp_path):
    store = RegistryStore(f"{address}/team/again", NOBODY)
    digests = made(store, tmp_path / "in", text="a")
    with store.open_blob(digests["image"]) as reader:
        image = reader.read()
    made(store, tmp_path / "in", text="b")
    prune_registry(store, NOW, 30)
    store.add_manifest(image, ["1"])  # the user's tag goes back to a: now b is unneeded
    look = prune_registry(store, NOW + 31 * DAY, 30)
    assert (look.removed, look.waiting) == ([], 4)


def test_a_registry_that_deletes_nothing_says_how_to_switch_it_on(address, tmp_path):
    def refuses(exchange):
        return exchange.answer(405) if exchange.command == "DELETE" else False

    with proxied(address, refuses) as (front, _):
        store = RegistryStore(f"{front}/team/fixed", NOBODY)
        artifact(store, tmp_path / "in", "weights", {}, "kaiflow-weights-old", text="old")
        made(store, tmp_path / "in")
        with pytest.raises(ConfigError, match="does not let") as raised:
            prune_registry(store, NOW, 0)
        assert "REGISTRY_STORAGE_DELETE_ENABLED" in raised.value.fix


def test_a_cache_keeps_what_images_elsewhere_are_made_of(address, tmp_path):
    cache, images = RegistryStore(f"{address}/cache", NOBODY), RegistryStore(f"{address}/team/published", NOBODY)
    for text in ("a", "b"):
        made(cache, tmp_path / "in", f"kaiflow-image-{text}", text)  # a cache has no tag of a user's
    image = cache.find("kaiflow-image-a")
    assert image is not None
    copy(image, cache, images, ["1"])
    look = prune_registry(cache, NOW, 0, needed_by=[images])
    assert {p.tag for p in look.removed} == {f"kaiflow-{kind}-b" for kind in ("dataset", "run", "report", "image")}
    link = lineage(cache, "kaiflow-image-a")
    assert not any(check.problem for check in verify(cache, link))
    assert {part.what for _, part in walked(link)} == {"image", "run", "dataset", "weights", "report", "provenance"}


def test_a_repository_that_does_not_tell_what_is_needed_loses_nothing(address, tmp_path):
    cache = RegistryStore(f"{address}/cache-alone", NOBODY)
    made(cache, tmp_path / "in", "kaiflow-image-a", "a")
    before = cache.tags()
    with pytest.raises(ConfigError, match="holds no image that kaiflow has made") as raised:
        prune_registry(cache, NOW, 0)
    assert "--needed-by" in raised.value.fix
    assert cache.tags() == before


def test_a_mistyped_repository_and_a_cache_itself_need_nothing_and_remove_nothing(address, tmp_path):
    cache = RegistryStore(f"{address}/cache-typo", NOBODY)
    made(cache, tmp_path / "in", "kaiflow-image-a", "a")
    before = cache.tags()
    for wrong in (f"{address}/team/tpyo", f"{address}/cache-typo"):
        with pytest.raises(ConfigError, match=wrong):
            prune_registry(cache, NOW, 0, needed_by=[RegistryStore(wrong, NOBODY)])
    artifact(cache, tmp_path / "in", "image", {}, "buildcache")  # somebody else's: it needs nothing of ours
    with pytest.raises(ConfigError, match="holds no image"):
        prune_registry(cache, NOW, 0)
    assert set(cache.tags()) == {*before, "buildcache"}


def test_a_registry_that_stumbles_ends_the_look(address, tmp_path, monkeypatch):
    monkeypatch.setattr(backoff, "BACKOFF_SECONDS", 0.001)
    store = RegistryStore(f"{address}/team/stumbles", NOBODY)
    digests = made(store, tmp_path / "in", text="a")

    def stumbles(exchange):
        return exchange.path.endswith(digests["image"]) and exchange.command == "GET" and exchange.answer(503)

    with proxied(address, stumbles) as (front, _), pytest.raises(TryAgainError):
        prune_registry(RegistryStore(f"{front}/team/stumbles", NOBODY), NOW, 0)
    assert "kaiflow-run-a" in store.tags()


def test_an_adapter_inside_an_index_of_the_users_keeps_what_it_is_made_of(address, tmp_path):
    store = RegistryStore(f"{address}/team/index", NOBODY)
    digests = made(store, tmp_path / "in", "kaiflow-image-a", "a")
    made(store, tmp_path / "in", "2", "b")
    size = len(store.raw(digests["image"]) or b"")
    entry = {"mediaType": MANIFEST, "digest": digests["image"], "size": size}
    Pusher(address, "team/index").manifest({"schemaVersion": 2, "mediaType": INDEX, "manifests": [entry]}, "many")
    assert prune_registry(store, NOW, 0).removed == []


def test_what_a_run_has_found_again_is_not_removed_under_it(address, tmp_path):
    store = RegistryStore(f"{address}/team/found", NOBODY)
    old = made(store, tmp_path / "in", text="a")
    made(store, tmp_path / "in", text="b")
    assert prune_registry(store, NOW, 30).waiting == 4
    unmark(store, [old["dataset"], old["weights"]])
    look = prune_registry(store, NOW + 31 * DAY, 30)
    assert {p.tag for p in look.removed} == {f"kaiflow-{kind}-a" for kind in ("run", "report", "image")}
    assert look.waiting == 1
