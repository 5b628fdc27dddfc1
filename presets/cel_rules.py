"""The rules that an API server can check by itself, as CEL; as ``presets.rules`` and ``rules_update`` have them.

Core CEL only, for Kubernetes 1.25 and later (``x-kubernetes-validations``). What they cannot see (the catalogue, the
ConfigMap, time zones, memory) is checked by the controller, at once, and told as ``Planned=False``. That both say the
same is tested object by object (tests/contract/test_cel_rules.py).
"""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class CelRule:
    """One rule: on which part of the object it stands, what must hold, and what is said where it does not."""

    at: str  # dotted path of the part; empty: the object itself
    rule: str  # of ``self`` (and ``oldSelf``)
    field: str  # below the part; the field that is named, empty: the part itself
    message: str

    @property
    def of_updates(self) -> bool:
        """Whether it compares with the object as it was."""
        return "oldSelf" in self.rule

    @property
    def path(self) -> str:
        """The full path of the field that is named."""
        return ".".join(filter(None, (self.at, self.field)))


def _same_in_any_case(field: str) -> str:
    """Return the term that two names are the same but for their case; core CEL has no other way.

    The field's length must be bounded: an API server refuses the CRD for what an expression could cost at most.
    """
    return f"self.{field}.matches('(?i)^' + oldSelf.{field} + '$')"


def _unchanged(at: str, field: str) -> CelRule:
    """Return the rule that a field cannot be added, removed or changed."""
    same = f"has(self.{field}) == has(oldSelf.{field}) && (!has(self.{field}) || self.{field} == oldSelf.{field})"
    return CelRule(
        at, same, field, f"{'.'.join(filter(None, (at, field)))} cannot be changed once the Workspace is there."
    )


def _exactly_one(at: str, *fields: str) -> CelRule:
    given = {"urls": "(has(self.urls) && size(self.urls) > 0)", "image": "(has(self.image) && self.image != '')"}
    terms = [f"({given.get(field, f'has(self.{field})')} ? 1 : 0)" for field in fields]
    return CelRule(at, f"{' + '.join(terms)} == 1", "", f"Exactly one of {', '.join(fields)} must be given.")


_OBJECT_NAME = "^[a-z0-9]([-a-z0-9.]{0,251}[a-z0-9])?$"
# Loose: what it lets pass and the grammar does not, the controller refuses.
_IMAGE = "^([A-Za-z0-9.-]+(:[0-9]+)?/)?[a-z0-9._/-]+(:[A-Za-z0-9_][A-Za-z0-9_.-]{0,127})?$"
# presets.names, behind the colon of a tag
_RESERVED = ":(kaiflow-(dataset|weights|run|partial|report|image)-[^/]+|kaiflow-prune|sha256-[0-9a-f]{64})$"

RULES: tuple[CelRule, ...] = (
    CelRule(
        "",
        "has(self.tuning) || has(self.inference)",
        "tuning",
        "Either tuning or inference must be given, not neither.",
    ),
    CelRule(
        "",
        "!(has(self.tuning) && has(self.inference))",
        "inference",
        "Either tuning or inference may be given, not both.",
    ),
    CelRule("", "has(self.tuning) == has(oldSelf.tuning)", "tuning", "tuning cannot be added or removed."),
    CelRule("", "has(self.inference) == has(oldSelf.inference)", "inference", "inference cannot be added or removed."),
    CelRule("", "has(self.resource) == has(oldSelf.resource)", "resource", "resource cannot be added or removed."),
    CelRule(
        "",
        "!has(self.tuning) || !has(self.resource) || !has(self.resource.count) || self.resource.count == 1",
        "resource.count",
        "Tuning runs on one node: count must be 1.",
    ),
    CelRule(
        "",
        "!has(self.tuning) || !has(self.resource) || !has(self.resource.partition)",
        "resource.partition",
        "GPU partitions are not supported for tuning.",
    ),
    _unchanged("resource", "count"),
    _unchanged("resource", "labelSelector"),
    _unchanged("resource", "partition"),
    CelRule(
        "resource",
        "has(self.instanceType) == has(oldSelf.instanceType)"
        f" && (!has(self.instanceType) || {_same_in_any_case('instanceType')})",
        "instanceType",
        "resource.instanceType cannot be changed once the Workspace is there.",
    ),
    CelRule(
        "resource.labelSelector",
        "!has(self.matchExpressions)"
        " || self.matchExpressions.all(e, e.operator == 'In' && has(e.values) && size(e.values) == 1)",
        "matchExpressions",
        "Use matchLabels, or operator In with one value.",
    ),
    CelRule(
        "resource.labelSelector",
        "!has(self.matchLabels) || size(self.matchLabels) == 0"
        " || !self.matchLabels.all(k, k.startsWith('kaito.sh/') || k.startsWith('karpenter.kaito.sh/'))",
        "matchLabels",
        "Add a label of your own: all of these are reserved ones.",
    ),
    CelRule(
        "tuning", "has(self.preset)", "preset", "Name the model to tune: preset: {name: phi-3-mini-128k-instruct}."
    ),
    CelRule(
        "tuning",
        "has(self.method) && self.method.matches('(?i)^(lora|qlora)$')",
        "method",
        "Choose method: qlora (4-bit base) or method: lora.",
    ),
    CelRule("tuning", "has(self.input)", "input", "Say where the dataset is: input: {urls: [https://...]}."),
    CelRule(
        "tuning",
        "has(self.output)",
        "output",
        "Say where the adapter goes: output: {image: ..., imagePushSecret: ...}.",
    ),
    _unchanged("tuning", "preset"),
    CelRule(
        "tuning",
        f"!has(self.method) || !has(oldSelf.method) || {_same_in_any_case('method')}",
        "method",
        "tuning.method cannot be changed once the Workspace is there.",
    ),
    _exactly_one("tuning.input", "urls", "volumeSource", "image"),
    _unchanged("tuning.input", "name"),
    _exactly_one("tuning.output", "image", "volumeSource"),
    CelRule(
        "tuning.output",
        f"!has(self.image) || self.image == '' || self.image.matches('{_IMAGE}')",
        "image",
        "Write registry/repository:tag, in lower case, without a digest.",
    ),
    CelRule(
        "tuning.output",
        f"!has(self.image) || !self.image.matches('{_RESERVED}')",
        "image",
        "The tag is one of kaiflow's own: name one that does not begin with kaiflow- or sha256-.",
    ),
    CelRule(
        "tuning.output",
        "!has(self.image) || self.image == '' || (has(self.imagePushSecret) && self.imagePushSecret != '')",
        "imagePushSecret",
        "Pushing an image needs a Secret of type kubernetes.io/dockerconfigjson.",
    ),
    CelRule(
        "tuning.output",
        f"!has(self.imagePushSecret) || self.imagePushSecret == '' || self.imagePushSecret.matches('{_OBJECT_NAME}')",
        "imagePushSecret",
        "This is not the name of a Secret: lower-case letters, digits, dashes and dots.",
    ),
    CelRule(
        "tuning.evaluation",
        "!(has(self.gate) && self.gate == 'enforce' && has(self.split) && self.split == 0.0)",
        "split",
        "gate: enforce needs held-out rows, and split is 0.",
    ),
)
