"""What Kubernetes and Argo say of a pod that does not run, or does no more: reason and remedy.  Pure.

The words are those of Argo 4.1 (``workflow/controller/operator.go``: the kubelet's reason, a colon, its message) and
of the kubelet. A step's own words, ``Reason: message. Fix: remedy.``, are read by ``controller.failure``.
"""

import re
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Diagnosis:
    """Why a pod does not run."""

    reason: str
    message: str
    fix: str


_KNOWN: tuple[tuple[str, str, str, str], ...] = (
    (r"OOMKilled", "ContainerOOMKilled", "{step} was ended because its memory was full.",
     "{memory}"),
    (r"Unschedulable", "Unschedulable", "No node takes {step}: {said}",
     "Look at the node's labels, taints and free GPUs: kubectl describe pod."),
    (r"ErrImagePull|ImagePullBackOff|InvalidImageName|ErrImageNeverPull", "ImagePullError",
     "The image of {step} cannot be pulled: {said}", "Check the images of kaiflow's chart and their pull secret."),
    (r"CreateContainer(Config)?Error|RunContainerError", "ContainerStartError",
     "The container of {step} cannot start: {said}", "Check what the message names: a Secret, a volume, a command."),
    (r"Evicted|[Ll]ow on resource|DiskPressure|MemoryPressure", "PodEvicted", "{step} was evicted: {said}",
     "Free the node's disk or memory; the step goes on from its checkpoint."),
    (r"node shutdown|pod deleted|Preempt|NodeLost", "NodeLost", "The node of {step} went away.",
     "Run it again: it goes on from its checkpoint. Spot nodes go away at any time."),
    (r"deadline", "DeadlineExceeded", "{step} did not end in time.",
     "Look at its log for what it waited for, then run it again: what is finished is kept."),
    (r"[Ww]orkflow shutdown|[Ss]topped with strategy|terminated|Terminate", "Stopped", "{step} was stopped.",
     "Run it again: finished steps are reused."),
)  # fmt: skip

_MEMORY = "Lower TrainingArguments.max_length, or name a machine with more memory."


def diagnose(step: str, node_message: str) -> Diagnosis | None:
    """Return what a node's message means, None where it says nothing that is known."""
    if not node_message:
        return None
    for pattern, reason, message, fix in _KNOWN:
        if re.search(pattern, node_message):
            said = node_message.strip().rstrip(".")
            memory = _MEMORY if step == "tune" else f"Give {step} a node with more free memory."
            return Diagnosis(reason, message.format(step=step, said=f"{said}."), fix.format(memory=memory))
    return None
