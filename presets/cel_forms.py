"""What CEL rules are made of: the forms of names, images and URLs, and the rules that several parts share.

Core CEL only, for Kubernetes 1.25 and later. A text or a list that a rule matches or loops over must be bounded: an API
server refuses the CRD for what an expression could cost at most.
"""

from dataclasses import dataclass

from presets.field_rules import URL_SCHEMES


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


def same_in_any_case(field: str) -> str:
    """Return the term that two names are the same but for their case; core CEL has no other way.

    The field's length must be bounded: an API server refuses the CRD for what an expression could cost at most.
    """
    return f"(self.{field} == oldSelf.{field} || self.{field}.matches('(?i)^' + oldSelf.{field} + '$'))"


def unchanged(at: str, field: str) -> CelRule:
    """Return the rule that a field cannot be added, removed or changed."""
    same = f"has(self.{field}) == has(oldSelf.{field}) && (!has(self.{field}) || self.{field} == oldSelf.{field})"
    return CelRule(
        at, same, field, f"{'.'.join(filter(None, (at, field)))} cannot be changed once the Workspace is there."
    )


def exactly_one(at: str, *fields: str) -> CelRule:
    """Return the rule that one of several fields is given, and no other of them."""
    given = {"urls": "(has(self.urls) && size(self.urls) > 0)", "image": "(has(self.image) && self.image != '')"}
    terms = [f"({given.get(field, f'has(self.{field})')} ? 1 : 0)" for field in fields]
    return CelRule(at, f"{' + '.join(terms)} == 1", "", f"Exactly one of {', '.join(fields)} must be given.")


MACHINE = "^[A-Za-z0-9][A-Za-z0-9_.-]*$"  # nothing of it means anything in a pattern, but the dot
OBJECT_NAME = "^[a-z0-9]([-a-z0-9.]{0,251}[a-z0-9])?$"
# Loose: what it lets pass and the grammar does not, the controller refuses.
IMAGE = "^(([A-Za-z0-9.-]+|[[][a-fA-F0-9:]+[]])(:[0-9]+)?/)?[a-z0-9._/-]+(:[A-Za-z0-9_][A-Za-z0-9_.-]{0,127})?$"
ANY_IMAGE = IMAGE[:-1] + "(@[A-Za-z0-9_+.-]+:[0-9a-fA-F]{32,})?$"
# Without a pattern: long URLs, and many of them, would make one dear.
A_URL = " || ".join(f"u.startsWith('{scheme}://')" for scheme in URL_SCHEMES)
CRON = "^[ \\t]*(@[a-z]+([ \\t]+[0-9.hms]+)?|[^ \\t]+([ \\t]+[^ \\t]+){4})[ \\t]*$"
# presets.names, behind the colon of a tag
RESERVED = ":(kaiflow-(dataset|weights|run|partial|report|image)-[^/]+|kaiflow-prune|sha256-[0-9a-f]{64})$"


def image_and_secrets(at: str) -> tuple[CelRule, ...]:
    """Return the rules of an image that is read, and of the Secrets for it."""
    return (
        CelRule(
            at, f"!has(self.image) || self.image == '' || self.image.matches('{ANY_IMAGE}')", "image",
            "Write registry/repository:tag, in lower case.",
        ),
        CelRule(
            at, f"!has(self.imagePullSecrets) || self.imagePullSecrets.all(s, s.matches('{OBJECT_NAME}'))",
            "imagePullSecrets", "One of these is no name of a Secret: lower-case letters, digits, dashes and dots.",
        ),
    )  # fmt: skip


def preset_rules(at: str) -> tuple[CelRule, ...]:
    """Return the rules of a model and of where its weights come from."""
    options = f"{at}.presetOptions"
    image = "has(self.presetOptions) && has(self.presetOptions.image) && self.presetOptions.image != ''"
    return (
        CelRule(
            at, "!self.name.contains('/') || self.name.matches('^[^/]+/[^/]+$')", "name",
            "Write a preset's name, or organisation/model.",
        ),
        CelRule(
            at, f"!has(self.accessMode) || self.accessMode != 'private' || ({image})", "presetOptions.image",
            "A private preset needs the image that holds its weights.",
        ),
        CelRule(
            options,
            "!has(self.modelAccessSecret) || self.modelAccessSecret == ''"
            f" || self.modelAccessSecret.matches('{OBJECT_NAME}')",
            "modelAccessSecret", "This is not the name of a Secret: lower-case letters, digits, dashes and dots.",
        ),
        *image_and_secrets(options),
    )  # fmt: skip


def each_adapter(holds: str, message: str) -> CelRule:
    """Return the rule that something holds of every adapter ``a``."""
    return CelRule("inference", f"!has(self.adapters) || self.adapters.all(a, {holds})", "adapters", message)
