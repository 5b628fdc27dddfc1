"""Is a file larger than what the run accepts?  Asked before it is fetched, and again while it comes."""

from presets.errors import DataError


def check_size(shown: str, size_bytes: int, max_bytes: int) -> None:
    """Return when the size is within the limit.

    Raises:
        DataError: it is not; ``shown`` names the file.
    """
    if size_bytes > max_bytes:
        raise DataError(
            "DatasetTooLarge",
            f"{shown} has {size_bytes} bytes or more; the limit is {max_bytes}.",
            fix="Split the file, or raise the annotation kaiflow.dev/max-dataset-bytes.",
        )
