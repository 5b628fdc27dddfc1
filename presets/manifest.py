"""Which objects are in these YAML files, and what is wrong with them?

Reads what ``kubectl apply`` reads: one or more documents, Workspaces and ConfigMaps. Every error of a
document is found before anything is raised, each with its field path; unknown fields name the nearest
known one. Duplicate keys are refused, since YAML libraries otherwise keep the last one silently.
"""

import json
import types
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Union, get_args, get_origin

from pydantic import BaseModel, ValidationError

from presets.errors import FieldError, InvalidInput, KaiflowError, did_you_mean
from presets.workspace import API_VERSIONS, Workspace
from presets.yaml_text import load_yaml


class FileMissingError(KaiflowError):
    """A file named on the command line is not there or cannot be read."""

    exit_code = 66  # EX_NOINPUT


@dataclass(frozen=True, slots=True)
class ConfigMap:
    """A ConfigMap document: its name and its data."""

    name: str
    data: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Manifest:
    """One Workspace document: either parsed, or the errors that kept it from being parsed."""

    file: str
    name: str
    workspace: Workspace | None
    errors: tuple[FieldError, ...]
    rest: Workspace | None = None  # without what is wrong: the rules look at it, so that all errors come at once


@dataclass(frozen=True, slots=True)
class Manifests:
    """Everything found in one file, in order."""

    workspaces: tuple[Manifest, ...]
    config_maps: tuple[ConfigMap, ...]


def read_text(path: Path) -> str:
    """Return the file's text.

    Raises:
        FileMissingError: there is no such file, or it cannot be read.
        InvalidInput: it is not UTF-8 text.
    """
    try:
        return path.read_bytes().decode()
    except OSError as error:
        raise FileMissingError(
            "FileNotFound", f"Cannot read {path}: {error.strerror or error}.", fix="Check the path."
        ) from error
    except UnicodeDecodeError as error:
        raise InvalidInput(
            str(path), [FieldError("", "InvalidYaml", "The file is not UTF-8 text.", "Name a YAML file.")]
        ) from error


def read_manifests(path: Path) -> Manifests:
    """Read all Workspaces and ConfigMaps of ``path``; other kinds pass unread.

    Raises:
        FileMissingError: the file cannot be read.
        InvalidInput: the file is not YAML, or holds no Workspace and no ConfigMap.
    """
    workspaces: list[Manifest] = []
    config_maps: list[ConfigMap] = []
    others: list[str] = []
    for document in documents_of(path):
        kind = document.get("kind") if isinstance(document, dict) else None
        if kind == "Workspace":
            workspaces.append(parse_workspace(document, str(path)))
        elif kind == "ConfigMap":
            config_maps.append(_config_map(document, str(path)))
        else:
            others.append(str(kind))
    if not workspaces and not config_maps:
        near = did_you_mean(others[0], ["Workspace"], "") if others else ""
        raise InvalidInput(
            str(path),
            [
                FieldError(
                    "kind", "NoWorkspace", f"{path} holds no Workspace.", f"{near} A Workspace has kind: Workspace and "
                    f"apiVersion: {' or '.join(API_VERSIONS)}.".strip()
                )
            ],
        )  # fmt: skip
    return Manifests(tuple(workspaces), tuple(config_maps))


def documents_of(path: Path) -> list[Any]:
    """Return the documents of ``path``, those of a List one by one.

    Raises:
        FileMissingError: the file cannot be read.
        InvalidInput: the file is not YAML.
    """
    return list(_unwrapped(load_yaml(read_text(path), str(path))))


def parse_workspace(document: Mapping[str, Any], file: str) -> Manifest:
    """Parse one Workspace document; what is wrong with it is in ``errors``, never raised."""
    metadata = document.get("metadata")
    name = str(metadata.get("name", "")) if isinstance(metadata, Mapping) else ""
    try:
        text = json.dumps(without_nulls(document), allow_nan=False)
    except (TypeError, ValueError):
        error = FieldError("", "InvalidYaml", "The document holds values that JSON does not have.", "Quote them.")
        return Manifest(file, name, None, (error,))
    try:
        return Manifest(file, name, Workspace.model_validate_json(text), ())
    except ValidationError as error:
        return Manifest(file, name, None, tuple(_field_errors(error)), _salvage(json.loads(text), error))


def _salvage(document: dict[str, Any], error: ValidationError) -> Workspace | None:
    """Return the Workspace without the values that do not fit, None when nothing sensible is left."""
    for item in error.errors(include_url=False):
        location = item["loc"][:-1] if item["type"] == "missing" else item["loc"]
        if not location:
            return None  # a field of the top is missing
        *parents, last = location
        body: Any = document
        try:
            for part in parents:
                body = body[part]
            del body[last]
        except (KeyError, IndexError, TypeError):
            continue  # an earlier error has taken it along
    try:
        return Workspace.model_validate_json(json.dumps(document))
    except ValidationError:
        return None


def _unwrapped(documents: list[Any]) -> Iterator[Any]:
    """Yield the documents, the items of a List in its place."""
    for document in documents:
        if isinstance(document, dict) and document.get("kind") == "List":
            yield from document.get("items") or ()
        else:
            yield document


def without_nulls(value: Any) -> Any:  # noqa: ANN401  (any YAML value)
    """Drop keys whose value is null, as the API server does: an empty key is a key that was not written."""
    if isinstance(value, Mapping):
        return {key: without_nulls(inner) for key, inner in value.items() if inner is not None}
    return [without_nulls(inner) for inner in value] if isinstance(value, list) else value


def _config_map(document: Mapping[str, Any], file: str) -> ConfigMap:
    metadata, data = document.get("metadata"), document.get("data") or {}
    if not isinstance(metadata, Mapping) or not isinstance(data, Mapping):
        raise InvalidInput(
            file,
            [FieldError("data", "InvalidConfigMap", "The ConfigMap needs metadata and data.", "Mend its shape.")],
        )
    wrong = [key for key, value in data.items() if not isinstance(value, str)]
    if wrong:
        error = FieldError(
            f"data[{wrong[0]}]",
            "InvalidConfigMap",
            "A ConfigMap holds texts.",
            "Write | behind the key, and indent the text.",
        )
        raise InvalidInput(file, [error])
    return ConfigMap(str(metadata.get("name", "")), dict(data))


def _field_errors(error: ValidationError) -> Iterator[FieldError]:
    for item in error.errors(include_url=False):
        location = tuple(part for part in item["loc"])
        field = field_path(location)
        value = item.get("input")
        match item["type"]:
            case "extra_forbidden":
                known = _known_fields(location[:-1])
                fix = did_you_mean(str(location[-1]), known, f"Known here: {', '.join(sorted(known))}.")
                yield FieldError(field, "UnknownField", f"There is no field {location[-1]!r} here.", fix)
            case "missing":
                yield FieldError(field, "MissingField", f"The field {field} is missing.", "Add it.")
            case "literal_error":
                expected = item.get("ctx", {}).get("expected", "")
                yield FieldError(field, "InvalidValue", f"{value!r} is not one of {expected}.", "Use one of them.")
            case _:
                message = f"{_shown(value)} does not fit: {item['msg'][:1].lower()}{item['msg'][1:]}."
                yield FieldError(field, "InvalidValue", message, "Correct the value's type or range.")


def field_path(location: tuple[str | int, ...]) -> str:
    """Return ``tuning.input.urls[0]`` for ``("tuning", "input", "urls", 0)``."""
    path = ""
    for part in location:
        path += f"[{part}]" if isinstance(part, int) else f".{part}" if path else str(part)
    return path


def _shown(value: object) -> str:
    text = json.dumps(value, default=str)
    return text if len(text) <= 60 else text[:57] + "..."


def _known_fields(location: tuple[str | int, ...]) -> list[str]:
    """Return the YAML names of the fields of the block at ``location``."""
    model: type[BaseModel] = Workspace
    for part in location:
        field = next((f for n, f in model.model_fields.items() if part in (n, f.alias)), None)
        if field is not None:
            model = next(_blocks_in(field.annotation), model)
    return [field.alias or name for name, field in model.model_fields.items()]


def _blocks_in(annotation: Any) -> Iterator[type[BaseModel]]:  # noqa: ANN401  (a type annotation of any form)
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    elif get_origin(annotation) in (Union, types.UnionType, tuple):
        for inner in get_args(annotation):
            yield from _blocks_in(inner)
