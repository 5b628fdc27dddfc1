"""Which objects are in these YAML files, and what is wrong with them?

Reads what ``kubectl apply`` reads: one or more documents, Workspaces and ConfigMaps. Every error of a
document is found before anything is raised, each with its field path; unknown fields name the nearest
known one. Duplicate keys are refused, since YAML libraries otherwise keep the last one silently.
"""

import json
import re
import types
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Union, get_args, get_origin

import yaml
from pydantic import BaseModel, ValidationError

from presets.errors import FieldError, InvalidInput, KaiflowError, did_you_mean
from presets.workspace import API_VERSIONS, Workspace


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


MOST_NODES = 100_000  # of a document, aliases written out; a list of addresses is far shorter


def _expanded_nodes(node: yaml.Node, known: dict[int, int]) -> int:
    """Return how many nodes a document has when its aliases are written out; each node is looked at once."""
    if id(node) not in known:
        known[id(node)] = MOST_NODES + 1  # of one that holds itself, which has no end
        inside = node.value if isinstance(node, yaml.CollectionNode) else ()
        parts = [part for item in inside for part in (item if isinstance(item, tuple) else (item,))]
        known[id(node)] = 1 + sum(_expanded_nodes(part, known) for part in parts)
    return known[id(node)]


class _JsonLoader(yaml.SafeLoader):
    """YAML as Kubernetes reads it: JSON's types only, no duplicate keys."""

    def compose_document(self) -> yaml.Node | None:
        """Refuse a document whose aliases stand for far more than is written: ten lines may stand for gigabytes."""
        node: yaml.Node | None = super().compose_document()
        if node is not None and _expanded_nodes(node, {}) > MOST_NODES:
            raise yaml.constructor.ConstructorError(
                None, None, f"its aliases stand for more than {MOST_NODES} values", node.start_mark
            )
        return node

    def compose_mapping_node(self, anchor: Any) -> yaml.MappingNode:  # noqa: ANN401  (typed wrongly upstream)
        """Refuse a key that stands twice, before merge keys are filled in."""
        node: yaml.MappingNode = super().compose_mapping_node(anchor)
        seen: set[str] = set()
        for key_node, _ in node.value:
            key = str(key_node.value)
            if key in seen and key != "<<":
                raise yaml.constructor.ConstructorError(
                    None, None, f"the key {key!r} stands twice in one mapping", key_node.start_mark
                )
            seen.add(key)
        return node


_NOT_JSON = ("tag:yaml.org,2002:timestamp", "tag:yaml.org,2002:float")
_JsonLoader.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in resolvers if tag not in _NOT_JSON]
    for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}
# YAML 1.2's float, which kubectl reads too: PyYAML alone takes 2e-4 for text.
_JsonLoader.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(
        r"[-+]?(\.[0-9]+|[0-9]+\.[0-9]*|[0-9]+(?=[eE]))([eE][-+]?[0-9]+)?$|[-+]?\.(inf|Inf|INF)$|\.(nan|NaN|NAN)$"
    ),
    list("-+0123456789."),
)


def load_yaml(text: str, subject: str) -> list[Any]:
    """Return the documents of ``text``, empty ones left out.

    Raises:
        InvalidInput: the text is not YAML; the error names line and column.
    """
    try:
        documents = [doc for doc in yaml.load_all(text, Loader=_JsonLoader) if doc is not None]
        plain: list[Any] = json.loads(json.dumps(documents, allow_nan=False))  # no cycles, no bytes, keys are text
    except (yaml.YAMLError, ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        mark = getattr(error, "problem_mark", None)
        where = f" at line {mark.line + 1}, column {mark.column + 1}" if mark else ""
        problem = getattr(error, "problem", None) or getattr(error, "reason", None) or "it cannot be parsed"
        raise InvalidInput(
            subject,
            [FieldError("", "InvalidYaml", f"This is not valid YAML{where}: {problem}.", "Mend the line.")],
        ) from error
    return plain


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
