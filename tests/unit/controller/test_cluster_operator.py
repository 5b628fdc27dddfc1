"""Whose Workspaces are taken."""

from controller.cluster_operator import is_of_another
from presets.crd import crd


def test_ours_is_told_from_kaitos_by_its_label_whoever_installed_it():
    by_helm = crd()
    by_helm["metadata"]["labels"]["app.kubernetes.io/managed-by"] = "Helm"
    kaitos = {"metadata": {"name": "workspaces.kaito.sh", "labels": {"app.kubernetes.io/managed-by": "Helm"}}}
    assert not is_of_another(None)
    assert not is_of_another(by_helm)
    assert is_of_another(kaitos)
    assert is_of_another({"metadata": {"name": "workspaces.kaito.sh"}})
