"""``helm install`` on the real API server, by Helm's own engine: a CRD that is there is left alone."""

import copy
import os
import shutil
import time
from types import SimpleNamespace

import helm_python
import pytest

from presets.crd import OURS
from tests.charts import CHART

CRD = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions/workspaces.kaito.sh"
# The server of 1.20 knows no policy/v1; nobody pulls our images here, so that nothing is waited for.
VALUES = {"podDisruptionBudget": {"enabled": False}, "replicas": 1, "nodes": {"provisioner": "byo"}}


@pytest.fixture
def helm(cluster, kinds, tmp_path):
    """Install the chart in a namespace of its own; all of it goes again.  Whichever version the server has."""
    chart = tmp_path / "kaiflow"
    shutil.copytree(CHART, chart)
    told = (chart / "Chart.yaml").read_text()
    (chart / "Chart.yaml").write_text("\n".join(line for line in told.splitlines() if "kubeVersion:" not in line))
    name = f"h-{time.time_ns() % 10**10}"
    config = helm_python.Config(kubeconfig_path=os.environ["KUBECONFIG"], namespace=name)

    def install(**values):
        return config.install(
            chart, "kaiflow", {**VALUES, "namespaces": [name], **values}, namespace=name, create_namespace=True
        )

    yield SimpleNamespace(install=install, uninstall=config.uninstall)
    config.uninstall("kaiflow", ignore_not_found=True)
    config.close()
    cluster.delete(f"/api/v1/namespaces/{name}")


@pytest.fixture
def crd_of(cluster):
    """Put another label on the CRD, and take it off again."""
    before = cluster.get(CRD)

    def labelled(labels):
        body = {"metadata": {"labels": {OURS: None, **labels}}}
        return cluster.patch(CRD, body)

    yield labelled
    cluster.patch(CRD, {"metadata": {"labels": before["metadata"]["labels"]}})


@pytest.mark.parametrize("labels", [{}, {OURS: "true"}], ids=["KAITO's", "ours, by kubectl"])
def test_a_crd_that_is_there_is_left_alone_by_the_release_and_stays_when_it_goes(cluster, helm, crd_of, labels):
    before = copy.deepcopy(crd_of(labels))
    helm.install()
    after = cluster.get(CRD)
    assert after["spec"] == before["spec"]
    assert after["metadata"]["uid"] == before["metadata"]["uid"]
    assert after["metadata"].get("labels") == before["metadata"].get("labels")
    assert "meta.helm.sh/release-name" not in (after["metadata"].get("annotations") or {})
    deployed = [d["metadata"]["name"] for d in cluster.list("/apis/apps/v1/deployments")]
    assert "kaiflow" in deployed


def test_what_the_release_has_brought_goes_with_it_but_not_the_crd(cluster, helm, crd_of):
    helm.install()
    helm.uninstall("kaiflow")
    assert cluster.get(CRD) is not None
    assert not [d for d in cluster.list("/apis/apps/v1/deployments") if d["metadata"]["name"] == "kaiflow"]
