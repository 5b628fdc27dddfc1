"""Files as people write them: several documents, wrong YAML, odd values."""

import time

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from presets.errors import InvalidInput
from presets.manifest import FileMissingError, field_path, parse_workspace, read_manifests
from presets.yaml_text import load_yaml


def test_workspaces_and_config_maps_of_one_file_are_found(tmp_path, workspace):
    other = {"kind": "Secret", "metadata": {"name": "s"}}
    config = {"kind": "ConfigMap", "metadata": {"name": "c"}, "data": {"k": "v"}}
    path = tmp_path / "all.yaml"
    path.write_text(yaml.dump_all([workspace, other, config]))
    manifests = read_manifests(path)
    assert [m.name for m in manifests.workspaces] == ["tune-phi-3"]
    assert [(c.name, c.data) for c in manifests.config_maps] == [("c", {"k": "v"})]


def test_a_missing_file_is_said(tmp_path):
    with pytest.raises(FileMissingError, match="No such file"):
        read_manifests(tmp_path / "none.yaml")


@pytest.mark.parametrize("text", ["a: [1, 2", "a: b: c", "\tx: 1", "{", "a: &x [*x]"])
def test_wrong_yaml_names_the_line(tmp_path, text):
    path = tmp_path / "wrong.yaml"
    path.write_text(text)
    with pytest.raises(InvalidInput) as caught:
        read_manifests(path)
    assert caught.value.errors[0].reason in ("InvalidYaml", "NoWorkspace")


def test_binary_is_not_yaml(tmp_path):
    path = tmp_path / "image.png"
    path.write_bytes(b"\x89PNG\xff\xfe")
    with pytest.raises(InvalidInput, match="UTF-8"):
        read_manifests(path)


def test_a_key_that_stands_twice_is_refused():
    with pytest.raises(InvalidInput, match="stands twice"):
        load_yaml("a: 1\na: 2\n", "f")


def test_an_anchor_that_merges_and_overrides_is_no_double_key():
    text = "a: &b\n  <<: &z {app: a, u: v}\n  app: q\nc: {<<: *b}\n"
    assert load_yaml(text, "f") == [{"a": {"app": "q", "u": "v"}, "c": {"app": "q", "u": "v"}}]


def test_numbers_are_read_as_kubectl_reads_them():
    assert load_yaml("a: 2e-4\nb: 1.5\nc: .5\nd: 3\ne: 2026-11-23\nf: 1.0.0\ng: 0.0.1", "f") == [
        {"a": 2e-4, "b": 1.5, "c": 0.5, "d": 3, "e": "2026-11-23", "f": "1.0.0", "g": "0.0.1"}
    ]


def test_a_file_without_a_workspace_says_what_a_workspace_is(tmp_path):
    path = tmp_path / "pod.yaml"
    path.write_text("kind: Pod")
    with pytest.raises(InvalidInput, match="holds no Workspace"):
        read_manifests(path)


def test_field_paths_read_as_people_write_them():
    assert field_path(("tuning", "input", "urls", 0)) == "tuning.input.urls[0]"


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)


@given(st.dictionaries(st.sampled_from(["metadata", "resource", "tuning", "inference", "status", "x"]), json_values))
def test_no_document_whatever_makes_the_parser_crash(body):
    manifest = parse_workspace({"apiVersion": "kaito.sh/v1beta1", "kind": "Workspace", **body}, "f")
    assert (manifest.workspace is None) == bool(manifest.errors)


def test_a_kind_that_is_misspelt_names_the_nearest(tmp_path):
    path = tmp_path / "w.yaml"
    path.write_text("kind: workspace\nmetadata: {name: a}\n")
    with pytest.raises(InvalidInput, match="holds no Workspace") as refused:
        read_manifests(path)
    assert "Did you mean Workspace?" in refused.value.errors[0].fix


BOMB = "a0: &a0 [x]\n" + "".join(f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]\n" for n in range(1, 10))


@pytest.mark.parametrize("text", [BOMB, "a: &a [*a]", "a: &a {b: *a}"], ids=["nine by nine", "a list", "a mapping"])
def test_aliases_that_stand_for_too_much_are_refused_at_once(text):
    began = time.monotonic()
    with pytest.raises(InvalidInput, match="not valid YAML"):
        load_yaml(text, "file.yaml")
    assert time.monotonic() - began < 5


def test_aliases_and_long_lists_are_fine():
    assert load_yaml("a: &a {b: 1}\nc: *a\nd: {<<: *a}", "x") == [{"a": {"b": 1}, "c": {"b": 1}, "d": {"b": 1}}]
    assert len(load_yaml("".join(f"- https://data.example.com/{n}\n" for n in range(20_000)), "x")[0]) == 20_000
