"""Argo's ``{{tags}}``: filled in over a whole template, or the template does not run."""

import re
from collections.abc import Mapping
from typing import Any

_TAG = re.compile(r"\{\{\s*([^{}=][^{}]*?)\s*\}\}")


class UnresolvedError(Exception):
    """A tag that nothing stands for."""


def fill(value: Any, scope: Mapping[str, str]) -> Any:  # noqa: ANN401  (any JSON value)
    """Return ``value`` with every tag of ``scope`` filled in, also inside lists and maps.

    Raises:
        UnresolvedError: a tag is not in ``scope``.
    """
    if isinstance(value, str):
        return _TAG.sub(lambda match: _look_up(match[1], scope), value)
    if isinstance(value, Mapping):
        return {key: fill(inner, scope) for key, inner in value.items()}
    if isinstance(value, list):
        return [fill(inner, scope) for inner in value]
    return value


def _look_up(name: str, scope: Mapping[str, str]) -> str:
    if name not in scope:
        raise UnresolvedError(f"failed to resolve {{{{{name}}}}}")
    return str(scope[name])


def parameters(body: Mapping[str, Any] | None) -> dict[str, Any]:
    """Return name -> value of a ``parameters`` list, whichever of value and default is there."""
    found = (body or {}).get("parameters") or []
    return {p["name"]: p.get("value", p.get("default")) for p in found if p.get("value", p.get("default")) is not None}


def seconds(duration: str | int | float | None, default: float) -> float:
    """Return a duration such as ``30``, ``"5s"``, ``"1h30m"`` in seconds."""
    if duration is None or duration == "":
        return default
    if isinstance(duration, int | float):
        return float(duration)
    unit = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0, "": 1.0}
    return sum(float(n) * unit[u] for n, u in re.findall(r"([\d.]+)(ms|s|m|h|d|)", duration) if n)
