"""The chart: Helm's own engine lints and renders it; its outcome is what Kubernetes and our command line take."""

import helm_python
import jsonschema
import pytest
import typer.core
import typer.main
import yaml

from controller.main import app
from controller.operator_process import lease_name
from presets.crd import crd
from tests.charts import CHART, kind_of, missing_fields, rendered, unknown_fields

CASES = {
    "as it comes": {},
    "one namespace": {"namespaced": True, "namespaces": ["team"], "replicas": 1},
    "aks": {"nodes": {"provisioner": "aks", "aks": "s/g/c", "gpuDriver": "None", "autoscale": True, "zones": ["1"],
            "fallbackInstanceTypes": ["Standard_NC40ads_H100_v5"], "spot": "first",
            "machines": {"skus": {"azure": {"Standard_X": {"gpu": "T4", "count": 1}}}}},
        "infrastructureAccount": {"annotations": {"azure.workload.identity/client-id": "x"},
            "labels": {"azure.workload.identity/use": "true"}}},
    "given nodes, a mirror, digests": {
        "nodes": {"provisioner": "byo"}, "global": {"imageRegistry": "mirror.example.com/ghcr"},
        "images": {"tune": {"digest": "sha256:" + "a" * 64}, "pullSecrets": ["mirror"]},
        "steps": {
            "environment": {"HF_ENDPOINT": "https://hub.example.com"}, "podLabels": {"identity/use": "true"},
        }, "stepAccount": {"annotations": {"identity/client": "c"}}, "store": {"cache": "r.example.com/c"},
    },
    "everything": {
        "serviceMonitor": {"enabled": True, "labels": {"release": "prometheus"}}, "namespaces": ["a", "b"],
        "podMonitor": {"enabled": True}, "alerts": {"enabled": True}, "dashboard": {"enabled": True},
        "controller": {
            "onlyAnnotated": True, "nodeSelector": {"a": "b"}, "tolerations": [{"key": "a", "operator": "Exists"}],
            "affinity": {"nodeAffinity": {}}, "priorityClassName": "high", "podAnnotations": {"a": "b"},
            "podLabels": {"c": "d"},
        },
        "store": {"imageVolumes": True}, "serviceAccount": {"annotations": {"a": "b"}},
    },
}  # fmt: skip

OTHERS = ("CustomResourceDefinition", "ServiceMonitor", "PodMonitor", "PrometheusRule")  # of no type of the client's


@pytest.fixture(params=CASES)
def values(request):
    return CASES[request.param]


def of_kind(bodies, kind):
    return [body for body in bodies if body["kind"] == kind]


def test_helm_finds_nothing_to_mend(values):
    report = helm_python.lint(CHART, values, strict=True, kube_version="v1.31.0")
    assert report["messages"] == []
    assert report["errors"] == []


def test_every_object_is_one_that_kubernetes_knows(values):
    for body in rendered(values):
        if body["kind"] not in OTHERS:
            assert unknown_fields(body, kind_of(body), body["kind"]) == []
            assert missing_fields(body, kind_of(body), body["kind"]) == []


def test_an_object_that_lacks_what_kubernetes_requires_is_found():
    found = missing_fields({"spec": {"template": {"spec": {"containers": [{"image": "x"}]}}}}, "V1Deployment")
    assert [text.partition(":")[0] for text in found] == [".spec", ".spec.template.spec.containers[0]"]


# Of monitoring.coreos.com/v1 (prometheus-operator, Documentation/api-reference/api.md), what a ServiceMonitor may hold.
SERVICE_MONITOR = {
    "type": "object", "required": ["apiVersion", "kind", "metadata", "spec"],
    "properties": {
        "apiVersion": {"const": "monitoring.coreos.com/v1"},
        "spec": {
            "type": "object", "required": ["selector", "endpoints"], "additionalProperties": False,
            "properties": {
                "selector": {"type": "object", "required": ["matchLabels"]},
                "namespaceSelector": {"type": "object"},
                "endpoints": {"type": "array", "minItems": 1, "items": {
                    "type": "object", "additionalProperties": False,
                    "properties": {
                        "port": {"type": "string"}, "path": {"type": "string"}, "scheme": {"enum": ["http", "https"]},
                        "interval": {"type": "string", "pattern": r"^([0-9]+(ms|[smhdwy]))+$"},
                    },
                }},
            },
        },
    },
}  # fmt: skip


def test_the_service_monitor_is_one_of_prometheus_operator():
    (body,) = of_kind(rendered({"serviceMonitor": {"enabled": True}}), "ServiceMonitor")
    jsonschema.Draft202012Validator(SERVICE_MONITOR).validate(body)
    (service,) = of_kind(rendered(), "Service")
    assert body["spec"]["endpoints"][0]["port"] in [port["name"] for port in service["spec"]["ports"]]
    assert body["spec"]["selector"]["matchLabels"].items() <= service["metadata"]["labels"].items()


def test_a_field_that_kubernetes_does_not_have_is_found():
    assert unknown_fields({"spec": {"replica": 1, "paused": "no"}}, "V1Deployment") == [
        ".spec.replica",
        ".spec.paused: no bool",
    ]


def test_the_crd_is_the_one_of_the_types():
    assert yaml.safe_load((CHART / "files/workspaces.kaito.sh.yaml").read_text()) == crd()
    assert of_kind(rendered(), "CustomResourceDefinition") == [crd()]
    assert of_kind(rendered({"crds": {"install": False}}), "CustomResourceDefinition") == []


def test_the_command_line_takes_what_the_chart_passes(values):
    (deployment,) = of_kind(rendered(values), "Deployment")
    (container,) = deployment["spec"]["template"]["spec"]["containers"]
    name, *arguments = container["args"]
    commands = typer.main.get_command(app)
    assert isinstance(commands, typer.core.TyperGroup)
    command = commands.commands[name]
    context = command.make_context(name, list(arguments), resilient_parsing=False)
    assert context.params["port"] == 8080


def test_images_are_named_by_registry_mirror_tag_and_digest():
    (deployment,) = of_kind(rendered(), "Deployment")
    (container,) = deployment["spec"]["template"]["spec"]["containers"]
    assert container["image"] == "ghcr.io/kaiflow/controller:0.1.0"
    (deployment,) = of_kind(rendered(CASES["given nodes, a mirror, digests"]), "Deployment")
    arguments = deployment["spec"]["template"]["spec"]["containers"][0]["args"]
    assert f"--image-tune=mirror.example.com/ghcr/kaiflow/tune@sha256:{'a' * 64}" in arguments
    assert "--environment=HF_ENDPOINT=https://hub.example.com" in arguments
    assert "--pod-label=identity/use=true" in arguments
    found = of_kind(rendered(CASES["given nodes, a mirror, digests"]), "ServiceAccount")
    accounts = {account["metadata"]["name"]: account for account in found}
    assert accounts["kaiflow-step"]["metadata"]["annotations"] == {"identity/client": "c"}


@pytest.mark.parametrize(
    "wrong",
    [
        {"replica": 1},
        {"nodes": {"provisioner": "magic"}},
        {"images": {"tune": {"digest": "latest"}}},
        {"namespaces": []},
    ],
)
def test_a_value_that_is_none_of_ours_is_refused(wrong):
    chart = helm_python.Chart.load(CHART)
    with pytest.raises(helm_python.HelmError):
        chart.validate_schema(wrong)
    chart.close()


def test_step_accounts_may_tell_argo_their_results_and_nothing_else():
    bodies = rendered()
    (role,) = [b for b in of_kind(bodies, "Role") if b["metadata"]["name"] == "kaiflow-step"]
    assert role["rules"] == [
        {"apiGroups": ["argoproj.io"], "resources": ["workflowtaskresults"], "verbs": ["create", "patch"]}
    ]
    bound = {
        b["roleRef"]["name"]
        for b in (*of_kind(bodies, "RoleBinding"), *of_kind(bodies, "ClusterRoleBinding"))
        if any(s["name"] == "kaiflow-step" for s in b["subjects"])
    }
    assert bound == {"kaiflow-step"}


def test_no_account_may_list_secrets_or_do_everything(values):
    for body in rendered(values):
        for rule in body.get("rules") or ():
            assert "*" not in (*rule["verbs"], *rule["resources"], *rule["apiGroups"])
            assert not ("secrets" in rule["resources"] and {"list", "watch"} & set(rule["verbs"]))
            assert body["kind"] == "Role" or "secrets" not in rule["resources"]


def test_pods_are_restricted(values):
    for body in rendered(values):
        spec = body["spec"]["template"]["spec"] if body["kind"] == "Deployment" else body.get("spec", {})
        for container in spec.get("containers", ()) if body["kind"] in ("Deployment", "Pod") else ():
            assert spec["securityContext"]["runAsNonRoot"]
            assert spec["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
            assert container["securityContext"]["allowPrivilegeEscalation"] is False
            assert container["securityContext"]["readOnlyRootFilesystem"] is True
            assert container["securityContext"]["capabilities"] == {"drop": ["ALL"]}


def test_each_team_may_have_a_release_of_its_own():
    """Nothing without a namespace has the same name twice, and each has a Lease: else one of two never works."""
    clusterwide, leases = [], []
    for team in ("team-a", "team-b"):
        bodies = rendered({"namespaced": True, "namespaces": [team], "crds": {"install": False}}, "kaiflow-system")
        clusterwide += [(b["kind"], b["metadata"]["name"]) for b in bodies if "namespace" not in b["metadata"]]
        (lease,) = [b for b in of_kind(bodies, "Role") if b["metadata"]["name"].endswith("-lease")]
        leases += [name for rule in lease["rules"] for name in rule.get("resourceNames", ())]
    assert len(set(clusterwide)) == len(clusterwide) > 0
    assert leases == [lease_name("team-a"), lease_name("team-b")]
    (lease,) = [b for b in of_kind(rendered(), "Role") if b["metadata"]["name"].endswith("-lease")]
    assert lease["rules"][1]["resourceNames"] == [lease_name("")]


def test_one_namespace_needs_no_rights_beyond_it_but_for_nodes_and_the_crd():
    bodies = rendered(CASES["one namespace"])
    assert {b["metadata"]["name"] for b in of_kind(bodies, "ClusterRole")} == {
        "kaiflow-team-nodes",
        "kaiflow-team-crd",
    }


ODD = ("x: y", "x:", "x #y", "true", "1", "a\nb", 'say "x"', "{{ nothing }}", "")


@pytest.mark.parametrize("text", ODD)
def test_odd_values_come_out_as_they_went_in(text):
    values = {
        "steps": {"environment": {"A": text}}, "nodes": {"zones": [text or "1"]}, "images": {"pullSecrets": ["1"]},
        "controller": {"priorityClassName": "yes", "podLabels": {
            "team": "1", "app.kubernetes.io/component": "other", "app.kubernetes.io/name": "other"}},
        "namespaces": ["123", "true"],
    }  # fmt: skip
    bodies = rendered(values)
    (deployment,) = of_kind(bodies, "Deployment")
    template = deployment["spec"]["template"]
    arguments = template["spec"]["containers"][0]["args"]
    assert f"--environment=A={text}" in arguments
    assert f"--zone={text or '1'}" in arguments
    assert all(isinstance(argument, str) for argument in arguments)
    assert template["spec"]["imagePullSecrets"] == [{"name": "1"}]
    assert template["spec"]["priorityClassName"] == "yes"
    assert deployment["spec"]["selector"]["matchLabels"].items() <= template["metadata"]["labels"].items()
    assert template["metadata"]["labels"]["team"] == "1"
    assert {b["metadata"].get("namespace", "") for b in bodies} >= {"123", "true"}
    for body in bodies:
        if body["kind"] not in OTHERS:
            assert unknown_fields(body, kind_of(body), body["kind"]) == []


def test_agent_pools_without_their_cluster_are_refused_at_the_install_and_not_by_a_pod_that_ends_again_and_again():
    with pytest.raises(helm_python.HelmError, match=r"nodes\.aks"):
        rendered({"nodes": {"provisioner": "aks"}})


def test_another_table_of_machines_starts_the_controller_anew():
    def annotations(price):
        (deployment,) = of_kind(rendered({"nodes": {"machines": {"skus": {"azure": price}}}}), "Deployment")
        return deployment["spec"]["template"]["metadata"]["annotations"]

    assert annotations({"a": 1}) != annotations({"a": 2})
    (deployment,) = of_kind(rendered(), "Deployment")
    assert "annotations" not in deployment["spec"]["template"]["metadata"]


def test_workflows_are_made_where_workspaces_are_run_and_nowhere_else():
    """Who may make Workflows in every namespace may run pods as every account of the cluster."""
    everywhere = [r for b in of_kind(rendered(), "ClusterRole") for r in b["rules"] if "argoproj.io" in r["apiGroups"]]
    assert [rule["verbs"] for rule in everywhere] == [["get", "list", "watch"]]


def test_the_policy_of_images_reaches_every_pod_that_is_ours():
    bodies = rendered({"images": {"pullPolicy": "Always", "pullSecrets": ["mirror"]}})
    (deployment,), (asking,) = of_kind(bodies, "Deployment"), of_kind(bodies, "Pod")
    (controller,), (asks,) = deployment["spec"]["template"]["spec"]["containers"], asking["spec"]["containers"]
    assert controller["imagePullPolicy"] == asks["imagePullPolicy"] == "Always"
    assert "--image-pull-policy=Always" in controller["args"]
    assert asking["spec"]["imagePullSecrets"] == [{"name": "mirror"}]


def test_servers_are_of_the_account_to_which_an_identity_is_bound_and_of_the_namespaces_own_otherwise():
    """An account that the chart has made goes with it: servers that need none of its identity go on."""

    def arguments(values):
        (deployment,) = of_kind(rendered(values), "Deployment")
        return deployment["spec"]["template"]["spec"]["containers"][0]["args"]

    assert "--server-account=kaiflow-step" in arguments({"stepAccount": {"annotations": {"identity/client": "c"}}})
    assert not [a for a in arguments({}) if a.startswith("--server-account")]
