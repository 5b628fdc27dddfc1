"""Are datasets found wherever they lie: images, volumes, the hub, buckets, addresses; each told with its version?"""

import gzip
import hashlib
import json
import os
import subprocess
import sys
import tarfile
import time
from dataclasses import replace
from pathlib import Path

import httpx
import pytest
from oras.client import OrasClient

from presets.errors import ConfigError, DataError, KaiflowError, NotPermittedError, TryAgainError
from presets.recipe import AuditRecipe, DataRecipe
from steps import backoff, sources
from steps.contract import Target
from steps.docker_config import DockerConfig
from steps.hub_files import HubFile, hub_file
from steps.image_files import pull
from steps.sources import collect
from tests.fault_server import Served, serving
from tests.registries import INDEX, PASSWORD, TAR, TAR_GZIP, USER, Pusher, free_port, registry, tar

RULES = AuditRecipe(1 << 30, 0.0, 0.5, "remove")
NOTHING = DataRecipe((), None, (), None, None, None, None, None, True, 42, 0.2)
NOBODY = DockerConfig([])
ROWS = b'{"question": "q", "answer": "a"}\n'
ROOT = Path(__file__).parents[2]


def gathered(data, tmp_path, target: Target = "local", rules=RULES):
    return collect(data, rules, tmp_path / "downloads", target, lambda done, total: None)


def names_below(root):
    return sorted(p.relative_to(root).as_posix() for p in root.rglob("*") if p.is_file())


# ---- images


@pytest.fixture(scope="module")
def open_registry(tmp_path_factory):
    with registry(tmp_path_factory.mktemp("registry")) as address:
        yield address


def test_kaitos_data_image_gives_the_files_below_data(open_registry, tmp_path):
    push = Pusher(open_registry, "team/data")
    layer = tar({"bin/sh": b"x", "data/train.jsonl": ROWS, "data/more/b.jsonl": ROWS})
    want = push.image_of([(TAR_GZIP, gzip.compress(layer), {})], "1")
    found = gathered(replace(NOTHING, image=f"{push.image}:1"), tmp_path)
    assert [source.name for source in found.files] == ["more/b.jsonl", "train.jsonl"]
    assert found.versions == [f"{push.image}:1@{want}"]


def test_layers_lie_over_one_another_as_in_a_container(open_registry, tmp_path):
    push = Pusher(open_registry, "team/layers")
    first = tar({"data/a.jsonl": b"old", "data/b.jsonl": ROWS, "data/x/c.jsonl": ROWS, "data/y/d.jsonl": ROWS})
    second = tar({"data/a.jsonl": ROWS, "data/.wh.b.jsonl": b"", "data/x/.wh..wh..opq": b"", "data/.wh.y": b""})
    push.image_of([(TAR, first, {}), (TAR, second, {})], "1")
    _, root = pull(f"{push.image}:1", NOBODY, tmp_path, 1 << 30)
    assert names_below(root) == ["a.jsonl"]
    assert (root / "a.jsonl").read_bytes() == ROWS


def test_what_oras_pushed_is_found_by_its_titles(open_registry, tmp_path):
    (tmp_path / "train.jsonl").write_bytes(ROWS)
    folder = tmp_path / "folder"
    folder.mkdir()
    (folder / "b.jsonl").write_bytes(ROWS)
    client = OrasClient(insecure=True)
    image = f"{open_registry}/team/artifact:1"
    os.chdir(tmp_path)
    client.push(target=image, files=["train.jsonl", "folder"])
    os.chdir(ROOT)
    _, root = pull(image, NOBODY, tmp_path / "pulled", 1 << 30)
    assert names_below(root) == ["folder/b.jsonl", "train.jsonl"]


def test_of_an_index_the_image_for_this_platform_is_taken(open_registry, tmp_path):
    push = Pusher(open_registry, "team/index")
    wanted = push.image_of([(TAR, tar({"data/a.jsonl": ROWS}), {})], "amd")
    other = push.image_of([(TAR, tar({"data/b.jsonl": ROWS}), {})], "arm")
    size = len(httpx.get(f"http://{open_registry}/v2/team/index/manifests/amd").content)
    manifests = [
        {"mediaType": "application/vnd.oci.image.manifest.v1+json", "digest": d, "size": size,
         "platform": {"os": "linux", "architecture": a}} for d, a in ((other, "arm64"), (wanted, "amd64"))
    ]  # fmt: skip
    push.manifest({"schemaVersion": 2, "mediaType": INDEX, "manifests": manifests}, "all")
    digest, root = pull(f"{push.image}:all", NOBODY, tmp_path, 1 << 30)
    assert digest == wanted
    assert names_below(root) == ["a.jsonl"]


def test_the_second_pull_moves_no_blob(open_registry, tmp_path, monkeypatch):
    push = Pusher(open_registry, "team/again")
    push.image_of([(TAR, tar({"data/a.jsonl": ROWS}), {})], "1")
    first = pull(f"{push.image}:1", NOBODY, tmp_path, 1 << 30)
    monkeypatch.setattr("steps.registry.Registry.blob_to", lambda *_: pytest.fail("a blob was fetched"))
    assert pull(f"{push.image}:1", NOBODY, tmp_path, 1 << 30) == first


def link(name, target, kind=tarfile.SYMTYPE):
    entry = tarfile.TarInfo(name)
    entry.type, entry.linkname = kind, target
    return entry


@pytest.mark.parametrize(
    ("entries", "reason"),
    [
        ({"../evil": b"x", "data/a.jsonl": ROWS}, "ImageInvalid"),
        ({"data/../../evil": b"x"}, "ImageInvalid"),
        ({"data/a.jsonl": link("data/a.jsonl", "/etc/passwd")}, "ImageInvalid"),
        ({"data/a.jsonl": link("data/a.jsonl", "b", tarfile.LNKTYPE)}, "ImageInvalid"),
        ({"data/a.jsonl": link("data/a.jsonl", "", tarfile.CHRTYPE)}, "ImageInvalid"),
        ({"data": link("data", "/etc")}, "ImageInvalid"),
        ({}, "ImageEmpty"),
        ({"etc/x": b""}, ""),
    ],
)
def test_an_image_that_leads_elsewhere_is_refused(open_registry, tmp_path, entries, reason):
    push = Pusher(open_registry, "team/hostile")
    push.image_of([(TAR, tar(entries), {})], "1")
    if not reason:
        assert names_below(pull(f"{push.image}:1", NOBODY, tmp_path / "in", 1 << 30)[1]) == ["etc/x"]
        return
    with pytest.raises(DataError) as caught:
        pull(f"{push.image}:1", NOBODY, tmp_path / "in", 1 << 30)
    assert caught.value.reason == reason
    assert not (tmp_path / "evil").exists()


@pytest.mark.parametrize("title", ["../evil.jsonl", "/../../evil.jsonl", "a/../../evil.jsonl"])
def test_a_title_that_leads_elsewhere_is_refused(open_registry, tmp_path, title):
    push = Pusher(open_registry, "team/title")
    push.image_of([("application/octet-stream", ROWS, {"org.opencontainers.image.title": title})], "1")
    with pytest.raises(DataError, match="leads out"):
        pull(f"{push.image}:1", NOBODY, tmp_path / "in", 1 << 30)


def test_a_small_layer_that_unpacks_to_much_is_refused(open_registry, tmp_path):
    push = Pusher(open_registry, "team/bomb")
    push.image_of([(TAR_GZIP, gzip.compress(tar({"data/a.jsonl": bytes(1 << 22)})), {})], "1")
    with pytest.raises(DataError) as caught:
        pull(f"{push.image}:1", NOBODY, tmp_path, 1 << 20)
    assert caught.value.reason == "DatasetTooLarge"


@pytest.mark.parametrize(
    ("image", "error", "reason"),
    [("team/none:1", DataError, "ImageNotFound"), ("team/data:none", DataError, "ImageNotFound")],
)
def test_an_image_that_is_not_there_is_told(open_registry, tmp_path, image, error, reason):
    with pytest.raises(error) as caught:
        pull(f"{open_registry}/{image}", NOBODY, tmp_path, 1 << 30)
    assert caught.value.reason == reason


def test_a_registry_that_does_not_answer_is_asked_again_and_given_up(tmp_path, monkeypatch):
    monkeypatch.setattr(backoff, "BACKOFF_SECONDS", 0.001)
    with pytest.raises(TryAgainError):
        pull(f"127.0.0.1:{free_port()}/a/b:1", NOBODY, tmp_path, 1 << 30)


def test_a_blob_of_other_bytes_is_refused(open_registry, tmp_path, tmp_path_factory):
    push = Pusher(open_registry, "team/corrupt")
    layer = tar({"data/a.jsonl": ROWS * 3})
    push.image_of([(TAR, layer, {})], "1")
    name = hashlib.sha256(layer).hexdigest()
    blob = next(p for p in tmp_path_factory.getbasetemp().rglob(f"*/{name}/data"))
    blob.write_bytes(bytes(len(layer)))
    try:
        with pytest.raises(DataError) as caught:
            pull(f"{push.image}:1", NOBODY, tmp_path / "in", 1 << 30)
        assert caught.value.reason == "DigestMismatch"
    finally:
        blob.write_bytes(layer)


@pytest.mark.parametrize(
    ("entry", "fits"),
    [
        ({"auth": "dGVzdGVyOnMzY3JldC1wYXNz"}, True),
        ({"username": USER, "password": PASSWORD}, True),
        ({"username": USER, "password": "wrong"}, False),
        (None, False),
    ],
)
def test_a_registry_with_a_password_opens_to_its_own_credentials(tmp_path, entry, fits):
    with registry(tmp_path, password=True) as address:
        push = Pusher(address, "team/data", (USER, PASSWORD))
        push.image_of([(TAR, tar({"data/a.jsonl": ROWS}), {})], "1")
        config = DockerConfig([{"auths": {address: entry} if entry else {}}])
        if fits:
            assert names_below(pull(f"{push.image}:1", config, tmp_path / "in", 1 << 30)[1]) == ["a.jsonl"]
            return
        with pytest.raises(NotPermittedError) as caught:
            pull(f"{push.image}:1", config, tmp_path / "in", 1 << 30)
        assert caught.value.reason == "RegistryForbidden"
        assert PASSWORD not in str(caught.value)


# ---- volumes


def test_every_file_below_a_volume_is_used_in_the_order_of_its_path(tmp_path):
    for name in ("b/train.jsonl", "a/train.jsonl", "README.md", ".hidden/x.jsonl", "_SUCCESS"):
        path = tmp_path / "volume" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(ROWS)
    found = gathered(replace(NOTHING, volume_source={"hostPath": {"path": str(tmp_path / "volume")}}), tmp_path)
    assert [source.name for source in found.files] == ["a/train.jsonl", "b/train.jsonl"]
    assert found.skipped == [".hidden/x.jsonl", "README.md", "_SUCCESS"]


def test_on_a_cluster_the_volume_is_where_it_is_mounted(tmp_path, monkeypatch):
    (tmp_path / "a.jsonl").write_bytes(ROWS)
    monkeypatch.setattr(sources, "VOLUME", tmp_path)
    claim = {"persistentVolumeClaim": {"claimName": "data"}}
    assert [s.name for s in gathered(replace(NOTHING, volume_source=claim), tmp_path, "cluster").files] == ["a.jsonl"]
    with pytest.raises(ConfigError, match="only hostPath"):
        gathered(replace(NOTHING, volume_source=claim), tmp_path)


def test_a_link_out_of_the_volume_is_refused(tmp_path):
    (tmp_path / "volume").mkdir()
    (tmp_path / "secret.jsonl").write_bytes(ROWS)
    (tmp_path / "volume/a.jsonl").symlink_to(tmp_path / "secret.jsonl")
    with pytest.raises(DataError, match="leads out"):
        gathered(replace(NOTHING, volume_source={"hostPath": {"path": str(tmp_path / "volume")}}), tmp_path)


def test_an_empty_volume_is_told(tmp_path):
    (tmp_path / "volume").mkdir()
    with pytest.raises(DataError, match="no data file"):
        gathered(replace(NOTHING, volume_source={"hostPath": {"path": str(tmp_path / "volume")}}), tmp_path)


# ---- addresses


def test_two_files_of_one_name_keep_apart(tmp_path):
    with serving(Served(ROWS)) as one, serving(Served(ROWS + ROWS)) as two:
        found = gathered(replace(NOTHING, urls=(one.url, two.url)), tmp_path)
    assert [source.name for source in found.files] == ["1/train.parquet", "2/train.parquet"]
    assert [source.path.read_bytes() for source in found.files] == [ROWS, ROWS + ROWS]


def test_a_digest_may_be_asked_of_a_local_file_too(tmp_path):
    path = tmp_path / "a.jsonl"
    path.write_bytes(ROWS)
    right = hashlib.sha256(ROWS).hexdigest()
    assert gathered(replace(NOTHING, urls=(f"{path.as_uri()}#sha256={right}",)), tmp_path).files
    with pytest.raises(DataError) as caught:
        gathered(replace(NOTHING, urls=(f"{path.as_uri()}#sha256={'0' * 64}",)), tmp_path)
    assert caught.value.reason == "ChecksumMismatch"


def test_the_query_of_an_address_is_not_recorded(tmp_path):
    with serving(Served(ROWS)) as served:
        found = gathered(replace(NOTHING, urls=(f"{served.url}?sig=secret",)), tmp_path)
    assert found.versions == [served.url]


# ---- the hub


@pytest.mark.parametrize(
    ("url", "file"),
    [
        ("hf://datasets/a/b/train.parquet", HubFile("a/b", "main", "train.parquet")),
        ("hf://datasets/a/b@v1/d/t.parquet", HubFile("a/b", "v1", "d/t.parquet")),
        ("hf://datasets/a/b@refs%2Fconvert%2Fparquet/x.parquet", HubFile("a/b", "refs/convert/parquet", "x.parquet")),
        (
            "https://huggingface.co/datasets/a/b/resolve/main/d/t.parquet?download=true",
            HubFile("a/b", "main", "d/t.parquet"),
        ),
        ("https://huggingface.co/datasets/a/b/blob/main/t.parquet", HubFile("a/b", "main", "t.parquet")),
        ("https://example.com/datasets/a/b/resolve/main/t.parquet", None),
        ("https://huggingface.co/a/b/resolve/main/t.parquet", None),
    ],
)
def test_addresses_on_the_hub_are_recognised(url, file):
    assert hub_file(url) == file


def hub_answer(request, served):
    """The few answers of the hub's API that reading one file takes."""
    commit = "c" * 40
    if "token-needed" in request.path and request.headers.get("Authorization") != "Bearer hf_good":
        request.answer(401, **{"X-Error-Code": "GatedRepo"})
    elif "/api/datasets/" in request.path and "paths-info" not in request.path:
        known = "none/none" not in request.path
        body = json.dumps(
            {"id": "a/b", "sha": commit, "siblings": [], "tags": [], "private": False, "downloads": 0}
        ).encode()
        _send(
            request, 200 if known else 404, body if known else b"{}", {} if known else {"X-Error-Code": "RepoNotFound"}
        )
    elif "/resolve/" in request.path:
        served.content = ROWS
        request.served.headers = {"X-Repo-Commit": commit}
        return False
    else:
        _send(request, 404, b"{}", {"X-Error-Code": "EntryNotFound"})
    return True


def _send(request, status, body, headers):
    request.send_response(status)
    for name, value in {"Content-Type": "application/json", "Content-Length": str(len(body)), **headers}.items():
        request.send_header(name, value)
    request.end_headers()
    request.wfile.write(body)


FETCH = """
import sys; from pathlib import Path; from steps.hub_files import *
print(*fetch_hub_file(hub_file(sys.argv[1]), Path(sys.argv[2]), 1000), sep="\\n")
"""


def from_hub(url, folder, endpoint, **environment):
    """The hub's client reads its settings when it is imported: a process of its own."""
    return subprocess.run(
        [sys.executable, "-c", FETCH, url, str(folder)],
        capture_output=True,
        text=True,
        cwd=ROOT,
        env={**os.environ, "HF_ENDPOINT": endpoint, "HF_HUB_DISABLE_XET": "1", **environment},
    )


class HubServer(Served):
    """Serves POST as GET: the hub asks for the facts of paths that way."""


@pytest.fixture
def hub():
    from tests import fault_server

    def post(self):
        length = int(self.headers.get("Content-Length", 0))
        self.rfile.read(length)
        _send(self, 200, json.dumps([{"type": "file", "path": "t.jsonl", "size": len(ROWS), "oid": "x"}]).encode(), {})

    def head(self):
        if not hub_answer_head(self):
            self.send_response(200)
            facts = {"Content-Length": str(len(ROWS)), "ETag": '"v1"', "X-Repo-Commit": "c" * 40}
            for name, value in facts.items():
                self.send_header(name, value)
            self.end_headers()

    def hub_answer_head(self):
        return "token-needed" in self.path and hub_answer(self, self.served)

    fault_server.Answering.do_POST = post  # type: ignore[attr-defined]
    fault_server.Answering.do_HEAD = head  # type: ignore[attr-defined]
    with serving(Served(ROWS), hub_answer) as served:
        yield served.url.rpartition("/")[0]
    del fault_server.Answering.do_POST, fault_server.Answering.do_HEAD  # type: ignore[attr-defined]


def test_a_file_on_the_hub_is_read_at_the_commit_of_its_branch(hub, tmp_path):
    done = from_hub("hf://datasets/a/b/t.jsonl", tmp_path, hub)
    commit, path = done.stdout.splitlines() or pytest.fail(done.stderr)
    assert commit == "c" * 40
    assert Path(path).read_bytes() == ROWS
    offline = from_hub(f"hf://datasets/a/b@{commit}/t.jsonl", tmp_path, "http://127.0.0.1:9", HF_HUB_OFFLINE="1")
    assert Path(offline.stdout.splitlines()[1]).read_bytes() == ROWS


@pytest.mark.parametrize(
    ("url", "token", "said"),
    [
        ("hf://datasets/token/token-needed/t.jsonl", "", "hub refuses the dataset token/token-needed"),
        ("hf://datasets/none/none/t.jsonl", "", "no such dataset or file in none/none"),
        ("hf://datasets/token/token-needed/t.jsonl", "hf_good", ""),
    ],
)
def test_what_the_hub_refuses_is_explained(hub, tmp_path, url, token, said):
    done = from_hub(url, tmp_path, hub, HF_TOKEN=token)
    assert said in done.stderr
    assert bool(said) == bool(done.returncode)


def test_a_hub_that_is_not_reached_is_said_to_be_and_asked_again(tmp_path):
    done = from_hub("hf://datasets/a/b/t.jsonl", tmp_path, "http://127.0.0.1:9")
    assert "TryAgainError" in done.stderr
    assert "hub does not answer for a/b" in done.stderr


ASK = """
from steps.weights_origin import _hub_errors
with _hub_errors("a/b", "main"):
    from huggingface_hub import HfApi
    HfApi().model_info("a/b", timeout=5)
"""


def test_the_hub_of_the_weights_is_said_to_be_away_too():
    environment = {**os.environ, "HF_ENDPOINT": "http://127.0.0.1:9"}
    command = [sys.executable, "-c", ASK]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, env=environment, check=False)
    assert "TryAgainError: The model hub does not answer" in done.stderr


# ---- buckets


@pytest.fixture(scope="module")
def bucket():
    port = free_port()
    process = subprocess.Popen(
        [sys.executable, "-m", "moto.server", "-p", str(port)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    base = f"http://127.0.0.1:{port}"
    for _ in range(200):
        try:
            httpx.put(f"{base}/data")
            break
        except httpx.HTTPError:
            time.sleep(0.1)
    httpx.put(f"{base}/data/train set.jsonl", content=ROWS * 300_000)
    yield base
    process.terminate()
    process.wait()


@pytest.fixture
def credentials(bucket, monkeypatch):
    for name, value in {
        "AWS_ENDPOINT_URL": bucket, "AWS_ACCESS_KEY_ID": "x", "AWS_SECRET_ACCESS_KEY": "y", "AWS_REGION": "us-east-1",
    }.items():  # fmt: skip
        monkeypatch.setenv(name, value)


def test_a_file_in_a_bucket_is_read_in_ranges_and_only_once(credentials, tmp_path):
    data = replace(NOTHING, urls=("s3://data/train%20set.jsonl",))
    found = gathered(data, tmp_path, "cluster")
    assert found.files[0].path.read_bytes() == ROWS * 300_000
    before = found.files[0].path.stat()
    assert gathered(data, tmp_path, "cluster").files[0].path.stat().st_mtime_ns == before.st_mtime_ns


@pytest.mark.parametrize(
    ("url", "limit", "reason"),
    [("s3://data/none.jsonl", 1 << 30, "DatasetNotFound"), ("s3://data/train%20set.jsonl", 10, "DatasetTooLarge")],
)
def test_what_a_bucket_does_not_give_is_told(credentials, tmp_path, url, limit, reason):
    with pytest.raises(KaiflowError) as caught:
        gathered(replace(NOTHING, urls=(url,)), tmp_path, "cluster", replace(RULES, max_bytes=limit))
    assert caught.value.reason == reason
