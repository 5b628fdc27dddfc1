"""Agent pools of AKS: the real SDK over TLS against a small ARM, its faults by name; restarts in the middle."""

import gc
import itertools
import json
import re
import time
from dataclasses import replace

import pytest
from azure.core.credentials import AccessToken, AccessTokenInfo
from azure.mgmt.containerservice import ContainerServiceClient

from presets.errors import ConfigError, NotPermittedError, TryAgainError, UnavailableError
from presets.node_request import AksCluster, NodeAttempt, NodePlacement, NodeRequest
from steps import node_provisioner, provision_aks
from steps.contract import Request, WorkspaceRef
from steps.node_claims import node_name, own_labels
from steps.node_orphans import held_nodes
from steps.node_provisioner import Clock, RefusedError
from steps.provision import give_back_of_earlier_runs, take_one
from steps.provision_aks import Aks
from steps.release import release
from tests.fake_arm import Answer, FakeArm, aks_error, arm_error
from tests.registries import certificate

A100 = NodeAttempt("Standard_NC24ads_A100_v4")
WORKSPACE = WorkspaceRef(name="tune", namespace="team", uid="u-1", revision="r1")
RUN = "tune-r1"
LABELS = own_labels(RUN, WORKSPACE)
# The SDK's own retries leave connections to whoever collects garbage.
pytestmark = pytest.mark.filterwarnings("ignore:unclosed <ssl.SSLSocket:ResourceWarning")
FAST = Clock(sleep=lambda _: None)
NAME = node_name(RUN, WORKSPACE, 0)
AKS = AksCluster("s", "team", "aks")
WANTED = NodeRequest(NodePlacement("aks", aks=AKS, wait_seconds=60), (A100,), 1, {"app": "tune"}, (), 160)


class Credential:
    """A token that the fake takes."""

    def get_token(self, *_scopes, **_options):
        return AccessToken("t", 9_999_999_999)

    def get_token_info(self, *_scopes, **_options):
        return AccessTokenInfo("t", 9_999_999_999)

    def close(self):
        """Nothing is open."""


class Nodes:
    """The cluster's nodes and deployments, as far as they are asked for."""

    def __init__(self):
        self.nodes, self.deployments, self.servers, self.gpus = [], [], [], "1"

    def appear(self, pool, properties):
        self.nodes.append({
            "metadata": {"name": f"aks-{pool}-12345678-vmss000000", "labels": properties["nodeLabels"]},
            "status": {
                "conditions": [{"type": "Ready", "status": "True"}], "allocatable": {"nvidia.com/gpu": self.gpus},
            },
        })  # fmt: skip

    def get(self, path):
        found = [o for o in self.deployments if path.endswith(f"/deployments/{o['metadata']['name']}")]
        return found[0] if found else None

    def list(self, path, labels=None, fields=None):
        objects = {"nodes": self.nodes, "pods": self.servers, "deployments": self.deployments}[path.split("/")[-1]]
        return [o for o in objects if (labels or {}).items() <= (o["metadata"].get("labels") or {}).items()]


@pytest.fixture(scope="module")
def tls(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tls")
    return certificate(folder), folder / "key.pem"


@pytest.fixture
def arm(tls, monkeypatch):
    for module in (node_provisioner, provision_aks):
        monkeypatch.setattr(module, "POLL_SECONDS", 0.01)
    with FakeArm().serving(*tls) as found:
        yield found


@pytest.fixture
def nodes(arm):
    found = Nodes()
    arm.on_ready = found.appear
    return found


@pytest.fixture
def maker(arm, tls, nodes, tmp_path):
    clients = []

    def made(wanted=WANTED, tokens=tmp_path):
        client = ContainerServiceClient(
            Credential(), "s", base_url=arm.url, connection_verify=str(tls[0]), credential_scopes=["x"],
            retry_backoff_factor=0.01,
        )  # fmt: skip
        clients.append(client)
        return Aks(wanted, wanted.placement.aks or AKS, client, nodes, Clock(sleep=lambda _: None), tokens)

    yield made
    for client in clients:
        client.close()
    gc.collect()  # while what the SDK leaves open is not minded


def taken(maker, attempt=A100, name=NAME):
    return maker.take(attempt, name, LABELS, lambda said: None)


def request(wanted=WANTED, **inputs):
    from dataclasses import asdict

    return Request(
        verb="provision", workspace=WORKSPACE, store="x", target="cluster", recipe={"node": asdict(wanted)},
        inputs={"run": RUN, **inputs},
    )  # fmt: skip


def test_a_pool_of_one_node_is_made_as_kaito_makes_it(arm, maker):
    assert taken(maker()) == f"aks-{NAME}-12345678-vmss000000"
    assert re.fullmatch(r"[a-z][a-z0-9]{0,11}", NAME)
    asked = arm.pools[NAME]["properties"]
    assert (asked["count"], asked["vmSize"], asked["mode"], asked["osDiskSizeGB"]) == (
        1,
        A100.instance_type,
        "User",
        160,
    )
    assert asked["nodeLabels"] == {"app": "tune", **LABELS}
    # KAITO's gpu-provisioner, beside us, deletes pools with these labels and no NodeClaim of their name.
    assert not {"kaito.sh/workspace", "karpenter.sh/nodepool"} & set(asked["nodeLabels"])
    assert asked["nodeTaints"] == ["sku=gpu:NoSchedule"]
    assert asked["gpuProfile"] == {"driver": "Install"}
    assert "/" not in "".join(asked["tags"])


def test_spot_zone_driver_and_bounds_are_passed_on(arm, maker):
    aks = replace(AKS, gpu_driver="None", autoscale=True)
    taken(
        maker(replace(WANTED, placement=replace(WANTED.placement, aks=aks))), NodeAttempt("Standard_X", "2", spot=True)
    )
    asked = arm.pools[NAME]["properties"]
    assert (asked["scaleSetPriority"], asked["scaleSetEvictionPolicy"], asked["spotMaxPrice"]) == ("Spot", "Delete", -1)
    assert asked["availabilityZones"] == ["2"]
    assert (asked["enableAutoScaling"], asked["minCount"], asked["maxCount"]) == (True, 0, 1)
    assert asked["gpuProfile"] == {"driver": "None"}


def quota(required=24):
    return {
        "code": "InvalidTemplateDeployment",
        "message": "The template deployment '2320693c' is not valid according to the validation procedure.",
        "details": [{
            "code": "QuotaExceeded",
            "message": "Operation could not be completed as it results in exceeding approved standardNCADSA100v4Family"
            f" Cores quota. Additional details - Location: eastus, Current Limit: 0, Additional Required: {required}.",
        }],
    }  # fmt: skip


SKU = "is currently not available in location 'eastus'. Please try another size or deploy to a different location."
OPERATION_ERRORS = {  # what -> (code, message, our reason, whether it may be otherwise elsewhere)
    "the size is not to be had": ("SkuNotAvailable", f"The requested VM size {SKU}", "SkuNotAvailable", True),
    "no capacity in the region": ("AllocationFailed", "Allocation failed.", "InsufficientCapacity", True),
    "no capacity in the zone": ("ZonalAllocationFailed", "no capacity", "InsufficientCapacity", True),
    "too many wishes": ("OverconstrainedAllocationRequest", "constraints", "InsufficientCapacity", True),
    "the node does not boot": ("VMExtensionProvisioningError", "'vmssCSE' exit status=84", "NodeBootFailed", True),
    "somebody cancels it": ("Canceled", "The operation was canceled", "NodeCanceled", True),
    "the subnet is full": ("SubnetIsFull", "Subnet is full", "InvalidNodeParameters", False),
    "a policy forbids it": ("RequestDisallowedByPolicy", "by policy 'x'", "InvalidNodeParameters", False),
    "words nobody knows": ("Weird", "weird words", "Weird", True),
    "spot quota": ("OperationNotAllowed", "exceeding approved LowPriorityCores quota.", "QuotaExceeded", True),
}


def test_quota_is_found_two_levels_down(arm, maker):
    arm.operation_fault = lambda verb, properties: quota() if verb == "Create" else None
    with pytest.raises(RefusedError) as refused:
        taken(maker())
    assert refused.value.refusal.reason == "QuotaExceeded"
    assert "Current Limit: 0" in refused.value.refusal.message


@pytest.mark.parametrize("what", OPERATION_ERRORS)
def test_an_operation_that_fails_is_classified(arm, maker, what):
    code, message, reason, elsewhere = OPERATION_ERRORS[what]
    arm.operation_fault = lambda verb, _: {"code": code, "message": message} if verb == "Create" else None
    with pytest.raises(RefusedError) as refused:
        taken(maker())
    found = refused.value.refusal
    assert (found.reason, found.elsewhere) == (reason, elsewhere)
    assert found.fix


ANSWERS = {
    "not authorised": (
        Answer(403, arm_error("AuthorizationFailed", "The client 'x' does not have authorization to perform action")),
        "NotAuthorized", False,
    ),
    "a size that the subscription may not have": (
        Answer(400, aks_error("BadRequest", "The VM size of X is not allowed in your subscription in location 'eastus'."
                              " See https://aka.ms/aks/quotas-skus-regions", "VMSizeNotAllowed")),
        "SkuNotAvailable", True,
    ),
    "too few cores left": (
        Answer(400, aks_error("ErrCode_InsufficientVCPUQuota", "Insufficient vcpu quota requested 24, remaining 0")),
        "QuotaExceeded", True,
    ),
    "a bad parameter": (Answer(400, aks_error("InvalidParameter", "x is invalid.")), "InvalidNodeParameters", False),
    "no such cluster": (Answer(404, arm_error("ParentResourceNotFound", "not found")), "ClusterNotFound", False),
    "a token that is not taken": (
        Answer(401, arm_error("InvalidAuthenticationToken", "The access token is invalid.")), "NotAuthorized", False,
    ),
}  # fmt: skip


@pytest.mark.parametrize("what", ANSWERS)
def test_a_request_that_is_refused_is_classified(arm, maker, what):
    answer, reason, elsewhere = ANSWERS[what]
    arm.fault = lambda asked: answer if asked.method == "PUT" else None
    with pytest.raises(RefusedError) as refused:
        taken(maker())
    assert (refused.value.refusal.reason, refused.value.refusal.elsewhere) == (reason, elsewhere)


def test_too_many_requests_are_sent_again_when_the_service_says(arm, maker):
    slow_down = Answer(429, arm_error("TooManyRequests", "throttled"), {"Retry-After": "1"})
    times = []

    def throttled(asked):
        times.extend([time.monotonic()] if asked.method == "PUT" else [])
        return slow_down if asked.method == "PUT" and asked.number <= 2 else None

    arm.fault = throttled
    assert taken(maker())
    assert len(times) == 3
    assert all(later - earlier >= 1 for earlier, later in itertools.pairwise(times))  # not before it says


def test_a_service_that_stumbles_is_asked_again(arm, maker):
    arm.fault = lambda asked: Answer(503, arm_error("ServerBusy", "")) if asked.number <= 1 else None
    assert taken(maker())


def test_two_tries_of_one_run_make_one_pool(arm, maker):
    first = taken(maker())
    assert taken(maker()) == first
    assert list(arm.pools) == [NAME]


class Killed(BaseException):
    """The process ends here."""


@pytest.mark.parametrize("token_lost", [False, True])
def test_a_restart_in_the_middle_goes_on_with_the_operation(arm, maker, tmp_path, token_lost):
    killing = maker()
    arm.stuck = True
    original = Aks._write_token

    def writes_and_dies(self, name, token):
        original(self, name, token)
        raise Killed

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Aks, "_write_token", writes_and_dies)
        with pytest.raises(Killed):
            taken(killing)
    token = tmp_path / f"{NAME}.operation.json"
    assert token.exists()
    if token_lost:
        token.unlink()
    arm.stuck = False
    if token_lost:  # nobody polls the operation any more: the service ends it by itself
        (operation,) = arm._operations
        for _ in range(3):
            arm._poll(operation)
    assert taken(maker()).startswith(f"aks-{NAME}-")
    assert [method for method, _ in arm.asked].count("PUT") == (2 if token_lost else 1)
    assert not token.exists()


def test_a_pool_that_failed_while_nobody_looked_says_why(arm, maker):
    arm.operation_fault = lambda verb, properties: quota() if verb == "Create" else None
    with pytest.raises(RefusedError):
        taken(maker(tokens=None))
    with pytest.raises(RefusedError) as refused:  # the pool is there, Failed: its own status tells
        taken(maker(tokens=None))
    assert refused.value.refusal.reason == "QuotaExceeded"


def test_a_pool_that_is_never_made_is_given_up_in_time(arm, maker):
    arm.stuck = True
    ticks = iter(range(0, 10_000, 20))
    wanted = replace(WANTED, placement=replace(WANTED.placement, wait_seconds=1))
    impatient = maker(wanted)
    impatient._clock = Clock(now=lambda: float(next(ticks)), sleep=lambda _: None)
    with pytest.raises(RefusedError) as refused:
        taken(impatient)
    assert refused.value.refusal.reason == "NodeTimeout"


def test_a_node_without_the_device_plugin_says_so(maker, nodes):
    nodes.gpus = "0"
    ticks = iter(range(0, 10_000, 20))
    without = maker()
    without._clock = Clock(now=lambda: float(next(ticks)), sleep=lambda _: None)
    with pytest.raises(RefusedError) as refused:
        taken(without)
    assert refused.value.refusal.reason == "GpuPluginMissing"
    assert not refused.value.refusal.elsewhere


def test_the_next_attempt_is_made_after_the_failed_pool_is_gone(arm, maker, tmp_path):
    attempts = (NodeAttempt(A100.instance_type, spot=True), A100)
    wanted = replace(WANTED, attempts=attempts)

    def no_spot(verb, properties):
        spot = properties.get("scaleSetPriority") == "Spot"
        return {"code": "AllocationFailed", "message": "no capacity"} if spot and verb == "Create" else None

    arm.operation_fault = no_spot
    node, attempt, refusals = take_one(request(wanted), wanted, maker(wanted), tmp_path, FAST)
    assert (attempt, [a.spot for a, _ in refusals]) == (A100, [True])
    assert list(arm.pools) == [node_name(RUN, WORKSPACE, 1)]
    assert node.startswith(f"aks-{node_name(RUN, WORKSPACE, 1)}-")


def test_when_no_attempt_gives_a_node_each_is_named_and_nothing_is_left(arm, maker, tmp_path):
    wanted = replace(WANTED, attempts=(A100, NodeAttempt("Standard_NC40ads_H100_v5")))
    arm.operation_fault = lambda verb, properties: quota() if verb == "Create" else None
    with pytest.raises(UnavailableError) as failed:
        take_one(request(wanted), wanted, maker(wanted), tmp_path, FAST)
    assert failed.value.reason == "QuotaExceeded"
    assert "2 attempts" in failed.value.message
    assert "Standard_NC40ads_H100_v5: QuotaExceeded" in failed.value.message
    assert arm.pools == {}


def test_what_no_other_machine_would_mend_ends_the_attempts(arm, maker, tmp_path):
    wanted = replace(WANTED, attempts=(A100, NodeAttempt("Standard_NC40ads_H100_v5")))
    arm.fault = lambda asked: ANSWERS["not authorised"][0] if asked.method == "PUT" else None
    with pytest.raises(UnavailableError):
        take_one(request(wanted), wanted, maker(wanted), tmp_path, FAST)
    assert {pool for method, pool in arm.asked if method == "PUT"} == {NAME}


def test_a_step_that_is_tried_again_skips_what_has_been_refused(arm, maker, tmp_path):
    wanted = replace(WANTED, attempts=(A100, NodeAttempt("Standard_NC40ads_H100_v5")))
    arm.operation_fault = lambda verb, properties: (
        {"code": "SkuNotAvailable", "message": SKU} if verb == "Create" and "A100" in properties["vmSize"] else None
    )
    take_one(request(wanted), wanted, maker(wanted), tmp_path, FAST)
    before = len(arm.asked)
    _, attempt, refusals = take_one(request(wanted), wanted, maker(wanted), tmp_path, FAST)
    assert (attempt.instance_type, len(refusals)) == ("Standard_NC40ads_H100_v5", 1)
    assert not [pool for method, pool in arm.asked[before:] if pool == NAME and method == "PUT"]


def test_release_deletes_the_runs_pool_and_no_other(arm, maker, nodes):
    taken(maker())
    other = own_labels("another-run", WORKSPACE)
    maker().take(A100, "kfother00000", other, lambda said: None)
    arm.pools["given"] = {"properties": {"nodeLabels": {"app": "tune"}, "vmSize": "x"}, "eTag": "1"}
    assert release(request(), maker(), nodes, Clock(sleep=lambda _: None)) == f"{NAME} gone"
    assert set(arm.pools) == {"given", "kfother00000"}
    assert release(request(), maker(), nodes, Clock(sleep=lambda _: None)) == "nothing was held"


def serving_on(run, available=1):
    """A Deployment of one pod, bound to a run's node, or to none."""
    moved = {"type": "Progressing", "reason": "NewReplicaSetAvailable", "lastUpdateTime": "2026-11-20T00:00:00Z"}
    return {
        "metadata": {"name": "tune", "labels": {"kaito.sh/workspace": "tune"}, "generation": 2},
        "spec": {"replicas": 1, "template": {"spec": {"nodeSelector": {"kaiflow.dev/run": run} if run else {}}}},
        "status": {
            "observedGeneration": 2,
            "replicas": 1,
            "updatedReplicas": 1,
            "availableReplicas": available,
            "conditions": [moved] if available else [],
        },
    }


def server(run, *, ready):
    """A pod of the Deployment, of its template of that run."""
    return {
        "metadata": {"labels": {"kaito.sh/workspace": "tune", "app.kubernetes.io/component": "server"}},
        "spec": {"nodeSelector": {"kaiflow.dev/run": run}},
        "status": {"conditions": [{"type": "Ready", "status": str(ready)}]},
    }


def test_where_the_new_server_does_not_come_up_its_node_goes_and_the_one_that_serves_stays(arm, maker, nodes, days):
    pools_of_runs(arm, maker, "tune-r0", RUN)
    nodes.deployments = [serving_on(RUN, available=0)]
    nodes.servers = [server("tune-r0", ready=True), server(RUN, ready=False)]
    assert {h.node.name for h in held_nodes(maker(), nodes) if h.orphan} == {NAME}
    assert release(request(), maker(), nodes, Clock(sleep=lambda _: None)) == f"{NAME} gone"
    give_back_of_earlier_runs(request(run="tune-r2"), maker(), nodes, FAST)
    assert set(arm.pools) == {node_name("tune-r0", WORKSPACE, 0)}


def test_while_servers_move_both_nodes_are_needed(arm, maker, nodes, days):
    pools_of_runs(arm, maker, "tune-r0", RUN)
    nodes.deployments = [serving_on(RUN, available=0)]
    nodes.servers = [server("tune-r0", ready=True), server(RUN, ready=True)]
    give_back_of_earlier_runs(request(run="tune-r2"), maker(), nodes, FAST)
    assert len(arm.pools) == 2
    nodes.servers[0]["metadata"]["deletionTimestamp"] = "2026-11-20T00:00:00Z"
    give_back_of_earlier_runs(request(run="tune-r2"), maker(), nodes, FAST)
    assert set(arm.pools) == {NAME}


def test_release_keeps_a_node_that_serves(arm, maker, nodes):
    taken(maker())
    nodes.deployments = [serving_on(RUN)]
    assert "kept: it serves" in release(request(), maker(), nodes, Clock(sleep=lambda _: None))
    assert list(arm.pools) == [NAME]


@pytest.fixture
def days(monkeypatch):
    """Every pool is made a day after the one before."""
    count = itertools.count(1)
    monkeypatch.setattr(provision_aks, "timestamp", lambda: f"2026-11-{next(count):02d}T00:00:00Z")


def pools_of_runs(arm, maker, *runs):
    for run in runs:
        labels = own_labels(run, WORKSPACE)
        maker().take(A100, node_name(run, WORKSPACE, 0), labels, lambda said: None)


def test_release_gives_back_what_the_server_before_was_on(arm, maker, nodes, days):
    pools_of_runs(arm, maker, "tune-r0", RUN, "tune-r2")
    nodes.deployments = [serving_on(RUN)]
    said = release(request(), maker(), nodes, Clock(sleep=lambda _: None))
    assert said == f"{node_name('tune-r0', WORKSPACE, 0)} gone; {NAME} kept: it serves"
    assert set(arm.pools) == {NAME, node_name("tune-r2", WORKSPACE, 0)}  # the younger is of a run that has followed


def test_release_keeps_the_node_before_until_all_servers_are_on_ours(arm, maker, nodes, days):
    pools_of_runs(arm, maker, "tune-r0", RUN)
    nodes.deployments = [serving_on(RUN, available=0)]
    assert release(request(), maker(), nodes, Clock(sleep=lambda _: None)) == f"{NAME} kept: it serves"
    assert len(arm.pools) == 2


def test_release_gives_back_what_the_server_before_was_on_once_it_serves_on_a_cpu(arm, maker, nodes, days):
    pools_of_runs(arm, maker, "tune-r0")
    nodes.deployments = [serving_on(None, available=0)]
    assert release(request(), maker(), nodes, Clock(sleep=lambda _: None)) == "nothing was held"
    nodes.deployments = [serving_on(None)]
    said = release(request(), maker(), nodes, Clock(sleep=lambda _: None))
    assert said == f"{node_name('tune-r0', WORKSPACE, 0)} gone"


def test_a_node_that_was_made_after_the_server_had_moved_is_of_a_run_that_has_followed(arm, maker, nodes, monkeypatch):
    monkeypatch.setattr(provision_aks, "timestamp", lambda: "2026-11-21T00:00:00Z")
    pools_of_runs(arm, maker, "tune-r2")
    nodes.deployments = [serving_on(None)]
    assert release(request(), maker(), nodes, Clock(sleep=lambda _: None)) == "nothing was held"
    assert len(arm.pools) == 1


def test_a_pool_that_does_not_tell_its_age_is_not_taken_for_an_older_one(arm, maker, nodes, days):
    pools_of_runs(arm, maker, "tune-r0", RUN)
    arm.pools[node_name("tune-r0", WORKSPACE, 0)]["properties"]["tags"] = {}
    nodes.deployments = [serving_on(RUN)]
    assert release(request(), maker(), nodes, Clock(sleep=lambda _: None)) == f"{NAME} kept: it serves"
    assert len(arm.pools) == 2


def test_release_waits_for_an_operation_that_is_still_running(arm, maker, nodes):
    arm.pools[NAME] = {
        "properties": {"nodeLabels": LABELS, "vmSize": "x", "provisioningState": "Creating"},
        "eTag": "1",
    }
    arm._launched("Create", NAME)
    (operation,) = arm._operations
    seen = []

    def ends_later(asked):
        seen.append(asked.method)
        if seen.count("GET") >= 3:
            arm._poll(operation)
        return

    arm.fault = ends_later
    assert release(request(), maker(), nodes, Clock(sleep=lambda _: None)) == f"{NAME} gone"
    assert arm.pools == {}


def test_pools_come_in_pages(arm, maker):
    for number in range(5):
        labels = {**LABELS, "n": str(number)}
        arm.pools[f"kf{number}"] = {"properties": {"nodeLabels": labels, "vmSize": "x"}, "eTag": "1"}
    assert [node.name for node in maker().own(LABELS)] == [f"kf{n}" for n in range(5)]


def test_a_pool_that_is_gone_is_no_error(arm, maker):
    maker().give_back("kfnothing000")
    assert arm.asked == [("DELETE", "kfnothing000")]


def forbidden(asked):
    """Refuse to make pools and to remove them, as an identity without its role is refused."""
    return ANSWERS["not authorised"][0] if asked.method in ("PUT", "DELETE") else None


def test_what_cannot_be_removed_either_does_not_hide_why_there_is_no_node(arm, maker, tmp_path):
    arm.fault = forbidden
    with pytest.raises(UnavailableError) as failed:
        take_one(request(), WANTED, maker(), tmp_path, FAST)
    assert failed.value.reason == "NotAuthorized"


def test_release_says_why_it_cannot_give_back(arm, maker, nodes):
    taken(maker())
    arm.fault = forbidden
    with pytest.raises(NotPermittedError) as failed:
        release(request(), maker(), nodes, Clock(sleep=lambda _: None))
    assert failed.value.reason == "NotAuthorized"
    assert list(arm.pools) == [NAME]


def test_what_cannot_be_given_back_keeps_no_other_from_it(arm, maker, nodes):
    for run in ("one", "two", "three"):
        maker().take(A100, f"kf{run}", own_labels(run, WORKSPACE), lambda said: None)
    arm.fault = lambda asked: forbidden(asked) if asked.pool == "kfone" else None
    with pytest.raises(NotPermittedError):
        release(request(run=""), maker(), nodes, FAST)
    assert list(arm.pools) == ["kfone"]


BUSY = Answer(503, arm_error("ServerBusy", "try later"))
FAULTS_OF_AZURE = {
    "the list is refused": ("GET", ANSWERS["not authorised"][0], NotPermittedError, "NotAuthorized"),
    "no cluster": ("GET", Answer(404, arm_error("ResourceGroupNotFound", "gone")), ConfigError, "ClusterNotFound"),
    "the list is busy": ("GET", BUSY, TryAgainError, "ServerBusy"),
    "deleting is busy": ("DELETE", BUSY, TryAgainError, "ServerBusy"),
    "throttled": ("DELETE", Answer(429, arm_error("TooManyRequests", "x")), TryAgainError, "TooManyRequests"),
}  # fmt: skip


@pytest.mark.parametrize("what", FAULTS_OF_AZURE)
def test_trouble_with_azure_is_tried_again_or_says_what_to_mend(arm, maker, nodes, what):
    taken(maker())
    method, answer, kind, reason = FAULTS_OF_AZURE[what]
    arm.fault = lambda asked: answer if asked.method == method else None
    with pytest.raises(kind) as failed:
        release(request(), maker(), nodes, FAST)
    assert failed.value.reason == reason
    assert failed.value.fix


def test_making_a_pool_while_azure_is_busy_is_tried_again_and_buys_no_other_machine(arm, maker, tmp_path):
    wanted = replace(WANTED, attempts=(A100, NodeAttempt("Standard_NC40ads_H100_v5")))
    arm.fault = lambda asked: BUSY if asked.method == "PUT" else None
    with pytest.raises(TryAgainError):
        take_one(request(wanted), wanted, maker(wanted), tmp_path, FAST)
    assert {pool for method, pool in arm.asked if method == "PUT"} == {NAME}


def test_azure_that_does_not_answer_is_tried_again(arm, maker, nodes):
    made = maker()
    made._pools._client._base_url = "https://127.0.0.1:9"
    for asks in (lambda: made.own({}), lambda: taken(made), lambda: made.give_back(NAME)):
        with pytest.raises(TryAgainError) as failed:
            asks()
        assert failed.value.reason == "AzureUnreachable"


@pytest.mark.parametrize(
    ("code", "message", "reason"),
    [
        ("OperationNotAllowed", "Operation could not be completed as it results in exceeding approved Total Regional"
         " Cores quota.", "QuotaExceeded"),
        ("SkuNotAvailable", SKU, "SkuNotAvailable"),
        ("OperationNotAllowed", "The cluster is stopped.", "OperationNotAllowed"),
    ],
    ids=["quota", "machine", "stopped"],
)  # fmt: skip
def test_a_conflict_that_is_no_other_operation_is_a_refusal_in_azures_words(arm, maker, code, message, reason):
    arm.fault = lambda asked: Answer(409, aks_error(code, message)) if asked.method == "PUT" else None
    with pytest.raises(RefusedError) as refused:
        taken(maker())
    assert refused.value.refusal.reason == reason
    assert message in refused.value.refusal.message
    assert [method for method, _ in arm.asked].count("PUT") == 1


@pytest.mark.parametrize("token", ["stale", "garbage"])
def test_a_token_that_is_of_no_use_any_more_is_dropped_and_the_pool_asked(arm, maker, tmp_path, token):
    made = maker()
    taken(made)
    kept = tmp_path / f"{NAME}.operation.json"
    if token == "garbage":
        kept.write_text(json.dumps({"token": "!!"}))
    else:
        poller = made._pools.begin_create_or_update(*made._at, "kfother", {"properties": {"nodeLabels": {}}})
        arm._operations.clear()  # the service knows an operation for a while only
        kept.write_text(json.dumps({"token": poller.continuation_token()}))
    assert taken(maker()).startswith(f"aks-{NAME}-")
    assert not kept.exists()


def test_a_pod_that_was_lost_during_an_attempt_leaves_one_node(arm, maker, tmp_path):
    """The folder of the step goes with its pod: what was tried is told by the pools that are there."""
    wanted = replace(WANTED, attempts=(NodeAttempt(A100.instance_type, spot=True), A100))

    def no_spot(verb, properties):
        spot = properties.get("scaleSetPriority") == "Spot" and verb == "Create"
        return {"code": "AllocationFailed", "message": "none"} if spot else None

    arm.operation_fault = no_spot
    take_one(request(wanted), wanted, maker(wanted), tmp_path, FAST)
    arm.operation_fault = lambda verb, properties: None  # spot is to be had again
    fresh = tmp_path / "another pod"
    fresh.mkdir()
    _, attempt, _ = take_one(request(wanted), wanted, maker(wanted, tokens=fresh), fresh, FAST)
    assert attempt == A100
    assert list(arm.pools) == [node_name(RUN, WORKSPACE, 1)]


def test_a_deletion_that_fails_is_said(arm, maker):
    taken(maker())
    arm.operation_fault = lambda verb, _: {"code": "AllocationFailed", "message": "x"} if verb == "Delete" else None
    with pytest.raises(TryAgainError):
        maker().give_back(NAME)
    arm.operation_fault = lambda verb, _: None
    maker().give_back(NAME)
    assert arm.pools == {}


def test_a_deletion_that_never_ends_is_left_to_another_try(arm, maker):
    made = maker(replace(WANTED, placement=replace(WANTED.placement, wait_seconds=1)))
    taken(made)
    arm.stuck = True
    with pytest.raises(TryAgainError, match="not gone yet"):
        made.give_back(NAME)
    arm.stuck = False
    made.give_back(NAME)
    assert arm.pools == {}


def busy_with_another(method, times):
    """Answer so often as AKS does while it is at another pool of the cluster, or at the cluster itself."""
    said = "Operation is not allowed: Another operation (Upgrade) is in progress on the managed cluster."

    def fault(asked):
        if asked.method == method and asked.number <= times:
            return Answer(409, aks_error("OperationNotAllowed", said, "AnotherOperationInProgress"))
        return None

    return fault


def test_another_operation_on_the_cluster_is_waited_for_before_a_pool_is_made(arm, maker):
    arm.fault = busy_with_another("PUT", 3)
    assert taken(maker())
    assert [method for method, _ in arm.asked].count("PUT") == 4


def test_another_operation_on_the_cluster_is_waited_for_before_a_pool_is_given_back(arm, maker):
    made = maker()
    taken(made)
    arm.fault = busy_with_another("DELETE", 3)
    made.give_back(NAME)
    assert arm.pools == {}


def test_a_cluster_that_is_always_at_something_else_is_said_and_tried_again(arm, maker):
    made = maker()
    taken(made)
    arm.fault = busy_with_another("DELETE", 10**6)
    seconds = itertools.count(0, 100)
    made._clock = Clock(now=lambda: next(seconds), sleep=lambda _: None)
    with pytest.raises(TryAgainError, match="in progress on the managed cluster"):
        made.give_back(NAME)
    assert NAME in arm.pools
