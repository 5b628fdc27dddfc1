"""Pydantic types -> a structural schema as CustomResourceDefinitions take it: types, enums, bounds, defaults, words.

No references, no ``anyOf`` of types, nothing that is not named (Kubernetes: "Specifying a structural schema").
Descriptions are the strings that stand behind the fields of ``presets.workspace``, read only when a schema is made.
"""

import ast
import inspect
from collections.abc import Mapping
from functools import cache
from types import ModuleType
from typing import Any

from pydantic import BaseModel

Schema = dict[str, Any]
KEPT = (
    "type",
    "enum",
    "minimum",
    "maximum",
    "exclusiveMinimum",
    "exclusiveMaximum",
    "default",
    "maxLength",
)


def structural(model: type[BaseModel]) -> Schema:
    """Return the schema of ``model``, descriptions included."""
    told = model.model_json_schema(by_alias=True)
    return _converted(told, told.get("$defs", {}), _descriptions(inspect.getmodule(model)))


def _converted(schema: Mapping[str, Any], shared: Mapping[str, Any], words: Mapping[str, Mapping[str, str]]) -> Schema:
    schema = _resolved(schema, shared)
    if "properties" in schema:
        return _object(schema, shared, words)
    if schema.get("type") == "array":
        items = _converted(schema.get("items", {}), shared, words)
        default = {"default": list(schema["default"])} if schema.get("default") else {}
        return {"type": "array", "items": items, **_bounds(schema, "maxItems"), **default}
    if schema.get("type") == "object":
        values = schema.get("additionalProperties")
        if isinstance(values, Mapping):
            inner = _converted(values, shared, words)
            return {"type": "object", "additionalProperties": inner, **_bounds(schema, "maxProperties")}
        return {"type": "object", "x-kubernetes-preserve-unknown-fields": True}
    body = {key: schema[key] for key in KEPT if key in schema}
    if "const" in schema:
        body["enum"] = [schema["const"]]
    for bound in ("Minimum", "Maximum"):  # in OpenAPI 3.0 exclusive is a flag beside the bound
        if f"exclusive{bound}" in body:
            body[bound.lower()] = body.pop(f"exclusive{bound}")
            body[f"exclusive{bound}"] = True
    return body


def _bounds(schema: Mapping[str, Any], *names: str) -> Schema:
    return {name: schema[name] for name in names if name in schema}


def _object(schema: Mapping[str, Any], shared: Mapping[str, Any], words: Mapping[str, Mapping[str, str]]) -> Schema:
    said = words.get(schema["title"], {})
    properties = {}
    for name, field in schema["properties"].items():
        converted = _converted(field, shared, words)
        if said.get(name):
            converted["description"] = said[name]
        properties[name] = converted
    body: Schema = {"type": "object", "properties": properties}
    if schema.get("required"):
        body["required"] = list(schema["required"])
    if "default" in schema:  # so that the defaults inside are set too
        body["default"] = _without_nothing(schema["default"])
    return body


def _without_nothing(value: Any) -> Any:  # noqa: ANN401  (JSON)
    if isinstance(value, Mapping):
        return {key: _without_nothing(inner) for key, inner in value.items() if inner is not None}
    return value


def _resolved(schema: Mapping[str, Any], shared: Mapping[str, Any]) -> Mapping[str, Any]:
    """Follow a reference; of ``X or nothing`` return X: a field that is left out needs no null."""
    while "$ref" in schema or "anyOf" in schema:
        if "$ref" in schema:
            rest = {key: value for key, value in schema.items() if key != "$ref"}
            schema = {**shared[schema["$ref"].rpartition("/")[2]], **rest}
        else:
            (only,) = [choice for choice in schema["anyOf"] if choice.get("type") != "null"]
            rest = {k: v for k, v in schema.items() if k != "anyOf" and not (k == "default" and v is None)}
            schema = {**only, **rest}
    return schema


@cache
def _descriptions(module: ModuleType | None) -> Mapping[str, Mapping[str, str]]:
    """Return class -> field, as it is written in YAML -> the string behind it in the source."""
    if module is None:
        return {}
    found: dict[str, dict[str, str]] = {}
    for node in ast.parse(inspect.getsource(module)).body:
        if not isinstance(node, ast.ClassDef):
            continue
        kind = getattr(module, node.name)
        fields = getattr(kind, "model_fields", {})
        for field, text in zip(node.body, node.body[1:], strict=False):
            if isinstance(field, ast.AnnAssign) and isinstance(field.target, ast.Name) and _is_text(text):
                alias = fields[field.target.id].alias or field.target.id
                found.setdefault(node.name, {})[alias] = ast.literal_eval(text.value)  # type: ignore[attr-defined]
    return found


def _is_text(node: ast.stmt) -> bool:
    return isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str)
