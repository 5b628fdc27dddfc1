"""The image goes into others' tools and comes out as an adapter that peft loads: oras-py, skopeo, a buildah mount."""

import gzip
import os
import shutil
import subprocess
import tarfile
from pathlib import Path

import oras.client
import pytest
import torch
from peft import PeftModel
from safetensors.torch import load_file
from transformers import AutoConfig, AutoModelForCausalLM

from presets.recipe import LoraRecipe
from steps.adapter import add_adapter, save_adapter
from steps.adapter_image import build_layer, publish_image
from steps.image_files import pull
from steps.oci_layout import LayoutStore
from steps.registry_store import RegistryStore
from steps.store import copy
from tests.contract.test_adapter_keys import BASE, NoTokenizer
from tests.contract.test_levers import SMALL
from tests.contract.test_registry_store import NOBODY
from tests.registries import TAR_GZIP, Pusher, registry, tar


def built():
    torch.manual_seed(3)
    return AutoModelForCausalLM.from_config(AutoConfig.for_model("llama", **SMALL)).requires_grad_(False)


@pytest.fixture(scope="module")
def pushed(tmp_path_factory):
    """Push a small adapter; yield its registry, its layout, and the adapter's own folder."""
    folder = tmp_path_factory.mktemp("adapter")
    own, store = folder / "own", LayoutStore(folder / "store")
    adapted = add_adapter(built(), LoraRecipe(4, 8, 0.0, ("q_proj", "v_proj"), {}), seed=1)
    for name, weight in adapted.named_parameters():
        if "lora_B" in name:
            weight.data.normal_()
    save_adapter(adapted, NoTokenizer(), BASE, own)
    layer = build_layer({path.name: path for path in own.iterdir()}, folder / "layer")
    image = publish_image(store, layer, {"sh.kaito.model.name": "x"}, "1970-01-01T00:00:00Z", ["1"])
    with registry(folder) as address:
        copy(image, store, RegistryStore(f"{address}/team/adapter", NOBODY), ["1"])
        yield address, store.root, own


def assert_loads(folder, own):
    """The folder is an adapter to peft, with the very weights."""
    loaded = PeftModel.from_pretrained(built(), folder)
    weights = {n: w for n, w in loaded.named_parameters() if "lora_" in n}
    saved = load_file(own / "adapter_model.safetensors")
    assert len(weights) == len(saved) > 0
    for name, weight in saved.items():
        assert torch.equal(weights[name.replace(".weight", ".default.weight")], weight)


GO_PATH = Path("/usr/share/gocode")  # where Debian lays sources of Go libraries


def needs(tool):
    package = {"go": "golang-go"}.get(tool, tool)
    return pytest.mark.skipif(not shutil.which(tool), reason=f"{tool} is not installed: apt-get install {package}")


def test_oras_py_pulls_and_unpacks_it(pushed, tmp_path):
    address, _, own = pushed
    oras.client.OrasClient(hostname=address, insecure=True).pull(f"{address}/team/adapter:1", outdir=str(tmp_path))
    assert_loads(tmp_path / "data", own)


def test_our_own_puller_reads_it(pushed, tmp_path):
    address, _, own = pushed
    assert_loads(pull(f"{address}/team/adapter:1", NOBODY, tmp_path, 1 << 30)[1], own)


def test_our_own_puller_reads_kaitos_adapter_images(pushed, tmp_path):
    """KAITO's pusher: ``FROM scratch``, ``ADD adapter /data``: a docker image of one layer, no titles."""
    address, _, own = pushed
    push = Pusher(address, "kaito/adapter")
    content = {"data/": folder("data/"), **{f"data/{path.name}": path.read_bytes() for path in own.iterdir()}}
    push.image_of([(TAR_GZIP, gzip.compress(tar(content)), {})], "1")
    assert_loads(pull(f"{push.image}:1", NOBODY, tmp_path, 1 << 30)[1], own)


def folder(name):
    entry = tarfile.TarInfo(name)
    entry.type, entry.mode = tarfile.DIRTYPE, 0o755
    return entry


@needs("skopeo")
def test_skopeo_reads_the_layout(pushed, tmp_path):
    _, layout, own = pushed
    target = f"dir:{tmp_path / 'image'}"
    subprocess.run(["skopeo", "copy", "--insecure-policy", f"oci:{layout}:1", target], check=True, capture_output=True)
    (layer,) = [p for p in (tmp_path / "image").iterdir() if p.stat().st_size > 4096]
    with tarfile.open(layer) as archive:
        archive.extractall(tmp_path / "out", filter="data")
    assert_loads(tmp_path / "out" / "data", own)


@needs("go")
@pytest.mark.skipif(not (GO_PATH / "src/oras.land").is_dir(), reason="apt-get install golang-oras-oras-go-dev")
def test_oras_go_reads_the_layout(pushed, tmp_path):
    """The library that the oras tool is: strict about the tar's end, and unpacks the layer by its annotations."""
    _, layout, own = pushed
    offline = {**os.environ, "GO111MODULE": "off", "GOPATH": str(GO_PATH), "GOCACHE": str(tmp_path / "cache")}
    source, reader = Path(__file__).parent / "oras_reader/main.go", tmp_path / "oras-reader"
    subprocess.run(["go", "build", "-o", reader, source], check=True, capture_output=True, env=offline)
    read = subprocess.run([reader, layout, "1", tmp_path / "out"], check=True, capture_output=True, text=True)
    assert read.stdout.strip() == LayoutStore(layout).tags()["1"]
    assert_loads(tmp_path / "out" / "data", own)


@needs("skopeo")
def test_kaitos_puller_leaves_an_adapter_that_loads(pushed, tmp_path):
    """KAITO v0.12's puller, step by step: skopeo to a folder, each layer untarred in turn, ``data`` moved away."""
    address, _, own = pushed
    script = """
    set -e
    skopeo copy --insecure-policy --src-tls-verify=false --dest-decompress "docker://$1" "dir:$2/image"
    mkdir "$2/rootfs"
    layers='import json, sys; print(*(layer["digest"][7:] for layer in json.load(sys.stdin)["layers"]))'
    for layer in $(python3 -c "$layers" < "$2/image/manifest.json"); do tar -xf "$2/image/$layer" -C "$2/rootfs"; done
    mv "$2/rootfs/data" "$2/adapter"
    """
    command = ["bash", "-c", script, "puller", f"{address}/team/adapter:1", str(tmp_path)]
    subprocess.run(command, check=True, capture_output=True)
    assert_loads(tmp_path / "adapter", own)


@needs("buildah")
@pytest.mark.skipif(os.geteuid() != 0, reason="buildah mounts as root")
def test_buildah_mounts_it_as_an_image_volume_would(pushed, tmp_path):
    address, _, own = pushed
    buildah = [
        "buildah",
        "--root",
        str(tmp_path / "root"),
        "--runroot",
        str(tmp_path / "run"),
        "--storage-driver",
        "vfs",
    ]

    def told(*arguments):
        return subprocess.run([*buildah, *arguments], check=True, capture_output=True, text=True).stdout.strip()

    container = told("from", "--tls-verify=false", f"docker://{address}/team/adapter:1")
    try:
        mounted = told("mount", container)
        assert_loads(f"{mounted}/data", own)
    finally:
        told("rm", container)
