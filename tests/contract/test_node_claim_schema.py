"""What we send is valid to Karpenter's own schema of NodeClaims, as @kubernetes-models makes validators of its CRDs."""

import json
import shutil
import subprocess

import pytest

from presets.node_request import NodeAttempt, NodePlacement, NodeRequest
from steps.contract import WorkspaceRef
from steps.node_claims import node_claim, node_name, own_labels

PACKAGE = "@kubernetes-models/karpenter@2.0.0"
SCRIPT = """
import { NodeClaim } from "@kubernetes-models/karpenter/karpenter.sh/v1";
import { readFileSync } from "node:fs";
const verdicts = JSON.parse(readFileSync(0, "utf8")).map((body) => {
  try { new NodeClaim(body).validate(); return ""; } catch (error) { return String(error.message); }
});
console.log(JSON.stringify(verdicts));
"""
WORKSPACE = WorkspaceRef(name="tune", namespace="team", uid="u", revision="r")


@pytest.fixture(scope="module")
def problems(tmp_path_factory):
    """Say what is wrong with each of some NodeClaims; empty for a valid one."""
    folder = tmp_path_factory.mktemp("npm")
    if not shutil.which("npm"):
        pytest.skip("npm is not installed: apt-get install npm")
    (folder / "package.json").write_text('{"private": true, "type": "module"}')
    install = ["npm", "install", "--no-audit", "--no-fund", "--silent", PACKAGE]
    if subprocess.run(install, cwd=folder, capture_output=True, timeout=120).returncode:
        pytest.skip(f"npm cannot install {PACKAGE} here")
    (folder / "validate.js").write_text(SCRIPT)

    def told(claims):
        done = subprocess.run(
            ["node", "validate.js"], cwd=folder, input=json.dumps(claims), capture_output=True, text=True, check=True
        )
        return json.loads(done.stdout)

    return told


A100 = NodeAttempt("Standard_NC24ads_A100_v4")


def claim(cloud, attempt=A100):
    request = NodeRequest(NodePlacement("karpenter", cloud), (attempt,), 1, {"app": "tune"}, (), 160)
    return node_claim(request, attempt, node_name("run", WORKSPACE, 0), own_labels("run", WORKSPACE))


def test_what_is_sent_to_every_cloud_is_valid(problems):
    attempts = [NodeAttempt("X"), NodeAttempt("X", "eastus-1"), NodeAttempt("X", spot=True)]
    assert set(problems([claim(cloud, a) for cloud in ("azure", "nap", "aws") for a in attempts])) == {""}


def test_the_schema_does_refuse(problems):
    without, operator, taint = claim("azure"), claim("azure"), claim("azure")
    del without["spec"]["nodeClassRef"]
    operator["spec"]["requirements"][0]["operator"] = "Is"
    taint["spec"]["taints"][0]["effect"] = "Never"
    assert all(problems([without, operator, taint]))
