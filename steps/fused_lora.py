"""LoRA layers whose forward and backward are one function each: fewer passes over memory, fewer tensors kept.

peft's layer adds scale · B(A(x)) to the base's output in four passes and keeps each one's input for the backward.
Here the low-rank product is added by the matrix multiplication itself, the scale is folded into B, and what is kept
is x and A(x). The adapter's float32 weights are cast once a call. The same layer, in the manner of Unsloth's and
Axolotl's LoRA kernels, without kernels of its own.
"""

from typing import Any, cast

import torch
from bitsandbytes.functional import dequantize_4bit
from bitsandbytes.nn.modules import Linear4bit
from peft.tuners.lora import Linear as LoraLinear
from peft.tuners.lora.bnb import Linear4bit as LoraLinear4bit

PLAIN_LAYERS: tuple[Any, ...] = (LoraLinear, LoraLinear4bit)


def fuse(model: torch.nn.Module) -> int:
    """Replace the forward of every plain LoRA layer of ``model``; return how many there are.

    Layers with dropout, DoRA, biases of their own or several adapters keep peft's forward, and so does every
    layer while the adapter is switched off.
    """
    count = 0
    layer: Any
    for layer in model.modules():
        if type(layer) in PLAIN_LAYERS and _is_plain(layer) and not isinstance(layer.forward, _Forward):
            layer.forward = _Forward(layer)
            count += 1
    return count


def _is_plain(layer: Any) -> bool:  # noqa: ANN401
    names = layer.active_adapters
    if len(names) != 1 or names[0] not in layer.lora_A:
        return False
    name = names[0]
    return bool(
        not layer.use_dora.get(name)
        and not layer.lora_bias.get(name)
        and isinstance(layer.lora_dropout[name], torch.nn.Identity)
        and not getattr(layer, "fan_in_fan_out", False)
        and not layer.lora_variant
    )


class _Forward:
    """The forward of one layer."""

    def __init__(self, layer: Any) -> None:  # noqa: ANN401
        self._layer = layer
        self._plain = layer.forward
        self._name = layer.active_adapters[0]

    def __call__(self, x: torch.Tensor, *arguments: Any, **options: Any) -> torch.Tensor:  # noqa: ANN401
        layer, name = self._layer, self._name
        if layer.disable_adapters or layer.merged or not torch.is_grad_enabled():
            return cast("torch.Tensor", self._plain(x, *arguments, **options))
        base = layer.get_base_layer()
        down, up = layer.lora_A[name].weight, layer.lora_B[name].weight
        kind = x.device.type
        dtype = torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else x.dtype
        out: torch.Tensor = _Fused.apply(  # type: ignore[no-untyped-call]
            x, base, down, up, layer.scaling[name], dtype
        )
        return out if base.bias is None else out + base.bias.to(dtype)


def _weight(base: Any, dtype: torch.dtype) -> torch.Tensor:  # noqa: ANN401
    """Return the frozen weight (out, in) to multiply with; four-bit weights are dequantised for the moment."""
    stored: Any = base.weight
    if isinstance(base, Linear4bit):
        return cast("torch.Tensor", dequantize_4bit(stored.data, stored.quant_state).to(dtype))
    return cast("torch.Tensor", stored.to(dtype))


class _Fused(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,  # noqa: ANN401
        x: torch.Tensor,
        base: torch.nn.Module,
        down: torch.Tensor,
        up: torch.Tensor,
        scale: float,
        dtype: torch.dtype,
    ) -> torch.Tensor:
        rows = x.reshape(-1, x.shape[-1]).to(dtype)
        low, high = down.to(dtype), (up * scale).to(dtype)
        inner = rows @ low.t()
        out = rows @ _weight(base, dtype).t()
        out.addmm_(inner, high.t())
        ctx.save_for_backward(rows, low, high, inner)
        ctx.base, ctx.scale, ctx.kept, ctx.shape = base, scale, x.dtype, x.shape
        return out.view(*x.shape[:-1], -1)

    @staticmethod
    def backward(ctx: Any, *upstream: torch.Tensor) -> Any:  # noqa: ANN401
        rows, low, high, inner = ctx.saved_tensors
        given = upstream[0].reshape(-1, upstream[0].shape[-1]).to(rows.dtype)
        through = given @ high
        to_x = None
        if ctx.needs_input_grad[0]:
            to_x = given @ _weight(ctx.base, rows.dtype)
            to_x.addmm_(through, low)
            to_x = to_x.view(ctx.shape).to(ctx.kept)
        return to_x, None, (through.t() @ rows).float(), (given.t() @ inner).float() * ctx.scale, None, None
