"""What is asked for one by one, where rights are missing."""

import asyncio
from types import SimpleNamespace

import pytest

from controller.intent import Intent, Refusal
from controller.kube_api import ApiError
from controller.observing import Observer
from pipelines.plan import Placement

KEY = ("team", "tune-phi-3")


def wish_of(workspace, get):
    """Return what the Workspace asks for, where the API server answers by ``get``."""
    workspace["metadata"] |= {"namespace": KEY[0], "uid": "u-1", "generation": 1}

    async def answered(path, query=None, accept=""):
        return get(path)

    live = SimpleNamespace(objects={KEY: workspace}, known=True)
    observer = Observer(SimpleNamespace(get=answered), Placement(), live, live, live)  # type: ignore[arg-type]
    seen = asyncio.run(observer.observe(KEY))
    assert seen is not None
    return seen[0].intent


def forbidden(path):
    raise ApiError(403, f"GET {path}", "configmaps is forbidden")


@pytest.mark.parametrize("config", ["mine", ...], ids=["names a ConfigMap", "names none"])
def test_a_namespace_that_the_controller_was_given_no_rights_in_is_told_so(workspace, put, config):
    said = wish_of(put(workspace, "tuning.config", config), forbidden)
    assert isinstance(said, Refusal)
    assert said.reason == "NamespaceNotServed"
    assert "'team'" in said.message
    assert "namespaces" in said.message  # the value of the chart


def test_without_rights_to_look_for_secrets_they_are_taken_to_be_there(workspace):
    assert isinstance(wish_of(workspace, lambda path: forbidden(path) if "secrets" in path else None), Intent)


def test_a_secret_that_is_missing_is_named(workspace):
    said = wish_of(workspace, lambda path: None)
    assert isinstance(said, Refusal)
    assert said.reason == "SecretNotFound"
