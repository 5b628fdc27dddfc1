"""One Argo template per step: a container that runs ``python -m steps.main``, told by a raw artifact.

Container templates only: Argo's ``resource`` templates cannot wait on conditions and cannot run on a laptop.
The work directory is a parameter, so that the very same template runs where nothing is mounted.
"""

import json

from hera.workflows import (
    Container,
    EmptyDirVolume,
    Env,
    Parameter,
    RawArtifact,
    Resources,
    RetryStrategy,
    SecretEnv,
    SecretVolume,
)
from hera.workflows import models as m

from pipelines.names import INFRASTRUCTURE_ACCOUNT
from pipelines.plan import Plan, PlannedStep, node_labels, request_json, user_volumes
from pipelines.volumes import INPUT_VOLUME, MOUNTS, OUTPUT_VOLUME, WEIGHTS_VOLUME
from presets.node_request import NodeRequest
from presets.provisioners import END_SECONDS
from presets.serving_place import GPU_TOLERATIONS
from presets.workspace import QUEUE_LABEL
from steps.contract import (
    METRICS_PORT,
    METRICS_PORT_NAME,
    OUTPUTS,
    OUTPUTS_FOLDER,
    REQUEST_FILE,
    RUN_LABEL,
    WORKSPACE_LABEL,
    Verb,
)
from steps.docker_config import MOUNTED_CONFIG, PULL_SECRETS

WORKDIR = "{{workflow.parameters.workdir}}"
REGISTRY_SECRET_FOLDER = str(MOUNTED_CONFIG.parent)
PULL_SECRETS_FOLDER = str(PULL_SECRETS)
# What passes by itself: a fault of Argo's or the node's, 75 (EX_TEMPFAIL), a signal; not the end of the step's own
# time, whose next try would take as long again, nor of its memory, which would be as small.
RETRY_EXPRESSION = (
    '(lastRetry.status == "Error" || asInt(lastRetry.exitCode) == 75 || asInt(lastRetry.exitCode) > 128'
    ' || lastRetry.message matches "node shutdown|pod deleted|Evicted|Preempt")'
    ' && !(lastRetry.message matches "DeadlineExceeded|longer than the specified deadline|OOMKilled")'
)
DEADLINE_SECONDS: dict[Verb, int] = {  # tune's is the budget's, provision's that of its attempts
    "fetch": 7200, "weights": 7200, "push": 3600, "deploy": 3600, "release": 1800,
}  # fmt: skip
PROVISION_SECONDS = 900  # beside its attempts: what earlier runs have left is removed first
GRACE_SECONDS: dict[Verb, int] = {"tune": 120}
DEFAULT_GRACE_SECONDS = 30
STORE_STEPS: tuple[Verb, ...] = ("fetch", "weights", "tune", "push", "deploy")  # the others see no registry
READERS: dict[str, tuple[Verb, ...]] = {INPUT_VOLUME: ("fetch",), WEIGHTS_VOLUME: ("tune", "deploy")}


INFRASTRUCTURE: tuple[Verb, ...] = ("provision", "deploy", "release")


def template(plan: Plan, step: PlannedStep) -> Container:
    """Return the Hera container template of one step."""
    recipe, images = plan.recipe, plan.placement.images
    folder = f"{WORKDIR}/{step.verb}"
    grace = GRACE_SECONDS.get(step.verb, DEFAULT_GRACE_SECONDS)
    return Container(
        name=step.verb,
        inputs=[
            *[Parameter(name=i.name) for i in step.inputs],
            RawArtifact(name="request", path=f"{folder}/{REQUEST_FILE}", data=request_json(plan, step)),
        ],
        outputs=[
            Parameter(name=name, value_from=m.ValueFrom(path=f"{folder}/{OUTPUTS_FOLDER}/{name}"))
            for name in OUTPUTS[step.verb]
        ],
        image=images.tune if step.on_gpu else images.step,
        image_pull_policy=images.pull_policy,
        service_account_name=INFRASTRUCTURE_ACCOUNT if step.verb in INFRASTRUCTURE else None,
        automount_service_account_token=step.verb in INFRASTRUCTURE,
        command=["python", "-m", "steps.main"],
        args=[step.verb, "--request", f"{folder}/{REQUEST_FILE}", "--work", folder],
        env=_environment(plan, step) or None,
        ports=[m.ContainerPort(name=METRICS_PORT_NAME, container_port=METRICS_PORT)] if step.on_gpu else None,
        active_deadline_seconds=_deadline_seconds(plan, step),
        retry_strategy=RetryStrategy(
            limit="3",
            retry_policy="Always",
            expression=RETRY_EXPRESSION,
            # No maxDuration: it counts from the first attempt's start, and would end retries of what trains for hours.
            backoff=m.Backoff(duration="5s", factor=m.IntOrString(root=2), cap="5m"),
        ),
        resources=_resources(plan, step),
        node_selector=_node_selector(plan.node) if step.on_gpu else None,
        tolerations=[m.Toleration.model_validate(t) for t in GPU_TOLERATIONS] if step.on_gpu else None,
        volumes=_volumes(plan, step),
        volume_mounts=[
            m.VolumeMount(name=name, mount_path=str(MOUNTS[name]), read_only=name != OUTPUT_VOLUME or None)
            for name in user_volumes(plan)
            if step.verb in READERS.get(name, STORE_STEPS)
        ],
        security_context=m.SecurityContext(
            allow_privilege_escalation=False,
            read_only_root_filesystem=True,
            run_as_non_root=True,
            capabilities=m.Capabilities(drop=["ALL"]),
        ),
        labels={
            **plan.placement.pod_labels,
            WORKSPACE_LABEL: recipe.name,
            "app.kubernetes.io/component": step.verb,
            **({QUEUE_LABEL: recipe.node.queue} if step.on_gpu and recipe.node.queue else {}),
        },
        pod_spec_patch=json.dumps({"terminationGracePeriodSeconds": grace}),
    )


def _deadline_seconds(plan: Plan, step: PlannedStep) -> int:
    if step.verb == "provision":
        return PROVISION_SECONDS + len(plan.node.attempts) * (plan.node.placement.wait_seconds + END_SECONDS)
    return DEADLINE_SECONDS.get(step.verb, plan.recipe.budget.deadline_seconds)


def _environment(plan: Plan, step: PlannedStep) -> list[Env | SecretEnv]:
    secret = plan.recipe.model.access_secret
    plain: list[Env | SecretEnv] = [Env(name=name, value=value) for name, value in plan.placement.environment.items()]
    if not secret or not (step.verb == "fetch" or _takes_weights(plan, step)):  # fetch: tokenizer, gated datasets
        return plain
    return [*plain, SecretEnv(name="HF_TOKEN", secret_name=secret, secret_key="HF_TOKEN", optional=True)]  # noqa: S106


def _resources(plan: Plan, step: PlannedStep) -> Resources:
    if step.on_gpu:
        # What the smallest GPU machines have room for, beside what the cluster itself runs there: 4 CPUs, 16 GiB.
        return Resources(cpu_request=2, memory_request="8Gi", gpus=plan.node.gpus)
    return Resources(cpu_request="500m", memory_request="1Gi")


def _node_selector(node: NodeRequest) -> dict[str, str]:
    """Return the labels of the run's own node; of a given one, those that the Workspace names."""
    own = {} if node.placement.provisioner == "byo" else {RUN_LABEL: "{{workflow.name}}"}
    return {**node_labels(node), **own}


def _volumes(plan: Plan, step: PlannedStep) -> list[EmptyDirVolume | SecretVolume]:
    recipe = plan.recipe
    volumes: list[EmptyDirVolume | SecretVolume] = [
        EmptyDirVolume(name="work", mount_path=WORKDIR),
        EmptyDirVolume(name="tmp", mount_path="/tmp"),  # noqa: S108  (a pod's own)
    ]
    if step.on_gpu and plan.node.gpus > 1:  # through which processes of one node exchange gradients; 64 MiB otherwise
        volumes.append(EmptyDirVolume(name="shm", mount_path="/dev/shm", medium="Memory"))  # noqa: S108
    secret = recipe.output.push_secret
    if secret and recipe.output.image and step.verb in STORE_STEPS:
        volumes.append(_docker_config("registry", secret, REGISTRY_SECRET_FOLDER))
    for index, pull_secret in enumerate(_pull_secrets(plan, step)):
        volumes.append(_docker_config(f"pull-{index}", pull_secret, f"{PULL_SECRETS_FOLDER}/{index}"))
    return volumes


def _pull_secrets(plan: Plan, step: PlannedStep) -> tuple[str, ...]:
    """Return the Secrets for the images that a step reads: the rows', or the weights'."""
    if step.verb == "fetch":
        return plan.recipe.data.pull_secrets
    return plan.recipe.model.pull_secrets if _takes_weights(plan, step) else ()


def _takes_weights(plan: Plan, step: PlannedStep) -> bool:
    """Whether the step may have to take the weights from where they come from."""
    return step.verb == "weights" or (step.verb == "tune" and not plan.stages_weights)


def _docker_config(name: str, secret: str, path: str) -> SecretVolume:
    """Return a Secret's docker config as a file; optional, so that the step itself can say that it is missing."""
    item = m.KeyToPath(key=".dockerconfigjson", path="config.json")
    return SecretVolume(name=name, secret_name=secret, mount_path=path, items=[item], optional=True, read_only=True)
