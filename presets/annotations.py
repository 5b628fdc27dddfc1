"""Annotations that say what a run accepts and may cost: ``kaiflow.dev/<key>`` on the Workspace.

KAITO's schema has no field for them and refuses unknown ones; annotations pass through it.
"""

import re
from collections.abc import Callable, Mapping
from typing import Any

PREFIX = "kaiflow.dev/"
MANAGED = f"{PREFIX}managed"  # whose a Workspace is; no part of what it asks for
LONGEST_LIST = 16
_UNITS = {"": 1, "k": 10**3, "Ki": 2**10, "M": 10**6, "Mi": 2**20, "G": 10**9, "Gi": 2**30, "T": 10**12, "Ti": 2**40}


def _bytes(text: str) -> int:
    found = re.fullmatch(r"([1-9]\d*)([kMGT]?i?)", text)
    if not found or found[2] not in _UNITS:
        raise ValueError("a size such as 20Gi")
    return int(found[1]) * _UNITS[found[2]]


def _share(text: str) -> float:
    found = re.fullmatch(r"(\d+(?:\.\d+)?)(%?)", text)
    value = float(found[1]) / (100 if found[2] else 1) if found else -1.0
    if not 0 <= value <= 1:
        raise ValueError("a share such as 1% or 0.01")
    return value


def _near(text: str) -> str:
    if text not in ("remove", "keep"):
        raise ValueError("remove or keep")
    return text


def _list(text: str) -> tuple[str, ...]:
    values = tuple(part.strip() for part in text.split(",", LONGEST_LIST))
    if len(values) > LONGEST_LIST or not all(re.fullmatch(r"[A-Za-z0-9][\w.-]*", value) for value in values):
        raise ValueError(f"names with commas between them, {LONGEST_LIST} at most")
    return values


def _spot(text: str) -> str:
    if text not in ("never", "first", "only"):
        raise ValueError("never, first or only")
    return text


def _registry(text: str) -> str:
    if not re.fullmatch(r"[a-zA-Z0-9.-]+(:\d+)?(/[a-z0-9]+([._-]+[a-z0-9]+)*)*", text):
        raise ValueError("a registry's address such as mcr.microsoft.com/aks/kaito")
    return text


def _folder(text: str) -> str:
    if not text.startswith("/") or not text.isprintable():
        raise ValueError("the absolute path of a folder")
    return text


def _yes(text: str) -> bool:
    if text not in ("true", "false"):
        raise ValueError("true or false")
    return text == "true"


def _word(text: str) -> str:
    if not re.fullmatch(r"[\w.:-]{1,63}", text):
        raise ValueError("a word, such as today's date")
    return text


def _positive(text: str) -> float:
    if not re.fullmatch(r"\d+(\.\d+)?", text) or float(text) <= 0:
        raise ValueError("a number such as 2.5")
    return float(text)


ANNOTATIONS: Mapping[str, Callable[[str], Any]] = {
    "max-dataset-bytes": _bytes,
    "max-bad-rows": _share,
    "max-cut-rows": _share,
    "near-duplicates": _near,
    "fallback-instance-types": _list,
    "zones": _list,
    "spot": _spot,
    "weights-registry": _registry,  # KAITO's weight images, or a mirror of them, instead of the hub
    "weights-folder": _folder,  # of the machine that `kaiflow run` runs on
    "max-hours": _positive,
    "max-cost": _positive,  # in US dollars
    "managed": _yes,  # where KAITO's own controller is too: this Workspace is kaiflow's
    "run-again": _word,  # another word: another run of the same Workspace
}


def annotation_value(annotations: Mapping[str, str], key: str) -> Any:  # noqa: ANN401  (as its reader gives it)
    """Return the value of ``kaiflow.dev/<key>``, None when it is not set.

    Raises:
        ValueError: it is not what it must be; the text says what that is.
    """
    text = annotations.get(PREFIX + key)
    return None if text is None else ANNOTATIONS[key](text.strip())
