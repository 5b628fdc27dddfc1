"""May this Workspace replace that one?  What KAITO forbids to change once an object is there."""

from collections.abc import Iterator

from presets.errors import FieldError
from presets.workspace import Tuning, Workspace


def check_update(old: Workspace, new: Workspace) -> tuple[FieldError, ...]:
    """Return every immutable field that differs between ``old`` and ``new``."""
    return tuple(_all_rules(old, new))


def _all_rules(old: Workspace, new: Workspace) -> Iterator[FieldError]:
    for block in ("tuning", "inference"):
        had, has = getattr(old, block) is not None, getattr(new, block) is not None
        if had != has:
            yield FieldError(
                block, "Immutable", f"{block} cannot be {'removed' if had else 'added'} once the Workspace is there.",
                "Make a new Workspace.",
            )  # fmt: skip
    yield from _resource(old, new)
    if old.tuning is not None and new.tuning is not None:
        yield from _tuning(old.tuning, new.tuning)
    if old.inference is not None and new.inference is not None:
        if old.inference.preset != new.inference.preset:
            yield _immutable("inference.preset")
        if (old.inference.template is None) != (new.inference.template is None):
            yield _immutable("inference.template")


def _resource(old: Workspace, new: Workspace) -> Iterator[FieldError]:
    before, after = old.resource, new.resource
    if before is None or after is None:
        if before is not after:
            yield _immutable("resource")
        return
    for field, attribute in (
        ("count", "count"),
        ("labelSelector", "label_selector"),
        ("partition", "partition"),
    ):
        if getattr(before, attribute) != getattr(after, attribute):
            yield _immutable(f"resource.{field}")
    sku = old.instance_type
    if sku and sku.lower() != (new.instance_type or "").lower():
        yield _immutable("resource.instanceType")


def _tuning(old: Tuning, new: Tuning) -> Iterator[FieldError]:
    if old.preset != new.preset:
        yield _immutable("tuning.preset")
    if (old.method or "").lower() != (new.method or "").lower():
        yield _immutable("tuning.method")
    before, after = old.input and old.input.name, new.input and new.input.name
    if before != after:
        yield _immutable("tuning.input.name")


def _immutable(field: str) -> FieldError:
    return FieldError(
        field,
        "Immutable",
        f"{field} cannot be changed once the Workspace is there.",
        "Put the old value back, or make a new Workspace.",
    )
