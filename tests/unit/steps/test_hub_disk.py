"""The hub's files on a disk that is full, or not ours: no fault of the hub's, and no use to try again."""

import errno

import huggingface_hub
import pytest

from steps.hub_files import HubFile, fetch_hub_file
from steps.weights_origin import Origin, take


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT, errno.EACCES])
@pytest.mark.parametrize("of", ["rows", "weights"])
def test_a_fault_of_this_machine_is_no_fault_of_the_hub(tmp_path, monkeypatch, number, of):
    def full(*_, **__):
        raise OSError(number, "no", str(tmp_path))

    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(huggingface_hub, "hf_hub_download", full)
    monkeypatch.setattr(huggingface_hub, "snapshot_download", full)
    with pytest.raises(OSError, match="no"):
        if of == "rows":
            fetch_hub_file(HubFile("a/b", "main", "rows.jsonl"), tmp_path, 1000)
        else:
            take(Origin("hub", "a/b", "main"), tmp_path / "work", tmp_path / "weights")
