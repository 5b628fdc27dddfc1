"""The operating system's own refusals, in words: a full disk, a limit, missing permission."""

import errno

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


def explain_os_error(error: OSError) -> KaiflowError | None:
    """Return the error in words with its remedy, None when it is not one that a person can act on."""
    if error.errno not in _OS_ERRORS:
        return None
    reason, message, fix = _OS_ERRORS[error.errno]
    where = f" ({error.filename})" if error.filename else ""
    return UnavailableError(reason, message[:-1] + where + ".", fix=fix)
