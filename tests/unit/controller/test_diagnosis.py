"""What Kubernetes and Argo say, in our reasons; what a step says itself stands above it."""

import pytest

from controller.failure import explain

SAID = {
    "OOMKilled (exit code 137)": "ContainerOOMKilled",
    "Unschedulable: 0/3 nodes are available: 3 Insufficient nvidia.com/gpu.": "Unschedulable",
    'ImagePullBackOff: Back-off pulling image "ghcr.io/kaiflow/tune:0.1.0"': "ImagePullError",
    'CreateContainerConfigError: secret "x" not found': "ContainerStartError",
    "The node was low on resource: ephemeral-storage.": "PodEvicted",
    "pod deleted": "NodeLost",
    "Pod was terminated in response to imminent node shutdown.": "NodeLost",
    "Pod was active on the node longer than the specified deadline": "DeadlineExceeded",
    "workflow shutdown with strategy:  Stop": "Stopped",
    "Stopped with strategy 'Terminate'": "Stopped",
    "main: Error (exit code 65): TooManyBadRows: 3 of 4 rows. Fix: Mend them.": "TooManyBadRows",
    "main: Error (exit code 69): QuotaExceeded: pod deleted by quota. Fix: Ask for more.": "QuotaExceeded",
    "main: Error (exit code 1)": "StepFailed",
}


@pytest.mark.parametrize("message", SAID)
def test_a_message_has_a_reason_and_a_remedy(message):
    found = explain("tune", message)
    assert found.reason == SAID[message]
    assert found.fix
