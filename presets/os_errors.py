"""The operating system's own refusals, in words: a full disk, a limit, missing permission."""

import errno
import os
import re
from pathlib import Path

from presets.errors import KaiflowError, UnavailableError

_OS_ERRORS = {
    errno.ENOSPC: ("DiskFull", "There is no space left on the disk.", "Free some space, then run the file again."),
    errno.EDQUOT: ("DiskFull", "The disk quota is used up.", "Free some space, then run the file again."),
    errno.EFBIG: (
        "FileTooLarge",
        "A file has reached the size limit.",
        "Raise it (ulimit -f), or choose another disk.",
    ),
    errno.EROFS: ("ReadOnly", "The folder is on a read-only file system.", "Choose another folder with --state-dir."),
    errno.EACCES: ("NotWritable", "The folder cannot be written.", "Change its permissions, or choose another one."),
}


_RUST = re.compile(r"\(os error (\d+)\)")  # how Rust's libraries (safetensors, obstore) print the number


def explain_os_error(error: Exception) -> KaiflowError | None:
    """Return the error in words with its remedy, None when it is not one that a person can act on."""
    number = error.errno if isinstance(error, OSError) else _printed_number(error)
    if number not in _OS_ERRORS:
        return None
    reason, message, fix = _OS_ERRORS[number]
    name = error.filename if isinstance(error, OSError) else None
    if number == errno.EACCES and name and Path(name).is_file() and not os.access(name, os.R_OK):
        reason, message, fix = "NotReadable", "The file cannot be read.", "Change its permissions, or name another one."
    where = f" ({name})" if name else ""
    return UnavailableError(reason, message[:-1] + where + ".", fix=fix)


def _printed_number(error: Exception) -> int | None:
    found = _RUST.search(str(error))
    return int(found[1]) if found else None
