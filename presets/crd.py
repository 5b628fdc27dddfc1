"""The CustomResourceDefinition of the Workspace, made of the types and the rules: ``kaiflow crds``."""

from typing import Any

from presets.cel_forms import CelRule
from presets.cel_rules import RULES
from presets.crd_status import STATUS
from presets.structural_schema import Schema, structural
from presets.workspace import DEFAULT_INSTANCE_TYPE_V1ALPHA1, Workspace

NAME = "workspaces.kaito.sh"
OURS = "kaiflow.dev/crd"  # label by which it is told from KAITO's own
SPEC = ("resource", "tuning", "inference")


def crd() -> dict[str, Any]:
    """Return the CRD: both versions, one schema but for v1alpha1's default machine, v1beta1 stored."""
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": NAME, "labels": {"app.kubernetes.io/managed-by": "kaiflow", OURS: "true"},
            "annotations": {"helm.sh/resource-policy": "keep"},  # when the release goes that brought it
        },
        "spec": {
            "group": "kaito.sh",
            "scope": "Namespaced",
            "names": {
                "kind": "Workspace", "listKind": "WorkspaceList", "plural": "workspaces", "singular": "workspace",
                "shortNames": ["wk", "wks"], "categories": ["workspace"],
            },
            "conversion": {"strategy": "None"},
            "versions": [
                _version("v1alpha1", V1ALPHA1, stored=False),
                _version("v1beta1", V1BETA1, stored=True),
            ],
        },
    }  # fmt: skip


def _column(name: str, path: str, kind: str = "string", priority: int = 0) -> dict[str, Any]:
    column: dict[str, Any] = {"name": name, "jsonPath": path, "type": kind}
    return {**column, "priority": priority} if priority else column


def _condition(name: str, condition: str) -> dict[str, Any]:
    return _column(name, f'.status.conditions[?(@.type=="{condition}")].status')


_AGE = _column("Age", ".metadata.creationTimestamp", "date")
_INSTANCE = _column("Instance", ".resource.instanceType")
_OURS = [
    _column("Step", ".status.step", priority=1),
    _column("Progress", ".status.progress", priority=1),
    _column("ETASeconds", ".status.training.etaSeconds", "integer", 1),
    _column("Loss", ".status.training.loss", "number", 1),
    _column("CostUSD", ".status.cost.usd", "number", 1),
    _column("Endpoint", ".status.endpoint", priority=1),
    _column("Image", ".status.output.digest", priority=1),
]
V1ALPHA1 = [
    _INSTANCE, _condition("ResourceReady", "ResourceReady"), _condition("InferenceReady", "InferenceReady"),
    _condition("WorkspaceReady", "WorkspaceSucceeded"), _AGE, *_OURS,
]  # fmt: skip
V1BETA1 = [
    _INSTANCE, _condition("ResourceReady", "ResourceReady"), _condition("InferenceReady", "InferenceReady"),
    _condition("JobStarted", "JobStarted"), _condition("WorkspaceSucceeded", "WorkspaceSucceeded"),
    _column("TargetNodeCount", ".status.targetNodeCount", "integer"), _column("State", ".status.state"), _AGE, *_OURS,
]  # fmt: skip


def _version(name: str, columns: list[dict[str, Any]], *, stored: bool) -> dict[str, Any]:
    return {
        "name": name,
        "served": True,
        "storage": stored,
        "subresources": {"status": {}},
        "additionalPrinterColumns": columns,
        "schema": {"openAPIV3Schema": schema(name)},
    }


def schema(version: str) -> Schema:
    """Return the structural schema of a version, its rules where they belong."""
    whole = structural(Workspace)
    properties: dict[str, Any] = {
        "apiVersion": {"type": "string"}, "kind": {"type": "string"}, "metadata": {"type": "object"},
        **{name: whole["properties"][name] for name in SPEC},
        "status": STATUS,
    }  # fmt: skip
    if version == "v1alpha1":
        properties["resource"]["properties"]["instanceType"]["default"] = DEFAULT_INSTANCE_TYPE_V1ALPHA1
    body: Schema = {
        "type": "object",
        "description": "Fine-tune or serve a model: KAITO's Workspace.",
        "properties": properties,
    }
    for rule in RULES:
        part = _part(body, rule.at)
        part.setdefault("x-kubernetes-validations", []).append(_validation(rule))
    return body


def _validation(rule: CelRule) -> dict[str, str]:
    if rule.field.startswith("metadata."):  # no part of the schema: an API server takes no path to it, and prints <nil>
        return {"rule": rule.rule, "message": f"{rule.field}: {rule.message}"}
    place = {"fieldPath": f".{rule.field}"} if rule.field else {}
    return {"rule": rule.rule, "message": rule.message, **place}


def _part(body: Schema, path: str) -> Schema:
    for name in path.split(".") if path else ():
        body = body["properties"][name]
    return body
