"""What the chart gives Prometheus and Grafana asks for metrics that are there, and the alerts come when they should."""

import json
import shutil
import subprocess
from collections.abc import Iterator
from typing import Any

import jsonschema
import promql_parser
import pytest
import yaml
from prometheus_client import CollectorRegistry

from controller.loading import load_one
from controller.operator_metrics import OperatorMetrics
from pipelines.plan import plan
from pipelines.workflow import compile_workflow
from steps.contract import METRICS_PORT
from steps.gauges import Gauges
from steps.http_api import ServerMetrics
from steps.serving_objects import COMPONENT
from tests.charts import rendered
from tests.contract.test_golden_workflows import EXAMPLES

ALL = {
    "namespaces": ["team-a", "team-b"],
    "serviceMonitor": {"enabled": True},
    "podMonitor": {"enabled": True, "labels": {"release": "prometheus"}},
    "alerts": {"enabled": True, "labels": {"release": "prometheus"}},
    "dashboard": {"enabled": True},
}
SAMPLES = {"counter": ("_total",), "histogram": ("_bucket", "_count", "_sum"), "info": ("_info",)}
OWN = 'namespace="kaiflow-system",job="kaiflow"'


def exposed() -> set[str]:
    """Return the names of all samples that the controller, a training and a server give."""
    registries = (OperatorMetrics().registry, Gauges("n", "w").registry, ServerMetrics(lambda: 0).registry)
    return {name for registry in registries for name in _samples(registry)}


def _samples(registry: CollectorRegistry) -> Iterator[str]:
    for family in registry.collect():
        yield from (family.name + suffix for suffix in SAMPLES.get(family.type, ("",)))


def asked_for(expression: str) -> set[str]:
    """Return the names of the metrics in a PromQL expression."""
    return set(_names(promql_parser.parse(expression)))


def _names(node: Any) -> Iterator[str]:
    if isinstance(node, promql_parser.VectorSelector) and node.name:
        yield node.name
    for part in ("lhs", "rhs", "expr", "vector_selector"):
        if hasattr(node, part):
            yield from _names(getattr(node, part))
    for argument in getattr(node, "args", ()):
        yield from _names(argument)


def the(kind: str, values: dict[str, Any] = ALL) -> Any:
    (body,) = [b for b in rendered(values) if b["kind"] == kind and "crd" not in b["metadata"]["name"]]
    return body


def alerts() -> list[dict[str, Any]]:
    (group,) = the("PrometheusRule")["spec"]["groups"]
    return list(group["rules"])


def panels() -> list[dict[str, Any]]:
    dashboard = json.loads(the("ConfigMap")["data"]["kaiflow.json"])
    return list(dashboard["panels"])


def test_every_alert_asks_for_metrics_that_are_there():
    assert len(alerts()) == 6
    for alert in alerts():
        assert asked_for(alert["expr"]) <= exposed(), alert["alert"]


def test_every_panel_asks_for_metrics_that_are_there():
    expressions = [target["expr"] for panel in panels() for target in panel.get("targets", ())]
    assert len(expressions) > 15
    for expression in expressions:
        assert asked_for(expression) <= exposed(), expression


def test_every_metric_but_the_build_is_on_the_dashboard_or_in_an_alert():
    shown = set().union(
        *(asked_for(target["expr"]) for panel in panels() for target in panel.get("targets", ())),
        *(asked_for(alert["expr"]) for alert in alerts()),
    )
    families = {name.removesuffix("_bucket").removesuffix("_count").removesuffix("_sum") for name in exposed()}
    unseen = {family for family in families if not any(name.startswith(family) for name in shown)}
    assert unseen == {"kaiflow_build_info", "kaiflow_training_peak_memory_bytes"}


def test_no_panel_lies_on_another_and_none_is_wider_than_the_page():
    taken: dict[tuple[int, int], int] = {}
    for panel in panels():
        place = panel["gridPos"]
        assert place["x"] + place["w"] <= 24
        for x in range(place["x"], place["x"] + place["w"]):
            for y in range(place["y"], place["y"] + place["h"]):
                assert taken.setdefault((x, y), panel["id"]) == panel["id"]
    assert len({panel["id"] for panel in panels()}) == len(panels())


# Of monitoring.coreos.com/v1 (prometheus-operator, Documentation/api-reference/api.md): the fields that we use.
POD_MONITOR = {
    "type": "object", "required": ["selector", "podMetricsEndpoints"], "additionalProperties": False,
    "properties": {
        "namespaceSelector": {"type": "object", "properties": {"matchNames": {"type": "array", "minItems": 1}},
                              "additionalProperties": False},
        "selector": {"type": "object", "required": ["matchExpressions"]},
        "podMetricsEndpoints": {"type": "array", "items": {
            "type": "object", "required": ["port"], "additionalProperties": False,
            "properties": {
                "port": {"type": "string"}, "path": {"type": "string"}, "honorLabels": {"type": "boolean"},
                "interval": {"type": "string", "pattern": r"^([0-9]+(ms|[smhdwy]))+$"},
                "relabelings": {"type": "array", "items": {
                    "type": "object", "required": ["sourceLabels", "targetLabel"], "additionalProperties": False,
                    "properties": {"sourceLabels": {"type": "array"}, "targetLabel": {"type": "string"}},
                }},
            },
        }},
    },
}  # fmt: skip


def test_what_trains_and_what_serves_is_read_in_the_namespaces_that_are_served():
    monitor = the("PodMonitor")
    jsonschema.Draft202012Validator(POD_MONITOR).validate(monitor["spec"])
    assert monitor["metadata"]["labels"]["release"] == "prometheus"
    assert monitor["spec"]["namespaceSelector"] == {"matchNames": ["team-a", "team-b"]}
    workflow = compile_workflow(plan(load_one(EXAMPLES[0], None).recipe))
    (tune,) = [template for template in workflow["spec"]["templates"] if template["name"] == "tune"]
    ports = {port["name"]: port["containerPort"] for port in tune["container"]["ports"]}
    training, serving = monitor["spec"]["podMetricsEndpoints"]
    assert ports == {training["port"]: METRICS_PORT}
    assert serving["port"] == "http"
    of_ours, component = monitor["spec"]["selector"]["matchExpressions"]
    assert of_ours["key"] in tune["metadata"]["labels"]
    assert component["values"] == [tune["metadata"]["labels"][component["key"]], COMPONENT[component["key"]]]


def test_alerts_without_what_they_are_about_are_refused():
    with pytest.raises(Exception, match="serviceMonitor"):
        rendered({"alerts": {"enabled": True}})
    without = the("PrometheusRule", {**ALL, "podMonitor": {"enabled": False}})
    assert "KaiflowTrainingStands" not in {rule["alert"] for rule in without["spec"]["groups"][0]["rules"]}


def test_nothing_of_it_is_there_as_the_chart_comes():
    kinds = {body["kind"] for body in rendered()}
    assert kinds.isdisjoint({"ServiceMonitor", "PodMonitor", "PrometheusRule", "ConfigMap"})


HOUR = "x120"  # samples: one in 30 s
QUIET = {
    f'kaiflow_leading{{{OWN},pod="a"}}': f"1+0{HOUR}",
    f'kaiflow_leading{{{OWN},pod="b"}}': f"0+0{HOUR}",
    f"kaiflow_reconcile_errors_total{{{OWN}}}": f"0+0{HOUR}",
    f"kaiflow_reconcile_seconds_count{{{OWN}}}": f"0+10{HOUR}",
    f"kaiflow_queue_depth{{{OWN}}}": f"0+0{HOUR}",
    f'kaiflow_runs_total{{{OWN},outcome="Failed"}}': f"0+0{HOUR}",
    f'kaiflow_runs_total{{{OWN},outcome="Succeeded"}}': f"0+1{HOUR}",
    f'kaiflow_node_cost_dollars_total{{{OWN},outcome="Failed"}}': f"0+0{HOUR}",
    f'kaiflow_node_cost_dollars_total{{{OWN},outcome="Succeeded"}}': f"0+10{HOUR}",
    'kaiflow_training_steps{namespace="team-a",workspace="w"}': f"0+1{HOUR}",
    'kaiflow_training_steps_planned{namespace="team-a",workspace="w"}': f"1000+0{HOUR}",
    'kaiflow_training_steps{namespace="team-b",workspace="done"}': f"50+0{HOUR}",
    'kaiflow_training_steps_planned{namespace="team-b",workspace="done"}': f"50+0{HOUR}",
    'kaiflow_training_steps{namespace="elsewhere",workspace="not ours"}': f"5+0{HOUR}",
    'kaiflow_training_steps_planned{namespace="elsewhere",workspace="not ours"}': f"50+0{HOUR}",
}
STORIES = {
    "": {},
    "KaiflowNotLeading": {f'kaiflow_leading{{{OWN},pod="a"}}': f"0+0{HOUR}"},
    "KaiflowReconcileErrors": {f"kaiflow_reconcile_errors_total{{{OWN}}}": f"0+2{HOUR}"},
    "KaiflowQueueNeverEmpty": {f"kaiflow_queue_depth{{{OWN}}}": f"30+0{HOUR}"},
    "KaiflowRunFailed": {f'kaiflow_runs_total{{{OWN},outcome="Failed"}}': "0+0x100 1+0x20"},
    "KaiflowMoneyLost": {f'kaiflow_node_cost_dollars_total{{{OWN},outcome="Failed"}}': "0+0x100 80+0x20"},
    "KaiflowTrainingStands": {'kaiflow_training_steps{namespace="team-a",workspace="w"}': "0+1x30 30+0x90"},
}


@pytest.mark.skipif(shutil.which("promtool") is None, reason="needs promtool, of Prometheus")
@pytest.mark.parametrize("wanted", STORIES)
def test_each_alert_comes_when_it_should_and_no_other(wanted, tmp_path):
    (tmp_path / "rules.yaml").write_text(yaml.safe_dump(the("PrometheusRule")["spec"]))
    series = [{"series": name, "values": values} for name, values in {**QUIET, **STORIES[wanted]}.items()]
    expected = [
        {
            "eval_time": "59m",
            "alertname": alert["alert"],
            "exp_alerts": [{"exp_labels": _labels(alert), "exp_annotations": _annotations(alert)}]
            if alert["alert"] == wanted
            else [],
        }
        for alert in alerts()
    ]
    story = {"rule_files": ["rules.yaml"], "evaluation_interval": "30s",
             "tests": [{"interval": "30s", "input_series": series, "alert_rule_test": expected}]}  # fmt: skip
    (tmp_path / "story.yaml").write_text(yaml.safe_dump(story))
    found = subprocess.run(
        ["promtool", "test", "rules", "story.yaml"], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert found.returncode == 0, found.stdout + found.stderr


def _labels(alert: dict[str, Any]) -> dict[str, str]:
    """Return the labels that the alert comes with: its own, and those of the series that it is about."""
    of_series = {
        "KaiflowQueueNeverEmpty": {"namespace": "kaiflow-system", "job": "kaiflow"},
        "KaiflowTrainingStands": {"namespace": "team-a", "workspace": "w"},
    }
    return {**alert["labels"], **of_series.get(alert["alert"], {})}


def _annotations(alert: dict[str, Any]) -> dict[str, str]:
    names = {"{{ $labels.namespace }}": "team-a", "{{ $labels.workspace }}": "w"}
    texts = dict(alert["annotations"])
    for tag, name in names.items():
        texts = {key: text.replace(tag, name) for key, text in texts.items()}
    return texts
