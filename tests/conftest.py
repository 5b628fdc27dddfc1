"""Workspaces and small helpers that every test may ask for."""

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import structlog
from hypothesis import HealthCheck, settings

from presets.catalogue import find_model
from presets.manifest import parse_workspace
from presets.recipe import Recipe
from presets.resolve import resolve
from presets.training_config import TrainingConfig

# How long an example takes says nothing on a machine that others use too.
settings.register_profile("kaiflow", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("kaiflow")

ROOT = Path(__file__).parent.parent
Document = dict[str, Any]


@pytest.fixture(autouse=True)
def _fresh_logs():
    """No test inherits how another one's step was set up to log."""
    yield
    structlog.reset_defaults()
    structlog.contextvars.clear_contextvars()


@pytest.fixture
def workspace() -> Document:
    """A tuning Workspace that breaks no rule; a fresh copy for every test."""
    return copy.deepcopy(
        {
            "apiVersion": "kaito.sh/v1beta1",
            "kind": "Workspace",
            "metadata": {"name": "tune-phi-3"},
            "resource": {
                "instanceType": "Standard_NC24ads_A100_v4",
                "labelSelector": {"matchLabels": {"app": "tune-phi-3"}},
            },
            "tuning": {
                "preset": {"name": "phi-3-mini-128k-instruct"},
                "method": "qlora",
                "input": {"urls": ["https://data.example.com/train.parquet"]},
                "output": {"image": "registry.example.com/team/adapter:0.0.1", "imagePushSecret": "registry-login"},
            },
        }
    )


@pytest.fixture
def put() -> Callable[[Document, str, Any], Document]:
    """Set (or with ``...`` remove) a value at a dotted path."""

    def put(document: Document, path: str, value: Any) -> Document:
        *parents, last = path.split(".")
        body = document
        for part in parents:
            body = body.setdefault(part, {})
        if value is ...:
            body.pop(last, None)
        else:
            body[last] = value
        return document

    return put


@pytest.fixture
def edited(workspace: Document, put: Callable[[Document, str, Any], Document]) -> Callable[[Document], Document]:
    """Return the Workspace with values set (or with ``...`` removed) at dotted paths."""

    def of(edits: Document) -> Document:
        document = copy.deepcopy(workspace)
        for path, value in edits.items():
            put(document, path, value)
        return document

    return of


@pytest.fixture
def recipe_of() -> Callable[..., Recipe]:
    """Resolve a Workspace document; keywords are sections of the training config."""

    def build(document: Document, **sections: dict[str, Any]) -> Recipe:
        parsed = parse_workspace(document, "file.yaml").workspace
        assert parsed is not None
        assert parsed.tuning is not None
        assert parsed.tuning.preset is not None
        model = find_model(parsed.tuning.preset.name)
        assert model is not None
        return resolve(parsed, model, TrainingConfig(sections))

    return build
