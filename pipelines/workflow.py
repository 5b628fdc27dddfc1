"""Plan -> Argo Workflow, and CronWorkflow where the Workspace has a schedule.  The only assembly point.

The result is a plain dict: what is POSTed to a cluster, printed by ``kaiflow render``, and run by the local
engine. What Hera 7.1 does not check and Argo would refuse at run time is checked here.
"""

import re
from typing import Any

from hera.workflows import DAG, CronWorkflow, Parameter, Task, Workflow
from hera.workflows import models as m
from pydantic import ValidationError

from pipelines.names import CLEANUP_LABEL, CRON_NAME_MAX, STEP_ACCOUNT, cleanup_name, cron_name, release_name
from pipelines.plan import Plan, PlannedStep, image_pull_secrets, user_volumes
from pipelines.templates import template
from presets.errors import ConfigError, FieldError, InvalidInput
from steps.contract import MANAGED_BY, NAMESPACE_LABEL, PROVISIONER_LABEL, UID_LABEL, WORKSPACE_LABEL

ENTRYPOINT = "run"
_NAME = re.compile(r"[a-zA-Z0-9][-a-zA-Z0-9]*")
_DAY_SECONDS = 86400
CHANGED = "{{tasks.fetch.outputs.parameters.changed}} == true"


def compile_workflow(plan: Plan) -> dict[str, Any]:
    """Return the Workflow of ``plan`` as a dict.

    Raises:
        ConfigError: Argo would refuse it.
    """
    with _shell(Workflow, plan, name=plan.name) as workflow:
        _fill(plan)
    return checked(workflow.to_dict())


def compile_cron(plan: Plan) -> dict[str, Any] | None:
    """Return the CronWorkflow of a scheduled Workspace as a dict, None when there is no schedule."""
    schedule = plan.recipe.schedule
    if schedule is None:
        return None
    with _shell(
        CronWorkflow,
        plan,
        name=cron_name(plan.recipe.name),
        schedules=[schedule.cron],
        timezone=schedule.timezone,
        cron_suspend=schedule.suspend,
        concurrency_policy="Forbid",
        starting_deadline_seconds=3600,
        successful_jobs_history_limit=3,
        failed_jobs_history_limit=3,
    ) as cron:
        _fill(plan)
    body = cron.to_dict()
    body["spec"]["workflowMetadata"] = {"labels": _labels(plan)}  # Hera's goes on only after Argo has made it
    return checked(body)


def compile_cleanup(plan: Plan, run: str = "") -> dict[str, Any]:
    """Return the Workflow that gives back the nodes of all runs of a Workspace that goes, or of one ``run``."""
    name = release_name(run) if run else cleanup_name(plan.recipe.name, plan.recipe.uid)
    with _shell(Workflow, plan, name=name) as workflow:
        template(plan, plan.last)
    body = checked(workflow.to_dict())
    body["metadata"]["labels"][CLEANUP_LABEL] = ""
    body["spec"]["entrypoint"] = plan.last.verb
    del body["spec"]["onExit"]
    if not run:  # that of one run waits for the next one to end, or that one for it
        del body["spec"]["synchronization"]
    request = body["spec"]["templates"][0]["inputs"]["artifacts"][0]["raw"]
    request["data"] = request["data"].replace('"run":"{{workflow.name}}"', f'"run":"{run}"')  # empty: of every run
    if run:  # there as long as that run's Workflow is: it is not made twice
        body["spec"]["ttlStrategy"] = {"secondsAfterCompletion": 8 * _DAY_SECONDS}
    return body


def _volumes(plan: Plan) -> list[m.Volume]:
    """Return the Workspace's own volumes, and the image that holds its weights.

    Raises:
        InvalidInput: a source is none that Kubernetes knows, or lacks a field.
    """
    volumes, errors = [], []
    for name, source in user_volumes(plan).items():
        try:
            volumes.append(m.Volume.model_validate({"name": name, **source}))
        except ValidationError as invalid:
            for error in invalid.errors():
                field = ".".join(map(str, ("tuning", name, "volumeSource", *error["loc"])))
                errors.append(FieldError(field, "InvalidValue", f"{error['msg']}.", "Write it as in a pod's volumes."))
    if errors:
        raise InvalidInput(plan.recipe.name, errors)
    return volumes


def _shell(kind: type[Workflow], plan: Plan, **options: Any) -> Workflow:  # noqa: ANN401  (Hera's keywords)
    recipe = plan.recipe
    return kind(
        namespace=recipe.namespace,
        entrypoint=ENTRYPOINT,
        on_exit=plan.last.verb,
        service_account_name=STEP_ACCOUNT,
        automount_service_account_token=False,  # Argo's own containers have one all the same
        executor=m.ExecutorConfig(service_account_name=STEP_ACCOUNT),
        synchronization=m.Synchronization(mutexes=[m.Mutex(name=f"kaiflow-{recipe.name}")]),  # one run at a time
        image_pull_secrets=[m.LocalObjectReference(name=s) for s in image_pull_secrets(plan)] or None,
        arguments=[
            Parameter(name="workdir", value="/work", description="Folder that the steps work in"),
            Parameter(name="store", value=plan.store, description="Where artifacts lie"),
            Parameter(name="target", value="cluster", description="cluster, or local on one's own machine"),
            Parameter(name="port", value="5000", description="Port of the inference server"),
            Parameter(
                name="stage",
                value=str(plan.stages_weights).lower(),
                description="Whether weights are copied into the store",
            ),
            Parameter(name="publish", value="true", description="Whether the image goes to its own registry"),
            Parameter(
                name="scheduled",
                value=str(kind is CronWorkflow).lower(),
                description="Whether the clock has started the run",
            ),
        ],
        volumes=_volumes(plan),
        labels=_labels(plan),
        annotations={
            "workflows.argoproj.io/title": recipe.name,
            "workflows.argoproj.io/description": f"{recipe.method} of {recipe.model.preset}, {recipe.revision}",
        },
        security_context=m.PodSecurityContext(
            run_as_non_root=True,
            run_as_user=65532,
            fs_group=65532,
            seccomp_profile=m.SeccompProfile(type="RuntimeDefault"),
        ),
        pod_gc=m.PodGC(strategy="OnPodSuccess"),
        ttl_strategy=m.TTLStrategy(seconds_after_success=_DAY_SECONDS, seconds_after_failure=7 * _DAY_SECONDS),
        **options,
    )


def _labels(plan: Plan) -> dict[str, str]:
    return {
        **MANAGED_BY,
        WORKSPACE_LABEL: plan.recipe.name,
        NAMESPACE_LABEL: plan.recipe.namespace,
        "kaiflow.dev/revision": plan.recipe.revision,
        **({UID_LABEL: plan.recipe.uid} if plan.recipe.uid else {}),  # a schedule's runs have the schedule for owner
        PROVISIONER_LABEL: plan.placement.nodes.provisioner,
    }


def _fill(plan: Plan) -> None:
    """Add templates and DAG to the Workflow whose context is open."""
    made: set[str] = set()
    for step in (*plan.steps, plan.last):
        if step.verb not in made:
            template(plan, step)
            made.add(step.verb)
    with DAG(name=ENTRYPOINT):
        for step in plan.steps:
            _task(step)


def _task(step: PlannedStep) -> Task:
    arguments = {i.name: f"{{{{tasks.{i.step}.outputs.parameters.{i.output}}}}}" for i in step.inputs}
    return Task(
        name=step.name,
        template=step.verb,
        depends=" && ".join(f"{verb}.Succeeded" for verb in step.after) or None,
        when=CHANGED if step.after == ("fetch",) else None,
        arguments=[Parameter(name=name, value=value) for name, value in arguments.items()],
    )


def checked(workflow: dict[str, Any]) -> dict[str, Any]:
    """Return the Workflow when Argo's own naming rules hold.

    Hera adds two templates of one name silently; Argo refuses them when the Workflow is submitted.

    Raises:
        ConfigError: a name is taken twice or malformed.
    """
    spec = workflow["spec"].get("workflowSpec", workflow["spec"])
    names = [t["name"] for t in spec["templates"]]
    tasks = [task["name"] for t in spec["templates"] for task in t.get("dag", {}).get("tasks", [])]
    for group in (names, tasks):
        twice = sorted({name for name in group if group.count(name) > 1})
        wrong = [name for name in group if not _NAME.fullmatch(name) or len(name) > 63]
        if twice or wrong:
            raise ConfigError(
                "WorkflowInvalid", f"Argo refuses these names: {', '.join(twice + wrong)}.", fix="Report this as a bug."
            )
    limit = CRON_NAME_MAX if workflow["kind"] == "CronWorkflow" else 63
    if len(workflow["metadata"]["name"]) > limit:
        raise ConfigError(
            "WorkflowInvalid", "The Workspace's name is too long.", fix=f"Use {limit} characters at most."
        )
    return workflow
