"""A work folder that outlives a run holds what was made of one thing; of another it begins empty.

What a killed run has left is gone on with where the same is asked for, and must not mix with anything else.
"""

import shutil
from pathlib import Path


def folder_of(folder: Path, made_of: str) -> Path:
    """Return ``folder``, emptied where it holds what was made of something else, or nobody knows of what."""
    stamp = folder.with_name(f".{folder.name}.of")
    if not stamp.is_file() or stamp.read_text() != made_of:
        shutil.rmtree(folder, ignore_errors=True)
        stamp.parent.mkdir(parents=True, exist_ok=True)
        part = stamp.with_name(f"{stamp.name}.part")
        part.write_text(made_of)
        part.replace(stamp)
    return folder
