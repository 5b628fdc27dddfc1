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


def _integer(words: str) -> dict[str, Any]:
    return {"type": "integer", "format": "int64", "description": words}


def _yes(words: str) -> dict[str, Any]:
    return {"type": "boolean", "description": words}


def _list(words: str, items: dict[str, Any]) -> dict[str, Any]:
    return {"type": "array", "description": words, "items": items}


def _range(words: str) -> dict[str, Any]:
    return _object(words, low=_number("At least."), high=_number("At most."))


_CONDITION = {
    **_object(
        "One condition, as metav1.Condition.",
        type={**_text("Kind of the condition, CamelCase."), "maxLength": 316},
        status={**_text("True, False or Unknown."), "enum": ["True", "False", "Unknown"]},
        reason={**_text("Why, one word in CamelCase."), "minLength": 1, "maxLength": 1024},
        message={**_text("Why, for people."), "maxLength": 32768},
        observedGeneration=_integer("The generation that it is of."),
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
        reused=_yes("Whether its result was there already."),
    ),
    "required": ["name", "phase"],
}

_PROVISION = _object(
    "On which machine the run is, or which is tried, and which attempts gave none.",
    instanceType=_text("The machine that was got."),
    attempt=_text("The attempt that is made: machine, spot, zone."),
    waitsFor=_text("What that attempt waits for."),
    refused=_list(
        "Attempts that gave no node.",
        _object(
            "One attempt.",
            attempt=_text("Machine, spot, zone."),
            reason=_text("Why it gave no node, one word."),
            message=_text("Why, in the cloud's words."),
        ),
    ),
)

PLAN = _object(
    "What was planned, before anything was spent.",
    model=_object(
        "The base model.",
        preset=_text("Its name."),
        huggingFaceId=_text("Its name on the hub."),
        revision=_text("The revision that is taken from there."),
        image=_text("The image that holds its weights, where one is named."),
    ),
    trainingSteps=_integer("Steps of the training, where their number is fixed."),
    machine=_object(
        "The machine: the one that is named, or the cheapest that fits.",
        name=_text("Name of the machine."),
        named=_yes("Whether the Workspace names it."),
        gpu=_text("Its card."),
        gpus=_integer("How many cards it has."),
        memoryBytes=_integer("Memory of a card."),
        price=_object(
            "What it costs.",
            usdPerHour=_number("US dollars an hour."),
            region=_text("Where."),
            source=_text("Who says so."),
            date=_text("When they said so."),
        ),
    ),
    attempts=_list(
        "Ways to get a node, in the order in which they are tried.",
        _object(
            "One way.",
            instanceType=_text("The machine; empty: any, of nodes that are given."),
            zone=_text("The zone; left out: any."),
            spot=_yes("Whether as spot."),
        ),
    ),
    images=_object(
        "The images of the pods.",
        step=_text("Of the steps."),
        tune=_text("Of the training."),
        serve=_text("Of the server."),
    ),
    memoryBytes=_object(
        "The memory of a card that the training takes, by cause.",
        weights=_integer("The frozen base."),
        embeddings=_integer("Its embeddings."),
        adapter=_integer("The adapter, its gradients and its optimiser."),
        activations=_integer("What the backward pass needs of the forward pass."),
        logits=_integer("Scores of the vocabulary."),
        dequantised=_integer("The weights that are dequantised at a time."),
        context=_integer("The libraries."),
        total=_integer("All of it."),
    ),
    stepCut=_object(
        "How a step is cut so that it fits.",
        packs=_integer("Packs of rows at a time."),
        accumulationSteps=_integer("Parts of a step."),
        recomputeEvery=_integer("Of so many layers one is computed again; 0: none."),
        dequantiseOnce=_yes("Whether four-bit weights are dequantised once."),
    ),
    estimate=_object(
        "How long and how much, as ranges.",
        tokens=_integer("Tokens that are trained on."),
        tokensPerSecond=_range("Tokens a second."),
        hours=_range("Hours of the node."),
        usd=_range("US dollars, where there is a price."),
        assumptions=_list("What is assumed.", {"type": "string"}),
    ),
    values=_list("What is no default, and who has set it.", {"type": "string"}),
    refused=_object(
        "Why there is no plan.",
        reason=_text("One word."),
        message=_text("For people."),
        fix=_text("What to do."),
    ),
)

_TRAINING = _object(
    "The training, as its log and its result tell it.",
    loss=_number("The newest training loss."),
    tokensPerSecond=_number("Tokens of the rows a second."),
    etaSeconds=_integer("What is left, while it trains."),
    baseEvalLoss=_number("Held-out loss of the base."),
    evalLoss=_number("Held-out loss of the tuned model."),
    steps=_text("Steps done, of all: N/M."),
    stepCut=_text("How its step is cut: what memory has asked for."),
)

_RUN = {
    **_object(
        "One run.",
        name=_text("Name of its Argo Workflow."),
        phase=_text("Pending, Running, Succeeded, Failed or Error."),
        revision=_text("The revision of the Workspace that it ran."),
        scheduled=_yes("Whether the schedule has started it."),
        reason=_text("Why it failed, or that it found nothing new; one word."),
        startedAt=_time("When it began."),
        finishedAt=_time("When it ended."),
        digest=_text("Digest of its image."),
        baseEvalLoss=_number("Held-out loss of the base."),
        evalLoss=_number("Held-out loss of the tuned model."),
        gate=_text("The gate's verdict: passed, warned, refused, off."),
        nodeSeconds=_number("Seconds that its node was held, where one was made."),
        usd=_number("What that has cost at the table's price, where there is one."),
    ),
    "required": ["name", "phase"],
}

STATUS: dict[str, Any] = _object(
    "What has come of it, as observed.",
    observedGeneration=_integer("The generation that the status is of."),
    state=_text("Pending, Running, Succeeded, Ready or Failed."),
    step=_text("The step that is at work."),
    progress=_text("Steps done, of all."),
    workflow=_text("Name of the Argo Workflow of the newest run."),
    steps=_list("The steps of the newest run, in their order.", _STEP),
    conditions={
        "type": "array", "description": "Conditions, one a type.", "items": _CONDITION,
        "x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["type"],
    },
    workerNodes=_list("Nodes of the run.", {"type": "string"}),
    targetNodeCount=_integer("How many nodes the Workspace asks for."),
    provision=_PROVISION,
    plan=PLAN,
    training=_TRAINING,
    output=_object("The adapter.", image=_text("Reference of the image."), digest=_text("Digest of the image.")),
    endpoint=_text("Where the tuned model answers."),
    cost=_object(
        "What the node of the run has cost, once it is given back.",
        nodeSeconds=_number("Seconds from the asking for it to its giving back."),
        usd=_number("At the table's price, where there is one."),
    ),
    runs=_list("The newest runs, oldest first.", _RUN),
)  # fmt: skip
