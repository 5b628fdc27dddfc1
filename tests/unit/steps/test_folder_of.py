"""Work folders that outlive a run: what is left of one thing never mixes with another."""

from pathlib import Path

from steps.base_weights import FILES_TYPE, lay_out
from steps.folder_of import folder_of
from steps.oci_layout import LayoutStore
from steps.store import publish


def test_what_is_left_is_gone_on_with_only_where_the_same_is_asked_for(tmp_path):
    folder = folder_of(tmp_path / "a" / "weights", "one")
    folder.mkdir()
    (folder / "part").touch()
    assert (folder_of(folder, "one") / "part").exists()
    assert not folder_of(folder, "another").exists()


def test_of_what_is_there_without_a_word_nothing_is_known(tmp_path):
    (tmp_path / "weights").mkdir()
    assert not folder_of(tmp_path / "weights", "one").exists()


def test_a_base_model_is_laid_out_without_the_files_of_the_one_before(tmp_path):
    store = LayoutStore(tmp_path / "store")
    file: Path = tmp_path / "file"
    file.write_text("x")
    names = (["config.json", "model.safetensors"], ["config.json", "model-00001-of-00002.safetensors"])
    for wanted in names:
        model = publish(store, FILES_TYPE, dict.fromkeys(wanted, file), {}, [])
        lay_out(store, model, tmp_path / "image", tmp_path / "weights")
        assert sorted(path.name for path in (tmp_path / "weights").iterdir()) == sorted(wanted)
