"""What the layout promises: names, packages, import cost, keys of the libraries."""

import dataclasses
import resource
import subprocess
import sys
from importlib import import_module
from pathlib import Path

import pytest

from presets.training_config import known_keys

ROOT = Path(__file__).parents[2]
PACKAGES = ("presets", "steps", "pipelines", "controller")
MODULES = sorted(path for package in PACKAGES for path in (ROOT / package).rglob("*.py"))


@pytest.mark.parametrize("package", PACKAGES)
def test_our_packages_are_not_shadowed_by_others_of_the_same_name(package):
    assert Path(str(import_module(package).__file__)).is_relative_to(ROOT)


def test_no_module_is_called_like_one_of_the_standard_library_or_like_a_drawer():
    names = {path.stem for path in MODULES} - {"__init__"}
    assert not names & set(sys.stdlib_module_names)
    assert not names & {"utils", "helpers", "common", "misc"}


def test_no_module_grows_past_three_hundred_lines():
    assert not [path.name for path in MODULES if len(path.read_text().splitlines()) > 300]


def test_every_package_is_typed_and_has_a_readme():
    for package in PACKAGES:
        assert (ROOT / package / "py.typed").exists()
        assert (ROOT / package / "README.md").exists()


def loaded_by(code):
    command = [sys.executable, "-c", f"import sys\n{code}\nprint(*sys.modules)"]
    return set(subprocess.run(command, check=True, capture_output=True, text=True).stdout.split())


LIGHT = ("controller", "controller.main", "controller.validation", "steps.main", "steps.fetch", "steps.push")


@pytest.mark.parametrize("module", LIGHT)
def test_nothing_heavy_is_loaded_where_it_is_not_needed(module):
    assert not loaded_by(f"import {module}") & {
        "torch",
        "transformers",
        "peft",
        "bitsandbytes",
        "hera",
        "kubernetes",
        "oras",
    }


def seconds(command):
    """Return what the command takes where nothing else runs: its CPU, since something else may run here."""
    times = []
    for _ in range(5):
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        times.append(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)
    return min(times)


def test_help_comes_in_under_three_tenths_of_a_second():
    assert seconds([sys.executable, "-m", "controller.main", "--help"]) < 0.3


def test_importing_the_controller_costs_under_three_tenths_of_a_second():
    assert seconds([sys.executable, "-c", "import controller"]) < 0.3


def keys(section):
    return {key for kind in known_keys()[section].values() for key in kind}


# Keys of TRL's SFTConfig and older names, which the installed transformers does not have.
OTHER_LIBRARIES = {
    "max_length", "max_seq_length", "packing", "assistant_only_loss", "dataset_text_field", "shuffle_dataset",
    "completion_only_loss", "padding_free", "eval_packing", "packing_strategy", "trust_remote_code",
    "model_init_kwargs",
    "chat_template_path", "dataset_kwargs", "dataset_num_proc", "eos_token", "pad_token", "pad_to_multiple_of",
    "truncation_mode", "loss_type", "router_aux_loss_coef", "activation_offloading", "warmup_ratio", "group_by_length",
    "overwrite_output_dir",
}  # fmt: skip


def test_the_training_keys_are_those_of_the_installed_libraries():
    transformers = pytest.importorskip("transformers")
    arguments = {f.name for f in dataclasses.fields(transformers.TrainingArguments) if f.init}
    assert arguments - keys("TrainingArguments") == set()
    assert keys("TrainingArguments") - arguments - OTHER_LIBRARIES == set()


def test_the_choices_are_among_the_librarys():
    transformers = pytest.importorskip("transformers")
    from transformers.training_args import OptimizerNames

    from presets.training_config import _CHOICES

    assert set(_CHOICES["TrainingArguments.lr_scheduler_type"]) <= {s.value for s in transformers.SchedulerType}
    assert set(_CHOICES["TrainingArguments.optim"]) <= {o.value for o in OptimizerNames}


def test_the_lora_keys_are_pefts():
    peft = pytest.importorskip("peft")
    assert keys("LoraConfig") == {f.name for f in dataclasses.fields(peft.LoraConfig) if f.init}


def test_the_quantisation_keys_are_bitsandbytes_configs():
    transformers = pytest.importorskip("transformers")
    import inspect

    named = set(inspect.signature(transformers.BitsAndBytesConfig.__init__).parameters) - {"self", "kwargs"}
    assert keys("QuantizationConfig") == named | {"quant_method"}
