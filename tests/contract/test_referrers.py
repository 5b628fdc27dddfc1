"""What tells of an artifact is found by its digest: in registries that list it, and in those that do not."""

import json
import subprocess

import pytest

from steps.provenance import attach
from steps.registry_referrers import fallback_tag
from steps.registry_store import RegistryStore
from steps.store import copy, publish, require
from tests.contract.test_lineage import made
from tests.contract.test_registry_store import NOBODY
from tests.registries import INDEX, registry
from tests.registry_proxy import proxied


@pytest.fixture(scope="module")
def address(tmp_path_factory):
    with registry(tmp_path_factory.mktemp("registry")) as found:
        yield found


def statement(store, folder, text, subject):
    folder.mkdir(exist_ok=True)
    path = folder / "said.json"
    path.write_text(text)
    return publish(store, "application/vnd.example.note.v1", {path.name: path}, {"note": text}, [], subject)


def subject_of(store, folder, name):
    path = folder / f"{name}.txt"
    path.write_text(name)
    return publish(store, "application/vnd.example.thing.v1", {path.name: path}, {}, [name])


def test_a_registry_without_the_api_gets_the_list_under_the_fallback_tag(address, tmp_path):
    store = RegistryStore(f"{address}/team/plain", NOBODY)
    thing, other = subject_of(store, tmp_path, "thing"), subject_of(store, tmp_path, "other")
    assert store.referrers(thing.digest) == []
    notes = [statement(store, tmp_path / "in", text, thing) for text in ("a", "b", "a")]
    statement(store, tmp_path / "in", "c", other)
    assert store.referrers(thing.digest) == sorted({n.digest: n for n in notes}.values(), key=lambda n: n.digest)
    assert {n.annotations["note"] for n in store.referrers(thing.digest)} == {"a", "b"}
    assert fallback_tag(thing.digest) in store.tags()


def test_the_list_is_what_other_tools_read(address, tmp_path):
    store = RegistryStore(f"{address}/team/others", NOBODY)
    thing = subject_of(store, tmp_path, "thing")
    note = statement(store, tmp_path / "in", "a", thing)
    where = f"docker://{address}/team/others:{fallback_tag(thing.digest)}"
    raw = subprocess.run(
        ["skopeo", "inspect", "--raw", "--tls-verify=false", where], capture_output=True, check=True
    ).stdout
    index = json.loads(raw)
    assert index["mediaType"] == INDEX
    assert [(m["digest"], m["artifactType"], m["size"]) for m in index["manifests"]] == [
        (note.digest, "application/vnd.example.note.v1", note.size)
    ]


def test_a_registry_with_the_api_is_asked_page_by_page(address, tmp_path):
    """Debian's registry has no such API: it is written before it, as the specification words it."""
    kept: list[dict[str, object]] = []

    def lists_referrers(exchange):
        if exchange.command == "GET" and "/referrers/" in exchange.path:
            path, _, query = exchange.path.partition("?")
            page = int(query.removeprefix("page=") or 0)
            body = json.dumps({"schemaVersion": 2, "mediaType": INDEX, "manifests": kept[page : page + 1]}).encode()
            exchange.send_response(200)
            exchange.send_header("Content-Type", INDEX)
            exchange.send_header("Content-Length", str(len(body)))
            if page + 1 < len(kept):
                exchange.send_header("Link", f'<{path}?page={page + 1}>; rel="next"')
            exchange.end_headers()
            exchange.wfile.write(body)
            return True
        return False

    with proxied(address, lists_referrers) as (front, _):
        store = RegistryStore(f"{front}/team/listed", NOBODY)
        thing, other = subject_of(store, tmp_path, "thing"), subject_of(store, tmp_path, "other")
        for text, subject in (("a", thing), ("b", thing), ("c", other)):
            found = statement(store, tmp_path / "in", text, subject)
            kept.append({"digest": found.digest, "mediaType": "x", "size": found.size})
        told = store.referrers(thing.digest)
    assert {m.annotations["note"] for m in told} == {"a", "b"}  # c is listed, and names another subject


def test_the_statement_goes_where_the_image_goes(address, tmp_path):
    from steps.oci_layout import LayoutStore

    here, there = LayoutStore(tmp_path / "store"), RegistryStore(f"{address}/team/moved", NOBODY)
    digests = made(here, tmp_path / "in")
    image = require(here, "1", "image")
    copy(image, here, there, ["1"])
    copy(require(here, digests["provenance"], "statement"), here, there, [])
    assert [m.digest for m in there.referrers(digests["image"])] == [digests["provenance"]]
    assert attach(there, image, "registry/team/adapter").digest == digests["provenance"]
