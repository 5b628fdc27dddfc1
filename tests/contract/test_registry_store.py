"""The store in a registry: a real one, open, with a password, with tokens over TLS; and one that does things wrong."""

import hashlib
import json
import os
import re
import subprocess
import sys
import threading
import time

import pytest

from presets.errors import DataError, KaiflowError, NotPermittedError, TryAgainError
from steps import backoff, registry_client
from steps.docker_config import DockerConfig
from steps.oci_layout import LayoutStore
from steps.registry import blob_to
from steps.registry_client import Repository
from steps.registry_store import RegistryStore
from steps.registry_upload import mount, upload
from steps.store import copy, publish
from tests.registries import INDEX, MANIFEST, PASSWORD, USER, TokenService, base64_of, certificate, registry
from tests.registry_proxy import first, proxied

NOBODY = DockerConfig([])
BIG = os.urandom(3 << 20)


@pytest.fixture(scope="module")
def address(tmp_path_factory):
    with registry(tmp_path_factory.mktemp("registry")) as found:
        yield found


@pytest.fixture
def impatient(monkeypatch):
    monkeypatch.setattr(backoff, "BACKOFF_SECONDS", 0.001)


@pytest.fixture
def files(tmp_path):
    folder = tmp_path / "files"
    folder.mkdir()
    (folder / "adapter.safetensors").write_bytes(BIG)
    (folder / "adapter_config.json").write_text('{"r": 8}')
    (folder / "empty").write_bytes(b"")
    return {path.name: path for path in folder.iterdir()}


def credentials(address):
    return DockerConfig([{"auths": {address: {"auth": base64_of(f"{USER}:{PASSWORD}")}}}])


def assert_round_trip(store, files, tmp_path):
    manifest = publish(store, "application/x", files, {"k": "v"}, ["run-1"])
    assert store.find("run-1") == store.find(manifest.digest) == manifest
    store.check_out(manifest, tmp_path / "out")
    assert {p.name: p.read_bytes() for p in (tmp_path / "out").iterdir()} == {
        name: path.read_bytes() for name, path in files.items()
    }
    return manifest


def test_what_is_published_is_found_by_tag_and_digest_and_comes_out_equal(address, files, tmp_path):
    store = RegistryStore(f"{address}/team/plain", NOBODY)
    assert store.find("run-1") is None
    manifest = assert_round_trip(store, files, tmp_path)
    # The same artifact has the same digest wherever it lies.
    assert publish(LayoutStore(tmp_path / "layout"), "application/x", files, {"k": "v"}, []).digest == manifest.digest
    with store.open_blob(manifest.digest) as reader:
        assert json.loads(reader.read())["artifactType"] == "application/x"
    with store.open_blob(manifest.layers[0].digest) as reader:
        assert reader.read() == files[sorted(files)[0]].read_bytes()


def test_tags_move_and_what_no_tag_names_can_be_discarded(address, files):
    store = RegistryStore(f"{address}/team/tags", NOBODY)
    old = publish(store, "application/x", files, {"n": "1"}, ["a", "b"])
    new = publish(store, "application/x", files, {"n": "2"}, ["a"])
    assert store.tags() == {"a": new.digest, "b": old.digest}
    store.discard(old)
    assert store.find(old.digest) == old  # b names it
    publish(store, "application/x", files, {"n": "3"}, ["b"])
    store.discard(old)
    assert store.find(old.digest) is None
    assert store.find("a") == new


def test_many_tags_come_in_pages(address, files, monkeypatch):
    monkeypatch.setattr("steps.registry_store.TAGS_PER_PAGE", 3)
    store = RegistryStore(f"{address}/team/pages", NOBODY)
    publish(store, "application/x", {}, {}, [f"t{n}" for n in range(8)])
    assert len(store.tags()) == 8


def test_a_password_opens_it_and_nobody_else_gets_in(tmp_path, files):
    with registry(tmp_path, password=True) as address:
        assert_round_trip(RegistryStore(f"{address}/team/closed", credentials(address)), files, tmp_path)
        with pytest.raises(NotPermittedError) as refused:
            publish(RegistryStore(f"{address}/team/closed", NOBODY), "application/x", files, {}, ["x"])
        assert PASSWORD not in str(refused.value)


@pytest.fixture
def with_tokens(tmp_path):
    cert = certificate(tmp_path)
    service = TokenService(tmp_path)
    with service.running(), registry(tmp_path, extra=[service.config], tls=True) as address:
        yield address, service, str(cert)


def test_tokens_are_asked_for_one_repository_and_one_kind_of_access(with_tokens, files, tmp_path):
    """oras-py sends the token for HEAD, which may only pull, with the POST that follows, and is refused."""
    address, service, cert = with_tokens
    store = RegistryStore(f"{address}/team/tokens", credentials(address), verify=cert)
    assert store.find("run-1") is None
    assert_round_trip(store, files, tmp_path)
    assert set(service.asked) == {"repository:team/tokens:pull", "repository:team/tokens:pull,push"}
    assert len(service.asked) <= 6  # three uploads begin at once; afterwards tokens are kept


def test_a_token_that_is_refused_before_its_time_is_replaced(with_tokens, files, tmp_path):
    address, service, cert = with_tokens
    store = RegistryStore(f"{address}/team/expired", credentials(address), verify=cert)
    publish(store, "application/x", {}, {}, ["before"])
    signing = store._at._client.signing
    signing._tokens = {scope: ("of-yesterday", until) for scope, (_, until) in signing._tokens.items()}
    asked = len(service.asked)
    assert_round_trip(store, files, tmp_path)
    assert len(service.asked) > asked


def test_a_certificate_that_nobody_vouches_for_is_refused(with_tokens, files):
    address, _, _ = with_tokens
    with pytest.raises(KaiflowError, match="does not answer"):
        publish(RegistryStore(f"{address}/team/tls", credentials(address)), "application/x", files, {}, ["x"])


FAULTS = {
    "cut in the middle of an upload": first(2, "PATCH upload", lambda e: bool(e.body(1 << 20)) and e.cut()),
    "cut while reading": first(2, "GET blob", lambda e: e.cut()),
    "429 with Retry-After": first(3, "POST upload", lambda e: e.answer(429, Retry_After="0")),
    "500 on the manifest": first(2, "PUT manifest", lambda e: bool(e.body() or 1) and e.answer(500)),
    "503 in an upload": first(2, "PATCH upload", lambda e: bool(e.body()) and e.answer(503, Retry_After="0")),
    "502 at an upload's end": first(1, "PUT upload", lambda e: e.answer(502)),
    "an upload that is gone": first(1, "PATCH upload", lambda e: bool(e.body()) and e.answer(404)),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_what_passes_is_tried_again_and_nothing_is_lost(address, files, tmp_path, impatient, fault):
    repository = f"faults/{'-'.join(re.findall('[a-z0-9]+', fault.lower()))}"
    with proxied(address, FAULTS[fault]) as (proxy, _):
        assert_round_trip(RegistryStore(f"{proxy}/{repository}", NOBODY), files, tmp_path)


@pytest.mark.parametrize("read_bytes", [1 << 20, None], ids=["at once", "at the end of the body"])
@pytest.mark.parametrize("kind", ["PATCH upload", "PUT upload", "PUT manifest", "POST upload", "GET blob"])
def test_a_token_that_runs_out_in_the_middle_is_replaced_and_nothing_is_lost(
    address, files, tmp_path, impatient, kind, read_bytes
):
    valid: set[str] = set()
    used: set[str] = set()
    ran_out: list[str] = []
    one = threading.Lock()  # several uploads are under way

    def wants_tokens(exchange):
        if exchange.path.startswith("/token"):
            valid.add(token := os.urandom(8).hex())
            return reply(exchange, 200, {"token": token, "expires_in": 3600})
        token = exchange.headers.get("Authorization", "").removeprefix("Bearer ")
        with one:
            if exchange.kind == kind and token in used and not ran_out:
                ran_out.extend(used)
                valid.difference_update(used)  # not what another upload has just been given
            if token in valid:
                used.add(token)
                return False
        exchange.body(read_bytes)
        return exchange.answer(401, WWW_Authenticate=f'Bearer realm="http://{exchange.headers["Host"]}/token"')

    with proxied(address, wants_tokens) as (front, _):
        name = f"team/{kind.lower().replace(' ', '-')}-{read_bytes or 'all'}"
        assert_round_trip(RegistryStore(f"{front}/{name}", NOBODY), files, tmp_path)
    assert ran_out


def reply(exchange, status, body):
    data = json.dumps(body).encode()
    exchange.send_response(status)
    exchange.send_header("Content-Length", str(len(data)))
    exchange.end_headers()
    exchange.wfile.write(data)
    return True


def torn(exchange):
    """Send half of a body, and end the connection."""
    exchange.send_response(200)
    exchange.send_header("Content-Length", "1000")
    exchange.send_header("Content-Type", INDEX if "/referrers/" in exchange.path else MANIFEST)
    exchange.end_headers()
    exchange.wfile.write(b'{"schemaVersion": 2, ')
    exchange.wfile.flush()
    return exchange.cut()


@pytest.mark.parametrize("path", ["/manifests/", "/tags/", "/referrers/"])
def test_a_list_or_manifest_that_is_torn_is_asked_for_again(address, files, impatient, path):
    made = publish(RegistryStore(f"{address}/team/torn", NOBODY), "application/x", files, {}, ["run-1"])
    left = [1, 2]

    def tears(exchange):
        return (
            exchange.command == "GET" and path in exchange.path and bool(left) and bool(left.pop()) and torn(exchange)
        )

    with proxied(address, tears) as (front, _):
        store = RegistryStore(f"{front}/team/torn", NOBODY)
        asked = {
            "/manifests/": lambda: store.find("run-1"),
            "/tags/": store.tags,
            "/referrers/": lambda: store.referrers(made.digest),
        }
        assert asked[path]() == {"/manifests/": made, "/tags/": {"run-1": made.digest}, "/referrers/": []}[path]
    assert left == []


@pytest.mark.parametrize("body", ["<html>", "[]", "null", '{"tags": 5}', '{"tags": [5]}'])
def test_tags_that_are_no_list_are_refused(address, impatient, body):
    def says(exchange):
        if "/tags/" not in exchange.path:
            return False
        exchange.send_response(200)
        exchange.send_header("Content-Length", str(len(body)))
        exchange.end_headers()
        exchange.wfile.write(body.encode())
        return True

    with proxied(address, says) as (front, _), pytest.raises(DataError, match="does not list its tags"):
        RegistryStore(f"{front}/team/none", NOBODY).tags()


def test_a_download_goes_on_as_long_as_each_try_brings_more(address, files, tmp_path, impatient):
    made = publish(RegistryStore(f"{address}/team/pieces", NOBODY), "application/x", files, {}, ["run-1"])
    step = len(BIG) // 12

    def cuts(exchange):
        if exchange.kind != "GET blob" or not exchange.path.endswith(hashlib.sha256(BIG).hexdigest()):
            return False
        start = int((exchange.headers.get("Range") or "bytes=0-")[6:-1])
        exchange.send_response(206)
        exchange.send_header("Content-Length", str(len(BIG) - start))
        exchange.end_headers()
        exchange.wfile.write(BIG[start : start + step])
        exchange.wfile.flush()
        return exchange.cut()

    with proxied(address, cuts) as (front, seen):
        RegistryStore(f"{front}/team/pieces", NOBODY).check_out(made, tmp_path / "out")
    assert (tmp_path / "out/adapter.safetensors").read_bytes() == BIG
    assert seen["GET blob"] > 12


def test_a_bearer_token_of_dockers_config_signs_every_request(address, files, tmp_path):
    def wants(exchange):
        if exchange.headers.get("Authorization") == "Bearer mine":
            return False
        exchange.body()
        return exchange.answer(401, WWW_Authenticate='Bearer realm="http://127.0.0.1:9/token"')

    with proxied(address, wants) as (front, seen):
        config = DockerConfig([{"auths": {front: {"registrytoken": "mine"}}}])
        assert_round_trip(RegistryStore(f"{front}/team/registrytoken", config), files, tmp_path)
    assert seen["PATCH upload"] <= len(files)  # none was sent unsigned first


def test_netrc_stands_below_dockers_config(tmp_path, files, monkeypatch):
    netrc = tmp_path / "netrc"
    netrc.write_text("machine 127.0.0.1 login somebody password else\n")
    monkeypatch.setenv("NETRC", str(netrc))
    with registry(tmp_path, password=True) as address:
        assert_round_trip(RegistryStore(f"{address}/team/netrc", credentials(address)), files, tmp_path)


def test_a_registry_that_takes_itself_for_one_without_tls_gets_no_credentials_in_the_clear(
    with_tokens, files, tmp_path
):
    address, _, cert = with_tokens
    at = Repository(f"{address}/team/tls", credentials(address), verify=cert)
    assert (
        at.absolute(f"http://{address}/v2/team/tls/blobs/uploads/x?y=z") == f"{at.root}/v2/team/tls/blobs/uploads/x?y=z"
    )
    assert at.absolute("http://elsewhere.example.com/x") == "http://elsewhere.example.com/x"
    assert not at._client._is_own(f"http://{address}/v2/")


@pytest.mark.parametrize("name", ["team/tags/y", "manifests/x", "team/blobs", "referrers/a"])
def test_a_repository_may_be_named_as_parts_of_the_api_are(with_tokens, files, tmp_path, name):
    address, service, cert = with_tokens
    assert_round_trip(RegistryStore(f"{address}/{name}", credentials(address), verify=cert), files, tmp_path)
    assert {scope.split(":")[1] for scope in service.asked} == {name}


@pytest.mark.parametrize("status", [507, 520, 599])
def test_every_fault_of_the_server_is_asked_again(address, files, tmp_path, impatient, status):
    once = first(1, "POST upload", lambda e: e.answer(status))
    with proxied(address, once) as (front, _):
        assert_round_trip(RegistryStore(f"{front}/faults/{status}", NOBODY), files, tmp_path)


def test_an_upload_that_leads_nowhere_is_refused(address, files):
    def forgets(exchange):
        return exchange.kind == "POST upload" and exchange.answer(202)

    with proxied(address, forgets) as (front, _), pytest.raises(DataError, match="does not say where"):
        publish(RegistryStore(f"{front}/team/nowhere", NOBODY), "application/x", files, {}, ["x"])


def test_a_400_of_another_kind_is_told_in_the_registrys_words(address, files, tmp_path):
    source = LayoutStore(tmp_path / "layout")
    made = publish(source, "application/x", files, {}, ["x"])
    said = {"errors": [{"code": "NAME_INVALID", "message": "names are short here"}]}

    def refuses(exchange):
        return exchange.kind == "PUT upload" and bool(exchange.body() or 1) and reply(exchange, 400, said)

    with proxied(address, refuses) as (front, _), pytest.raises(DataError, match="400 NAME_INVALID"):
        copy(made, source, RegistryStore(f"{front}/team/short", NOBODY), ["x"])


def trickle(exchange):
    """Send the blob byte by byte, for longer than anybody waits."""
    whole = exchange.kind == "GET blob" and not exchange.headers.get("Range")
    if not whole or not exchange.path.endswith(hashlib.sha256(BIG).hexdigest()):
        return False
    exchange.send_response(200)
    exchange.send_header("Content-Length", str(len(BIG)))
    exchange.end_headers()
    for byte in BIG[:100]:
        try:
            exchange.wfile.write(bytes([byte]))
            exchange.wfile.flush()
        except OSError:
            break
        time.sleep(0.02)
    exchange.close_connection = True
    return True


def test_a_download_that_trickles_is_begun_anew(address, files, tmp_path, impatient, monkeypatch):
    monkeypatch.setattr(registry_client, "SLOW_SECONDS", 0.2)
    with proxied(address, trickle) as (proxy, seen):
        assert_round_trip(RegistryStore(f"{proxy}/team/trickle", NOBODY), files, tmp_path)
    assert seen["GET blob"] == 3  # the large one twice, the small one; nothing is asked for an empty one


def test_a_download_goes_on_where_a_killed_process_has_stopped(address, files, tmp_path):
    store = RegistryStore(f"{address}/team/resumed", NOBODY)
    (layer, *_) = publish(store, "application/x", {"big": files["adapter.safetensors"]}, {}, ["1"]).layers
    half = BIG[: len(BIG) // 2]
    part = tmp_path / f".big.{layer.digest[7:19]}.part"
    asked = []

    def watches(exchange):
        if exchange.kind == "GET blob":
            asked.append(exchange.headers.get("Range"))
        return False

    with proxied(address, watches) as (proxy, _):
        behind = Repository(f"{proxy}/team/resumed", NOBODY)
        part.write_bytes(half)
        blob_to(behind, layer.digest, layer.size, tmp_path / "big")
        assert asked == [f"bytes={len(half)}-"]
        assert (tmp_path / "big").read_bytes() == BIG
        part.write_bytes(b"?" * 100)  # a disk that has lost what was written: taken anew, not refused
        blob_to(behind, layer.digest, layer.size, tmp_path / "big")
    assert (tmp_path / "big").read_bytes() == BIG
    assert not part.exists()


def too_large(limit):
    """Return a proxy's fault: bodies over ``limit`` are refused unread, as nginx does."""

    def fault(exchange):
        return exchange.answer(413) if int(exchange.headers.get("Content-Length") or 0) > limit else False

    return fault


def test_where_a_proxy_limits_bodies_they_go_in_pieces(address, files, tmp_path, impatient):
    with proxied(address, too_large(1 << 20)) as (proxy, seen):
        assert_round_trip(RegistryStore(f"{proxy}/faults/pieces", NOBODY), files, tmp_path)
        assert seen["PATCH upload"] >= 3 + len(files)


def test_a_limit_below_any_piece_is_said_with_its_remedy(address, files, impatient):
    with proxied(address, too_large(1 << 10)) as (proxy, _), pytest.raises(DataError, match="1 MiB") as refused:
        publish(RegistryStore(f"{proxy}/faults/tiny", NOBODY), "application/x", files, {}, ["x"])
    assert "client_max_body_size" in refused.value.fix


def spoiled(kind, change):
    def fault(exchange):
        if exchange.kind == kind:
            exchange.spoil = change
        return False

    return fault


@pytest.mark.parametrize(
    ("kind", "change"),
    [
        ("GET blob", lambda data: data[:-1] + bytes([data[-1] ^ 1]) if data else data),
        ("GET blob", lambda data: data + b"x"),
    ],
)
def test_a_blob_of_other_bytes_is_refused_and_not_left_behind(address, files, tmp_path, impatient, kind, change):
    manifest = publish(RegistryStore(f"{address}/faults/spoiled", NOBODY), "application/x", files, {}, ["x"])
    with proxied(address, spoiled(kind, change)) as (proxy, _):
        store = RegistryStore(f"{proxy}/faults/spoiled", NOBODY)
        with pytest.raises(DataError) as refused:
            store.check_out(manifest, tmp_path / "out")
    assert refused.value.reason == "DigestMismatch"
    assert not [p for p in (tmp_path / "out").iterdir() if p.suffix == ".safetensors"]


def test_a_manifest_that_is_cut_short_is_refused(address, files, impatient):
    digest = publish(RegistryStore(f"{address}/faults/short", NOBODY), "application/x", files, {}, ["x"]).digest
    fault = spoiled("GET manifest", lambda data: data[:40])
    with proxied(address, fault) as (proxy, _), pytest.raises(DataError) as refused:
        RegistryStore(f"{proxy}/faults/short", NOBODY).find(digest)
    assert refused.value.reason == "DigestMismatch"


def test_what_never_works_is_given_up_and_no_tag_was_moved(address, files, impatient):
    with proxied(address, lambda e: e.kind == "PATCH upload" and bool(e.body()) and e.answer(500)) as (proxy, seen):
        with pytest.raises(TryAgainError) as refused:
            publish(RegistryStore(f"{proxy}/faults/never", NOBODY), "application/x", files, {}, ["x"])
        assert seen["PUT manifest"] == 0
    assert "_state" not in str(refused.value)  # addresses of uploads are signed
    assert RegistryStore(f"{address}/faults/never", NOBODY).find("x") is None


def test_a_blob_that_is_there_moves_no_bytes_and_one_of_another_repository_is_mounted(address, tmp_path):
    path = tmp_path / "blob"
    path.write_bytes(os.urandom(1 << 20))
    with proxied(address, lambda _: False) as (proxy, seen):
        here, there = (Repository(f"{proxy}/mount/{name}", NOBODY) for name in ("here", "there"))
        found = upload(here, path)
        assert seen["PATCH upload"] == 1
        assert upload(here, path, found.digest) == found
        assert upload(there, path, found.digest, also_in=here.name) == found
        assert seen["PATCH upload"] == 1
        assert upload(there, path, found.digest) == found
    with pytest.raises(DataError, match="no longer"):
        upload(Repository(f"{address}/mount/wrong", NOBODY), path, "sha256:" + "0" * 64)


def test_memory_does_not_grow_with_the_blob(address, tmp_path):
    code = """
import resource, sys
from pathlib import Path
from steps.docker_config import DockerConfig
from steps.registry import blob_to
from steps.registry_client import Repository
from steps.registry_upload import upload
upload(Repository(sys.argv[1], DockerConfig([])), Path(sys.argv[2]))
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
"""
    peaks = []
    for mebibytes in (1, 200):
        path = tmp_path / "blob"
        with path.open("wb") as writer:
            for _ in range(mebibytes):
                writer.write(os.urandom(1 << 20))
        command = [sys.executable, "-c", code, f"{address}/memory/{mebibytes}", str(path)]
        peaks.append(int(subprocess.run(command, check=True, capture_output=True, text=True).stdout))
    assert peaks[1] - peaks[0] < 20 << 10  # KiB


def test_a_blob_is_mounted_from_another_repository_with_a_token_for_both(with_tokens, files, tmp_path):
    address, service, cert = with_tokens
    cache = RegistryStore(f"{address}/team/cache", credentials(address), verify=cert)
    made = publish(cache, "application/x", files, {}, ["run-1"])
    target = RegistryStore(f"{address}/team/adapter", credentials(address), verify=cert)
    assert all(mount(target._at, layer.digest, "team/cache") for layer in made.layers)
    assert "repository:team/adapter:pull,push repository:team/cache:pull" in service.asked


def test_whoever_a_redirect_leads_to_gets_no_credentials(address, files, tmp_path):
    told = []

    def asks(exchange):
        told.append((exchange.path, exchange.headers.get("Authorization")))
        realm = f'Bearer realm="http://{exchange.headers["Host"]}/token",service="x"'
        return exchange.answer(401, WWW_Authenticate=realm)

    made = publish(RegistryStore(f"{address}/team/led", NOBODY), "application/x", files, {}, ["run-1"])
    with proxied("127.0.0.1:9", asks) as (elsewhere, _):

        def leads(exchange):
            return exchange.kind == "GET blob" and exchange.answer(307, Location=f"http://{elsewhere}{exchange.path}")

        with proxied(address, leads) as (front, _):
            store = RegistryStore(f"{front}/team/led", credentials(front))
            with pytest.raises(KaiflowError):
                store.check_out(made, tmp_path / "out")
    assert told
    assert {(path.startswith("/token"), authorization) for path, authorization in told} == {(False, None)}


def test_a_refusal_has_the_registrys_words_without_addresses_and_the_remedy_of_what_was_tried(address, files):
    said = {"errors": [{"code": "DENIED", "message": "quota of team/full is used up, see https://r/x?sig=SECRET."}]}

    def refuses(exchange):
        return exchange.command == "POST" and reply(exchange, 403, said)

    with proxied(address, refuses) as (front, _), pytest.raises(NotPermittedError) as refused:
        publish(RegistryStore(f"{front}/team/full", NOBODY), "application/x", files, {}, ["x"])
    assert "403 DENIED (quota of team/full is used up, see …)" in refused.value.message
    assert "imagePushSecret" in str(refused.value.fix)


def test_who_gets_no_token_for_the_other_repository_sends_the_blob(with_tokens, files, tmp_path):
    address, service, cert = with_tokens
    cache = RegistryStore(f"{address}/team/hidden", credentials(address), verify=cert)
    made = publish(cache, "application/x", files, {}, ["run-1"])
    service.refused = "team/hidden"
    target = RegistryStore(f"{address}/team/open", credentials(address), verify=cert)
    assert not mount(target._at, made.layers[0].digest, "team/hidden")
    assert_round_trip(target, files, tmp_path)


def test_a_token_service_that_stumbles_is_asked_again(with_tokens, files, tmp_path, impatient):
    address, service, cert = with_tokens
    service.stumbles = 3
    assert_round_trip(RegistryStore(f"{address}/team/stumbles", credentials(address), verify=cert), files, tmp_path)
    assert service.stumbles == 0
