"""Whatever an image's tar, index or manifest holds: it is laid out inside its folder, or refused with a reason."""

import gzip
import io
import json
import tarfile

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from presets.errors import DataError, KaiflowError
from steps.image_files import pull
from steps.layers import Room, lay_over
from steps.registry import Registry
from tests.contract.test_registry_store import NOBODY
from tests.registries import INDEX, MANIFEST, digest
from tests.registry_proxy import proxied

PART = st.sampled_from(["a", "b", "data", "..", ".", "", ".wh.a", ".wh...", ".wh..", ".wh.", ".wh..wh..opq", "x" * 300])
NAME = st.builds(lambda parts, root: ("/" if root else "") + "/".join(parts), st.lists(PART, min_size=1), st.booleans())
KIND = st.sampled_from([
    tarfile.REGTYPE, tarfile.REGTYPE, tarfile.DIRTYPE, tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE,
    tarfile.FIFOTYPE, tarfile.XHDTYPE, tarfile.GNUTYPE_LONGNAME, tarfile.GNUTYPE_SPARSE, tarfile.CONTTYPE,
])  # fmt: skip
SIZE = st.sampled_from([0, 1, 700, -1, -2, 1 << 40])
ENTRY = st.tuples(NAME, KIND, SIZE, NAME)


def tar_of(entries, cut):
    """Return a tar of the entries, header by header; what a size says need not be there."""
    sink = io.BytesIO()
    for name, kind, size, link in entries:
        entry = tarfile.TarInfo(name)
        entry.type, entry.linkname, entry.size = kind, link, max(size, 0)
        if size == -2:
            entry.pax_headers = {"size": "-5"}
        header = bytearray(entry.tobuf(tarfile.PAX_FORMAT))
        if size == -1:
            header[-512 + 124 : -512 + 136] = b"-00000000001"
            header[-512 + 148 : -512 + 156] = b" " * 8
            header[-512 + 148 : -512 + 156] = b"%06o\0 " % sum(header[-512:])
        sink.write(header)
        if 0 < size <= 700:
            sink.write(b"x" * size + b"\0" * (-size % 512))
    sink.write(b"\0" * 1024)
    data = sink.getvalue()
    return data[: len(data) - cut] if cut else data


@given(st.lists(ENTRY, max_size=8), st.sampled_from([0, 0, 100, 1500]))
@settings(max_examples=400, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_a_tar_stays_inside_its_folder_or_is_refused(tmp_path_factory, entries, cut):
    outside = tmp_path_factory.mktemp("outside")
    (outside / "precious").write_text("kept")
    root = outside / "image" / "root"
    root.mkdir(parents=True)
    blob = outside / "image" / "layer"
    blob.write_bytes(tar_of(entries, cut))
    before = blob.read_bytes()
    try:
        lay_over(blob, root, "registry/image", Room(1 << 20, "registry/image"))
    except DataError as error:
        assert error.message
        assert error.fix
    assert {path.name for path in outside.iterdir()} == {"precious", "image"}
    assert {path.name for path in (outside / "image").iterdir()} == {"root", "layer"}
    assert blob.read_bytes() == before
    assert root.is_dir()
    assert not any(path.is_symlink() for path in root.rglob("*"))
    assert sum(path.stat().st_size for path in root.rglob("*") if path.is_file()) <= 1 << 20


@pytest.mark.parametrize("name", [".wh...", "data/.wh...", "data/..", "/../x", ".wh..", "data/.wh."])
def test_names_that_lead_out_are_refused(tmp_path, name):
    root = tmp_path / "image" / "root"
    root.mkdir(parents=True)
    (root / "kept").write_text("kept")
    blob = tmp_path / "layer"
    blob.write_bytes(tar_of([(name, tarfile.REGTYPE, 0, "")], 0))
    with pytest.raises(DataError, match="leads out"):
        lay_over(blob, root, "registry/image", Room(1 << 20, "x"))
    assert (root / "kept").read_text() == "kept"


def test_a_small_layer_that_unpacks_to_very_much_is_refused(tmp_path):
    root = tmp_path / "root"
    root.mkdir()
    entry = tarfile.TarInfo("data/zeros")
    entry.size = 64 << 20
    blob = tmp_path / "layer"
    with gzip.GzipFile(blob, "wb") as sink, tarfile.open(fileobj=sink, mode="w|") as archive:
        archive.addfile(entry, io.BytesIO(bytes(entry.size)))
    with pytest.raises(DataError, match="registry/image"):
        lay_over(blob, root, "registry/image", Room(1 << 20, "What registry/image unpacks to"))


@pytest.fixture(scope="module")
def liar():
    """Yield (address, what it answers to everything): a registry that may send anything."""
    said = {"body": b""}

    def answers(exchange):
        exchange.send_response(200)
        exchange.send_header("Content-Type", INDEX)
        exchange.send_header("Content-Length", str(len(said["body"])))
        exchange.end_headers()
        exchange.wfile.write(said["body"])
        return True

    with proxied("127.0.0.1:9", answers) as (address, _):
        yield address, said


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=8) | st.sampled_from(["sha256:" + "0" * 64, MANIFEST]),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(["digest", "platform", "os", "architecture", "mediaType", "size"]), inner)
    ),
    max_leaves=12,
)


@given(st.lists(JSON, max_size=4))
@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_an_index_of_anything_is_read_or_refused(liar, entries):
    address, said = liar
    said["body"] = json.dumps({"schemaVersion": 2, "mediaType": INDEX, "manifests": entries}).encode()
    with Registry(f"{address}/x:1", NOBODY) as hostile:
        try:
            hostile.manifest()
        except KaiflowError as error:
            assert error.message


def test_an_index_that_names_itself_ends(liar):
    """By digest nothing can name itself; by what a server sends for any digest it could."""
    address, said = liar
    said["body"] = json.dumps({"manifests": [{"digest": digest(b"x"), "platform": {"architecture": "amd64"}}]}).encode()
    with Registry(f"{address}/x:1", NOBODY) as hostile, pytest.raises(DataError, match="other bytes"):
        hostile.manifest()


LAYERS = [
    "sha256:x", None, {"mediaType": "t", "digest": "sha256:../../../x", "size": 1},
    {"mediaType": "t", "digest": "sha256:" + "0" * 64, "size": -(10**15)},
    {"mediaType": "t", "digest": "sha256:" + "0" * 64, "size": True},
    {"mediaType": "t", "digest": "sha256:" + "0" * 64, "size": 1, "annotations": ["x"]},
    {"mediaType": "t", "digest": "sha256:" + "0" * 64, "size": 1, "annotations": {"org.opencontainers.image.title": 1}},
]  # fmt: skip


@pytest.mark.parametrize("layer", LAYERS, ids=range(len(LAYERS)))
def test_a_layer_that_is_none_is_refused_before_anything_is_fetched(liar, tmp_path, layer):
    address, said = liar
    said["body"] = json.dumps({"schemaVersion": 2, "mediaType": MANIFEST, "layers": [layer]}).encode()
    with pytest.raises(DataError, match="has a layer that is none"):
        pull(f"{address}/team/data:1", NOBODY, tmp_path, 1 << 20)
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []
