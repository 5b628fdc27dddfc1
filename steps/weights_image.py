"""Base weights out of an OCI image: safetensors, config and tokenizer, wherever in the image they lie.

KAITO publishes its models as such images; a private one is named in ``presetOptions.image``. The tag is resolved to
its digest first, which is what the weights are known by.
"""

import shutil
from pathlib import Path

from presets.errors import DataError
from steps import logs
from steps.docker_config import step_credentials
from steps.image_files import pull
from steps.model_files import is_wanted
from steps.registry import Registry

MOST_BYTES = 1 << 41  # of an image, unpacked


def pinned(image: str) -> str:
    """Return the image by its digest.

    Raises:
        KaiflowError: there is no such image, or its registry does not let us see it.
    """
    with Registry(image, step_credentials()) as registry:
        digest, _ = registry.manifest()
        return f"{registry.shown}@{digest}"


def model_folder(root: Path, image: str) -> Path:
    """Return the one folder below ``root`` that holds a model.

    Raises:
        DataError: there is none with safetensors, or more than one.
    """
    found = sorted({path.parent for path in root.rglob("config.json") if any(path.parent.glob("*.safetensors"))})
    if len(found) == 1:
        return found[0]
    pickled = any(root.rglob("*.bin"))
    what = f"holds {len(found)} models" if found else "holds no model as safetensors"
    raise DataError(
        "NoSafetensors" if not found else "ImageInvalid",
        f"{image} {what}{', only pickled weights, which are never loaded' if pickled and not found else ''}.",
        fix="Build it with one folder of config.json, *.safetensors and the tokenizer's files, none of them a link.",
    )


def from_image(image: str, work: Path, folder: Path) -> str:
    """Put the model's files of ``image`` into ``folder``; return the image's digest.

    Raises:
        DataError: the image holds no model as safetensors, or more than one.
    """
    digest, root = pull(image, step_credentials(), work, MOST_BYTES, everything=True)
    found = model_folder(root, image)
    folder.mkdir(parents=True, exist_ok=True)
    for path in sorted(found.iterdir()):
        if is_wanted(path):
            path.replace(folder / path.name)
    logs.event("unpacked", image=image, files=len(list(folder.iterdir())))
    shutil.rmtree(work)
    return digest
