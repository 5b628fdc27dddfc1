"""YAML as Kubernetes reads it: JSON's values alone, no key twice, no aliases that stand for gigabytes."""

import json
import re
from typing import Any

import yaml

from presets.errors import FieldError, InvalidInput

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
