"""Which cluster is spoken to, and how often it is asked."""

from http.server import BaseHTTPRequestHandler

import pytest
import yaml

from presets.errors import ConfigError, TryAgainError
from steps import backoff
from steps.cluster import Cluster
from tests.servers import serving


def config(path, name, server=""):
    """Write a kubeconfig of one context."""
    path.write_text(yaml.safe_dump({
        "apiVersion": "v1", "kind": "Config", "current-context": name,
        "clusters": [{"name": name, "cluster": {"server": server or f"https://{name}.example.com"}}],
        "contexts": [{"name": name, "context": {"cluster": name, "user": name, "namespace": f"of-{name}"}}],
        "users": [{"name": name, "user": {"token": "t"}}],
    }))  # fmt: skip
    return str(path)


def named(monkeypatch, *files):
    """Let KUBECONFIG name the files; the client has read it when it was imported."""
    monkeypatch.setenv("KUBECONFIG", ":".join(files))
    monkeypatch.setattr("kubernetes.config.kube_config.KUBE_CONFIG_DEFAULT_LOCATION", ":".join(files))


def test_a_context_without_a_kubeconfig_is_said(monkeypatch):
    monkeypatch.delenv("KUBECONFIG", raising=False)
    monkeypatch.setattr("kubernetes.config.kube_config.KUBE_CONFIG_DEFAULT_LOCATION", "/no/such/file")
    with pytest.raises(ConfigError, match="no cluster to speak to"):
        Cluster.connect("team")


def test_several_files_are_read_as_kubectl_reads_them(monkeypatch, tmp_path):
    named(monkeypatch, *(config(tmp_path / name, name) for name in ("a", "b")))
    assert Cluster.connect("b").namespace == "of-b"


@pytest.mark.parametrize("answers", ["later", "nothing"])
def test_a_server_that_cannot_now_is_asked_as_often_as_we_say_and_no_more(monkeypatch, tmp_path, caplog, answers):
    """urllib3 would ask three times more each time, wait as long as a server says, and write of it."""
    asked, waited = [], []

    class Busy(BaseHTTPRequestHandler):
        def do_GET(self):
            asked.append(self.path)
            if answers == "later":
                self.send_response(503)
                self.send_header("Retry-After", "0")
                self.end_headers()

        def log_message(self, format, *args):  # noqa: A002  (its name there)
            pass

    monkeypatch.setattr("time.sleep", waited.append)
    with serving(Busy) as port:
        named(monkeypatch, config(tmp_path / "config", "a", f"http://127.0.0.1:{port}"))
        with pytest.raises(TryAgainError):
            Cluster.connect().get("/api/v1/nodes/n")
    assert len(asked) == backoff.ATTEMPTS
    assert len(waited) == backoff.ATTEMPTS - 1
    assert not caplog.records
