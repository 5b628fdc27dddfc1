"""Which cluster is spoken to."""

import pytest
import yaml

from presets.errors import ConfigError
from steps.cluster import Cluster


def config(path, name):
    """Write a kubeconfig of one context."""
    path.write_text(yaml.safe_dump({
        "apiVersion": "v1", "kind": "Config", "current-context": name,
        "clusters": [{"name": name, "cluster": {"server": f"https://{name}.example.com"}}],
        "contexts": [{"name": name, "context": {"cluster": name, "user": name, "namespace": f"of-{name}"}}],
        "users": [{"name": name, "user": {"token": "t"}}],
    }))  # fmt: skip
    return str(path)


def test_a_context_without_a_kubeconfig_is_said(monkeypatch):
    monkeypatch.delenv("KUBECONFIG", raising=False)
    monkeypatch.setattr("kubernetes.config.kube_config.KUBE_CONFIG_DEFAULT_LOCATION", "/no/such/file")
    with pytest.raises(ConfigError, match="no cluster to speak to"):
        Cluster.connect("team")


def test_several_files_are_read_as_kubectl_reads_them(monkeypatch, tmp_path):
    files = [config(tmp_path / name, name) for name in ("a", "b")]
    monkeypatch.setenv("KUBECONFIG", ":".join(files))
    monkeypatch.setattr("kubernetes.config.kube_config.KUBE_CONFIG_DEFAULT_LOCATION", ":".join(files))
    assert Cluster.connect("b").namespace == "of-b"
