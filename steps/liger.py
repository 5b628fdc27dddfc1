"""Liger's Triton kernels for norms, rotation and the MLP's activation: on CUDA, where the package is installed.

An option: ``pip install 'kaiflow[liger]'`` is what switches them on. The loss stays ours, which computes logits only
where they are supervised.
"""

import importlib
from typing import Any

import torch

from steps import logs

WANTED = {"rope": True, "swiglu": True, "rms_norm": True}


def use_liger(model: Any) -> bool:  # noqa: ANN401  (a transformers model)
    """Patch the layers of ``model`` where there is something to patch them with; return whether that was done.

    Must come before an adapter is added.
    """
    if not torch.cuda.is_available():
        return False
    try:
        monkey_patch = importlib.import_module("liger_kernel.transformers.monkey_patch")
    except ImportError:
        return False
    known = monkey_patch.MODEL_TYPE_TO_APPLY_LIGER_FN.get(model.config.model_type)
    if known is None:
        return False
    accepted = known.__code__.co_varnames[: known.__code__.co_argcount]
    options = {name: on for name, on in WANTED.items() if name in accepted}
    known(model=model, cross_entropy=False, fused_linear_cross_entropy=False, **options)
    logs.event("liger", kernels=sorted(options))
    return True
