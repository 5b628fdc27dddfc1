"""Which machines are asked for, in which order, with how much disk."""

import pytest

from presets.catalogue import find_model
from presets.errors import ConfigError
from presets.gpus import skus
from presets.node_request import NodePlacement, disk_gib, node_request, require_attempts

KARPENTER = NodePlacement()


@pytest.fixture
def wanted(workspace, put, recipe_of):
    def of(placement=KARPENTER, annotations=None, **edits):
        document = workspace
        if annotations:
            put(document, "metadata.annotations", {f"kaiflow.dev/{key}": value for key, value in annotations.items()})
        for path, value in edits.items():
            put(document, path.replace("__", "."), value)
        recipe = recipe_of(document)
        return node_request(recipe, find_model(recipe.model.preset), placement, skus())

    return of


def test_the_machine_that_is_named_in_the_tables_own_spelling(wanted):
    assert [str(a) for a in wanted(resource__instanceType="STANDARD_nc24ADS_a100_V4").attempts] == [
        "Standard_NC24ads_A100_v4"
    ]


def test_a_machine_that_is_not_in_the_table_is_asked_for_as_it_is_written(wanted):
    found = wanted(resource__instanceType="Standard_Own_v9")
    assert ([str(a) for a in found.attempts], found.gpus) == (["Standard_Own_v9"], 1)


def test_the_cheapest_of_the_cloud_that_fits_where_none_is_named(wanted):
    azure, aws = wanted(resource__instanceType=...), wanted(NodePlacement(cloud="aws"), resource__instanceType=...)
    assert azure.attempts[0].instance_type.startswith("Standard_")
    assert aws.attempts[0].instance_type.startswith("g")


def test_where_nothing_is_known_to_fit_a_machine_must_be_named(wanted):
    unknown = wanted(resource__instanceType=..., tuning__preset__name="org/model-of-any-size")
    assert unknown.attempts == ()
    with pytest.raises(ConfigError, match="No machine is named"):
        require_attempts(unknown)


def test_spot_first_and_every_zone_before_the_next_machine(wanted):
    found = wanted(annotations={
        "fallback-instance-types": "Standard_NC40ads_H100_v5", "zones": "1, 2", "spot": "first",
    })  # fmt: skip
    assert [str(a) for a in found.attempts] == [
        f"{machine}{spot} zone {zone}"
        for machine in ("Standard_NC24ads_A100_v4", "Standard_NC40ads_H100_v5")
        for spot in (" spot", "")
        for zone in (1, 2)
    ]


def test_only_spot(wanted):
    assert [a.spot for a in wanted(annotations={"spot": "only"}).attempts] == [True]


def test_a_fallback_with_fewer_gpus_is_refused(wanted):
    edits = {"resource__instanceType": "Standard_NC48ads_A100_v4"}
    with pytest.raises(ConfigError, match="has 1 GPUs"):
        wanted(annotations={"fallback-instance-types": "Standard_NC24ads_A100_v4"}, **edits)


def test_a_fallback_that_the_training_does_not_fit_is_refused(wanted):
    with pytest.raises(ConfigError) as refused:
        wanted(
            annotations={"fallback-instance-types": "Standard_NC4as_T4_v3"},
            tuning__preset__name="qwen2.5-coder-32b-instruct",
        )
    assert refused.value.reason == "InsufficientMemory"


def test_where_no_machine_is_named_the_fallbacks_come_behind_the_cheapest(wanted):
    found = wanted(annotations={"fallback-instance-types": "Standard_NC40ads_H100_v5"}, resource__instanceType=...)
    machines = [attempt.instance_type for attempt in found.attempts]
    assert len(machines) == 2
    assert machines[1] == "Standard_NC40ads_H100_v5"


def test_given_nodes_are_matched_by_labels_and_the_machine_where_it_is_named(wanted):
    byo = NodePlacement("byo")
    assert [a.instance_type for a in wanted(byo).attempts] == ["Standard_NC24ads_A100_v4"]
    any_machine = wanted(byo, resource__instanceType=...)
    assert [a.instance_type for a in any_machine.attempts] == [""]
    assert any_machine.labels == {"app": "tune-phi-3"}
    require_attempts(any_machine)


def test_the_disk_has_room_for_the_weights_twice():
    small, large = find_model("phi-3-mini-4k-instruct"), find_model("falcon-40b")
    assert disk_gib(small) == 128
    assert disk_gib(large) > 250
    assert disk_gib(None) == 512


def test_more_ways_than_can_be_tried_are_refused(wanted):
    names = ",".join(f"Standard_Own_v{n}" for n in range(16))
    with pytest.raises(ConfigError, match="272 ways to get a node are asked for, and 64 are tried at most"):
        wanted(
            annotations={"fallback-instance-types": names, "zones": ",".join("123456789abcdefg"[:8]), "spot": "first"}
        )


def test_a_list_has_an_end(wanted):
    with pytest.raises(ValueError, match="16 at most"):
        wanted(annotations={"zones": ",".join(map(str, range(17)))})
