"""KAITO's own manifests: the verdict on each is the one that docs/kaito-compatibility.md states.

``KAIFLOW_TEST_KAITO_EXAMPLES`` names a folder of them: ``examples/`` of KAITO's repository at v0.12, the path of each
with ``__`` for ``/``.
"""

import os
import re
from pathlib import Path

import pytest
import yaml

from controller.validation import validate
from tests.conftest import ROOT
from tests.contract.test_cel_rules import refused_by_cel

FOLDER = Path(os.environ.get("KAIFLOW_TEST_KAITO_EXAMPLES", "none"))
FILES = {path.name: path for path in FOLDER.rglob("*.yaml")}
TABLE = (ROOT / "docs/kaito-compatibility.md").read_text()
pytestmark = pytest.mark.skipif(not FILES, reason="KAIFLOW_TEST_KAITO_EXAMPLES names no folder of KAITO's examples")


def documents(path):
    return [body for body in yaml.safe_load_all(path.read_text()) if body]


def workspaces():
    found = {name: [d for d in documents(path) if d["kind"] == "Workspace"] for name, path in sorted(FILES.items())}
    return {name: bodies for name, bodies in found.items() if bodies}


def stated():
    """Return file -> (what it holds, the fields that are refused) as the table has it."""
    rows = re.findall(r"^\| `(\S+\.yaml)` \| (\w+) \| (.+) \|$", TABLE, re.MULTILINE)
    return {name: (kind, set(re.findall(r"`([^`]+)`", verdict))) for name, kind, verdict in rows}


def test_every_manifest_of_a_workspace_is_in_the_table():
    assert set(stated()) == set(workspaces())


@pytest.mark.parametrize("name", sorted(workspaces()))
def test_the_verdict_is_the_stated_one(name):
    kind, fields = stated()[name]
    bodies = workspaces()[name]
    assert all(kind in body for body in bodies)
    verdicts = validate([FILES[name]], None, None)
    assert {error.field for verdict in verdicts for error in verdict.errors} == fields
    refused = {rule.path for body in bodies for rule in refused_by_cel(body)}
    assert all(any(field.startswith(path) for field in fields) for path in refused)  # an API server refuses no more
