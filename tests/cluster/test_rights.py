"""Controller and steps under the accounts that the chart makes, with the rights that the chart gives, and no others."""

import base64
import os
from collections.abc import Callable
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from urllib.parse import urlsplit

import pytest
import yaml
from kubernetes import config

from controller.intent import HASH
from presets.errors import NotPermittedError
from presets.node_request import NodeAttempt, NodePlacement, NodeRequest
from steps import provision, release
from steps.cluster import Cluster
from steps.contract import Context, Request, WorkspaceRef
from tests.charts import rendered
from tests.cluster.operator_process import Controller, until
from tests.cluster.test_controller import place, workspace  # noqa: F401  (a fixture)

PLURAL = {"NetworkPolicy": "networkpolicies"}
GROUPS = {"v1": "/api/v1", "policy/v1": "/apis/policy/v1beta1"}


def path_of(body):
    """Return the API path of an object."""
    group = GROUPS.get(body["apiVersion"], f"/apis/{body['apiVersion']}")
    namespace = body["metadata"].get("namespace")
    kind = PLURAL.get(body["kind"], f"{body['kind'].lower()}s")
    return f"{group}{f'/namespaces/{namespace}' if namespace else ''}/{kind}/{body['metadata']['name']}"


@dataclass(frozen=True)
class Accounts:
    """How one becomes an account: by a kubeconfig, or as a pod."""

    kubeconfig: Callable[[str, Path], Path]
    pod: Callable[[str, Path], dict[str, str]]


@contextmanager
def rights_of_the_chart(cluster, namespace):
    """Have the chart's accounts and rights in the namespace."""
    values = {"namespaces": [namespace], "namespaced": True, "replicas": 1, "nodes": {"provisioner": "byo"}}
    kinds = ("ServiceAccount", "Role", "RoleBinding", "ClusterRole", "ClusterRoleBinding")
    bodies = [b for b in rendered(values, namespace) if b["kind"] in kinds]
    for body in bodies:
        cluster.apply(path_of(body), body)
    yield
    for body in bodies:
        if "namespace" not in body["metadata"]:
            cluster.delete(path_of(body))


@pytest.fixture
def accounts(cluster, place):  # noqa: F811
    """The chart's accounts and rights, applied to the namespace."""

    def token(account: str) -> str:
        secrets = f"/api/v1/namespaces/{place.namespace}/secrets"
        found = until(lambda: [
            s for s in cluster.list(secrets)
            if s["metadata"].get("annotations", {}).get("kubernetes.io/service-account.name") == account
            and "token" in (s.get("data") or {})
        ])  # fmt: skip
        return base64.b64decode(found[0]["data"]["token"]).decode()

    def kubeconfig(account: str, folder: Path) -> Path:
        settings = yaml.safe_load(Path(os.environ["KUBECONFIG"]).read_text())
        settings["users"][0]["user"] = {"token": token(account)}
        path = folder / f"{account}.kubeconfig"
        path.write_text(yaml.safe_dump(settings))
        return path

    def pod(account: str, folder: Path) -> dict[str, str]:
        """Return the variables of a pod, and lay out the files that it would have."""
        settings = yaml.safe_load(Path(os.environ["KUBECONFIG"]).read_text())["clusters"][0]["cluster"]
        inline = settings.get("certificate-authority-data")
        authority = base64.b64decode(inline) if inline else Path(settings["certificate-authority"]).read_bytes()
        (folder / "ca.crt").write_bytes(authority)
        (folder / "token").write_text(token(account))
        server = urlsplit(settings["server"])
        return {
            "KUBERNETES_SERVICE_HOST": server.hostname or "", "KUBERNETES_SERVICE_PORT": str(server.port),
            "KAIFLOW_SERVICE_ACCOUNT": str(folder), "KUBECONFIG": "",
        }  # fmt: skip

    with rights_of_the_chart(cluster, place.namespace):
        yield Accounts(kubeconfig, pod)


@contextmanager
def as_account(monkeypatch, path):
    account = Cluster(config.new_client_from_config(str(path)))
    with monkeypatch.context() as patch:
        patch.setattr(Cluster, "connect", lambda: account)
        yield account


def test_every_object_of_the_chart_is_taken_by_the_server(cluster, place):  # noqa: F811
    for body in rendered({"namespaces": [place.namespace]}, place.namespace):
        if body["kind"] in ("CustomResourceDefinition", "PodDisruptionBudget"):  # the server is older than policy/v1
            continue
        assert cluster.apply(path_of(body), body, dry_run=True)["kind"] == body["kind"]


def test_the_controllers_account_is_enough_for_all_that_it_does(place, accounts, tmp_path):  # noqa: F811
    environment = accounts.pod("kaiflow", tmp_path)
    with Controller(place.namespace, tmp_path / "controller.log", environment=environment) as controller:
        place.apply(workspace(schedule={"cron": "0 3 * * 0"}))
        place.wait_state("Ready")
        place.cluster.patch(f"{place.workspaces}/ws", {"tuning": {"schedule": None, "evaluation": {"gate": "off"}}})
        until(lambda: len(place.argo.started) >= 2 and place.status().get("state") == "Ready")
        place.delete()
        until(lambda: place.get() is None, 60)
        assert controller.events("reconcile_failed") == []
        assert controller.events("event_untold") == []
        assert "RunSucceeded" in place.events()


def test_a_secret_is_looked_for_only_where_that_is_allowed(cluster, place, accounts, tmp_path):  # noqa: F811
    role = f"/apis/rbac.authorization.k8s.io/v1/namespaces/{place.namespace}/roles/kaiflow-named"
    rules = [rule for rule in cluster.get(role)["rules"] if rule["resources"] != ["secrets"]]
    cluster.patch(role, {"rules": rules})
    cluster.delete(f"/api/v1/namespaces/{place.namespace}/secrets/registry-login")
    environment = accounts.pod("kaiflow", tmp_path)
    with Controller(place.namespace, tmp_path / "controller.log", environment=environment):
        place.apply(workspace())
        assert until(lambda: place.get()["metadata"].get("annotations", {}).get(HASH))


def request(namespace, verb, **recipe):
    return Request(
        verb=verb, workspace=WorkspaceRef(name="ws", namespace=namespace, uid="u-1", revision="r1"), store="x",
        target="cluster", recipe=recipe, inputs={"run": "ws-r1", "workflow": "ws-r1", "weights": "sha256:w"},
    )  # fmt: skip


def test_the_infrastructure_account_is_enough_for_its_steps(place, accounts, tmp_path, monkeypatch):  # noqa: F811
    node = NodeRequest(NodePlacement("byo"), (NodeAttempt(""),), 1, {"app": "nowhere"}, (), 160)
    context = Context(tmp_path, lambda done, total: None)
    with as_account(monkeypatch, accounts.kubeconfig("kaiflow-infrastructure", tmp_path)) as cluster:
        with pytest.raises(Exception, match="node") as refused:
            provision.run(request(place.namespace, "provision", node=asdict(node)), context)
        assert not isinstance(refused.value, NotPermittedError)
        released = release.run(request(place.namespace, "release", node=asdict(node)), context)
        assert released.outputs["released"] == "nothing was held"
        for kind, body in SERVED.items():
            path = f"{kind}/namespaces/{place.namespace}/{body['kind'].lower()}s/ws"
            assert cluster.apply(path, body)["kind"] == body["kind"]
            assert cluster.get(path)
        assert cluster.list(f"/api/v1/namespaces/{place.namespace}/pods") == []
        with pytest.raises(NotPermittedError):
            cluster.list(f"/api/v1/namespaces/{place.namespace}/secrets")


SERVED = {
    "/api/v1": {
        "apiVersion": "v1", "kind": "Service", "metadata": {"name": "ws"},
        "spec": {"ports": [{"port": 80, "protocol": "TCP"}], "selector": {"a": "b"}},
    },
    "/apis/apps/v1": {
        "apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "ws"},
        "spec": {
            "replicas": 0, "selector": {"matchLabels": {"a": "b"}},
            "template": {
                "metadata": {"labels": {"a": "b"}},
                "spec": {"containers": [{"name": "a", "image": "localhost/pause:1"}]},
            },
        },
    },
}  # fmt: skip


def test_a_steps_account_may_do_nothing_of_that(place, accounts, tmp_path, monkeypatch):  # noqa: F811
    with as_account(monkeypatch, accounts.kubeconfig("kaiflow-step", tmp_path)) as cluster:
        for path in ("pods", "secrets", "services", "configmaps"):
            with pytest.raises(NotPermittedError):
                cluster.list(f"/api/v1/namespaces/{place.namespace}/{path}")
        with pytest.raises(NotPermittedError):
            cluster.list("/api/v1/nodes")
