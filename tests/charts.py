"""The chart rendered by Helm's own engine, and what Kubernetes' types say of the outcome."""

import re
from pathlib import Path
from typing import Any

import helm_python
import yaml
from kubernetes import client

CHART = Path(__file__).parents[1] / "charts" / "kaiflow"


def rendered(values: dict[str, Any] | None = None, namespace: str = "kaiflow-system") -> list[dict[str, Any]]:
    """Return the objects of the chart with these values, its tests included."""
    chart = helm_python.Chart.load(CHART)
    try:
        files = chart.render(values or {}, name="kaiflow", namespace=namespace)
    finally:
        chart.close()
    texts = [text for name, text in sorted(files.items()) if name.endswith(".yaml")]
    return [body for text in texts for body in yaml.safe_load_all(text) if body]


def unknown_fields(body: Any, kind: str, path: str = "") -> list[str]:
    """Return the paths of the fields that Kubernetes' type of that kind does not have, or that are of another type."""
    if found := re.fullmatch(r"list\[(.*)\]", kind):
        if not isinstance(body, list):
            return [f"{path}: no list"]
        return [p for i, item in enumerate(body) for p in unknown_fields(item, found[1], f"{path}[{i}]")]
    model = getattr(client, kind, None)
    if model is None or not hasattr(model, "openapi_types"):
        wanted = {"str": str, "int": int, "bool": bool, "float": (int, float)}.get(kind)
        return [] if wanted is None or isinstance(body, wanted) else [f"{path}: no {kind}"]
    if not isinstance(body, dict):
        return [f"{path}: no {kind}"]
    fields = {json_name: name for name, json_name in model.attribute_map.items()}
    unknown = [f"{path}.{key}" for key in body if key not in fields]
    known = ((key, value) for key, value in body.items() if key in fields)
    inner = [p for k, v in known for p in unknown_fields(v, model.openapi_types[fields[k]], f"{path}.{k}")]
    return unknown + inner


def missing_fields(body: Any, kind: str, path: str = "") -> list[str]:
    """Return the paths of objects that lack a field which Kubernetes' type of that kind requires."""
    if found := re.fullmatch(r"list\[(.*)\]", kind):
        return [p for i, item in enumerate(body) for p in missing_fields(item, found[1], f"{path}[{i}]")]
    model = getattr(client, kind, None)
    if model is None or not hasattr(model, "openapi_types"):
        return []
    fields = {json_name: name for name, json_name in model.attribute_map.items()}
    known = {fields[key]: value for key, value in body.items() if key in fields}
    lacking = []
    try:
        model(**known)
    except ValueError as error:  # the client's own validation
        lacking = [f"{path}: {error}"]
    inner = [p for k, v in known.items() for p in missing_fields(v, model.openapi_types[k], f"{path}.{k}")]
    return lacking + inner


def kind_of(body: dict[str, Any]) -> str:
    """Return the name of the client's type of an object."""
    return f"V1{body['kind']}"
