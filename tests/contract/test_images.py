"""The images are built of what is pinned, and of all that the project asks for."""

import re
import tomllib

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from tests.conftest import ROOT

CONTAINERFILE = (ROOT / "images/Containerfile").read_text()
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
LINES = [line for line in (ROOT / "images/constraints.txt").read_text().splitlines() if not line.startswith("#")]
PINNED = {canonicalize_name(name): version for name, version in (line.split("==") for line in LINES)}
EXTRAS = {extra for found in re.findall(r"\.whl\)\[([\w,]+)\]", CONTAINERFILE) for extra in found.split(",")}


@pytest.mark.parametrize("extra", ["", *sorted(EXTRAS)])
def test_what_the_project_asks_for_is_pinned_to_a_version_that_it_takes(extra):
    asked = PROJECT["optional-dependencies"][extra] if extra else PROJECT["dependencies"]
    for requirement in map(Requirement, asked):
        assert requirement.specifier.contains(PINNED[canonicalize_name(requirement.name)]), requirement


def test_the_base_is_named_by_digest_and_nothing_runs_as_root():
    assert re.search(r"^ARG PYTHON=\S+@sha256:[0-9a-f]{64}$", CONTAINERFILE, re.M)
    targets = re.split(r"^FROM ", CONTAINERFILE, flags=re.M)[3:]
    assert len(targets) == 4
    assert all(re.findall(r"^USER (\S+)$", target, re.M)[-1] == "65532:65532" for target in targets)
