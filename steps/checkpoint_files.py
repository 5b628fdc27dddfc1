"""Checkpoints as artifacts and as folders: found, laid out, complete or not.  Nothing heavy: no tensors are read."""

import json
import zipfile
from pathlib import Path

from presets.errors import DataError
from steps import logs
from steps.store import Manifest, Store

ARTIFACT_TYPE = "application/vnd.kaiflow.checkpoint.v1"
STEP = "kaiflow.checkpoint.step"
STATE_FILE = "trainer_state.json"  # the Trainer writes it last


def find_checkpoint(store: Store, tag: str) -> Manifest | None:
    """Return the checkpoint that ``tag`` names; None where there is none, or the finished adapter."""
    found = store.find(tag)
    return found if found is not None and found.artifact_type == ARTIFACT_TYPE else None


def restore(store: Store, manifest: Manifest | None, folder: Path) -> Manifest | None:
    """Lay the checkpoint of the store into ``folder`` when it is newer than those there; return it when it was used.

    One that is damaged is said so and left.
    """
    if manifest is None:
        return None
    step = int(manifest.annotations[STEP])
    if any(number >= step for number, _ in _numbered(folder)):
        return manifest
    target = folder / f"checkpoint-{step}"
    try:
        store.check_out(manifest, target)
    except DataError as error:
        logs.warning("checkpoint_damaged", trained_steps=step, message=error.message)
        (target / STATE_FILE).unlink(missing_ok=True)
        return None
    logs.event("resumed", trained_steps=step, digest=manifest.digest)
    return manifest


def newest_checkpoint(folder: Path) -> str | None:
    """Return the newest complete checkpoint below ``folder``: the Trainer's state is what is written last."""
    complete = _numbered(folder)
    return complete[-1][1] if complete else None


def _numbered(folder: Path) -> list[tuple[int, str]]:
    found = [path.parent for path in folder.glob(f"checkpoint-*/{STATE_FILE}") if _is_whole(path.parent)]
    return sorted((int(p.name.removeprefix("checkpoint-")), str(p)) for p in found)


def _is_whole(checkpoint: Path) -> bool:
    """Whether nothing is torn: a power cut leaves files empty, or without their ends, whose names are there."""
    try:
        told = [json.loads(path.read_text()) for path in checkpoint.glob("*.json")]
        saved = {checkpoint / "optimizer.pt", *checkpoint.glob("*.pt"), *checkpoint.glob("*.pth")}
        zipped = all(map(zipfile.is_zipfile, saved))  # of a zip the directory is written last
        return bool(told) and zipped and all(map(_has_its_length, checkpoint.glob("*.safetensors")))
    except (OSError, ValueError):
        return False


def _has_its_length(path: Path) -> bool:
    """Whether a safetensors file is as long as its header says."""
    with path.open("rb") as reader:
        header_bytes = int.from_bytes(reader.read(8), "little")
        header = json.loads(reader.read(header_bytes))
    ends = [entry["data_offsets"][1] for name, entry in header.items() if name != "__metadata__"]
    return path.stat().st_size == 8 + header_bytes + max(ends, default=0)
