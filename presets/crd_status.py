"""The schema of a Workspace's status: what the mirror writes, each field with its words."""

from typing import Any


def _text(words: str) -> dict[str, Any]:
    return {"type": "string", "description": words}


def _number(words: str) -> dict[str, Any]:
    return {"type": "number", "description": words}


def _time(words: str) -> dict[str, Any]:
    return {"type": "string", "format": "date-time", "description": words}


def _object(words: str, **properties: Any) -> dict[str, Any]:  # noqa: ANN401  (schemas)
    return {"type": "object", "description": words, "properties": properties}


def _open(words: str) -> dict[str, Any]:
    return {"type": "object", "description": words, "x-kubernetes-preserve-unknown-fields": True}


_CONDITION = {
    **_object(
        "One condition, as metav1.Condition.",
        type={**_text("Kind of the condition, CamelCase."), "maxLength": 316},
        status={**_text("True, False or Unknown."), "enum": ["True", "False", "Unknown"]},
        reason={**_text("Why, one word in CamelCase."), "minLength": 1, "maxLength": 1024},
        message={**_text("Why, for people."), "maxLength": 32768},
        observedGeneration={"type": "integer", "format": "int64", "description": "The generation that it is of."},
        lastTransitionTime=_time("When the status changed last."),
    ),
    "required": ["type", "status", "reason", "message", "lastTransitionTime"],
}

_STEP = {
    **_object(
        "One step of the run.",
        name=_text("Name of the step."),
        phase=_text("Pending, Running, Succeeded, Failed, Error, Skipped or Omitted."),
        startedAt=_time("When it began."),
        finishedAt=_time("When it ended."),
        progress=_text("Units done, of all: N/M."),
        message=_text("What it says of itself."),
        reused={"type": "boolean", "description": "Whether its result was there already."},
    ),
    "required": ["name", "phase"],
}

STATUS: dict[str, Any] = _object(
    "What has come of it, as observed.",
    observedGeneration={"type": "integer", "format": "int64", "description": "The generation that the status is of."},
    state=_text("Pending, Running, Succeeded, Ready or Failed."),
    step=_text("The step that is at work."),
    progress=_text("Steps done, of all."),
    workflow=_text("Name of the Argo Workflow of the newest run."),
    steps={"type": "array", "description": "The steps of the newest run, in their order.", "items": _STEP},
    conditions={
        "type": "array", "description": "Conditions, one a type.", "items": _CONDITION,
        "x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["type"],
    },
    workerNodes={"type": "array", "description": "Nodes of the run.", "items": {"type": "string"}},
    provision=_open("On which machine the run is, and which attempts gave none."),
    plan=_open("What was planned: machine, memory by cause, hours and dollars as ranges."),
    training=_open("The training: loss, tokens a second, what is left, how its step is cut, held-out losses."),
    output=_object("The adapter.", image=_text("Reference of the image."), digest=_text("Digest of the image.")),
    endpoint=_text("Where the tuned model answers."),
    cost=_object(
        "What the node of the run has cost, once it is given back.",
        nodeSeconds=_number("Seconds from the asking for it to its giving back."),
        usd=_number("At the table's price, where there is one."),
    ),
    runs={"type": "array", "description": "The newest runs.", "items": _open("One run.")},
)  # fmt: skip
