"""How much GPU memory will the training take?  Added up from the shape of the model, one term a cause.

Bytes, for one process, bfloat16, rows packed, the output head in pieces, as the tune step does it. By arithmetic, from
the tensors that the backward pass keeps; upper bounds where a kernel may keep less. Not yet compared with a card.
"""

from collections.abc import Iterable
from dataclasses import asdict, dataclass

from presets.catalogue import Shape
from presets.levers import Levers
from presets.recipe import LoraRecipe, QuantizationRecipe, TrainingRecipe

GIB = 1 << 30
NF4_BYTES = {True: 0.5 + 1 / 64 + 4 / (64 * 256), False: 0.5 + 4 / 64}  # with double quantisation, without
CONTEXT = int(0.6 * GIB)  # CUDA itself and the libraries' work space
HEAD_PIECES = 4 * (1 << 22) * 4  # steps.supervised_head: logits, probabilities and copies of one piece
ADAM_BYTES = 16  # of a trained parameter: float32 weight, gradient, two moments


@dataclass(frozen=True, slots=True)
class MemoryNeed:
    """Peak GPU memory of the training, in bytes, by cause."""

    weights: int
    embeddings: int
    adapter: int  # with its gradients and the optimiser
    activations: int
    logits: int
    dequantised: int  # one layer's weights, while they are multiplied with
    context: int

    @property
    def total(self) -> int:
        """All terms together."""
        return sum(asdict(self).values())


def memory_need(
    shape: Shape,
    targets: Iterable[str],
    quantization: QuantizationRecipe,
    lora: LoraRecipe,
    training: TrainingRecipe,
    levers: Levers,
) -> MemoryNeed:
    """Return what one process needs that trains LoRA on the modules ``targets``, its steps cut as ``levers`` say."""
    tokens = training.max_length_tokens * levers.packs
    targets = tuple(targets)
    bits = 16 if levers.dequantise_once else quantization.bits
    each = {4: NF4_BYTES[quantization.double_quant], 8: 1.0, 16: 2.0}[bits]
    widest = shape.hidden * max(shape.intermediate * (2 if "gate_up_proj" in targets else 1), shape.heads * shape.head)
    return MemoryNeed(
        weights=int(shape.linear_parameters * each),
        embeddings=2 * shape.embedding_parameters,
        adapter=ADAM_BYTES * adapter_parameters(shape, targets, lora.r),
        activations=_kept(shape, tokens, levers.recompute_every),
        logits=HEAD_PIECES + 4 * shape.hidden * tokens,
        dequantised=2 * widest if bits == 4 else 0,
        context=CONTEXT,
    )


def _kept(shape: Shape, tokens: int, recompute_every: int) -> int:
    """Return the bytes of activations that wait for the backward pass, one recomputed layer's at work included."""
    layer = activation_bytes(shape) * tokens
    if not recompute_every:
        return shape.layers * layer
    again = -(-shape.layers // recompute_every)
    return (shape.layers - again + 1) * layer + again * 2 * shape.hidden * tokens


def activation_bytes(shape: Shape) -> int:
    """Return what one layer keeps of one token for the backward pass.

    The inputs of its linear layers, queries, keys and values before and after rotation, the attention's output, the
    MLP's four widths (three in bfloat16 without a gate), and the float32 copies of two norms.
    """
    query, key = shape.heads * shape.head, shape.kv_heads * shape.head
    mlp = (4 if shape.gated_mlp else 3) * shape.intermediate
    return 2 * (6 * shape.hidden + 2 * (query + 2 * key) + query + mlp) + 16 * shape.hidden


def adapter_parameters(shape: Shape, targets: Iterable[str], rank: int) -> int:
    """Return how many parameters LoRA of ``rank`` on the modules ``targets`` has.

    A module that is not known by name counts as the widest, so that the sum is an upper bound.
    """
    hidden, wide = shape.hidden, shape.intermediate
    query, key = shape.heads * shape.head, shape.kv_heads * shape.head
    up, down, out = (hidden, wide), (wide, hidden), (query, hidden)
    sizes = {
        "q_proj": (hidden, query), "k_proj": (hidden, key), "v_proj": (hidden, key), "o_proj": out, "dense": out,
        "qkv_proj": (hidden, query + 2 * key), "query_key_value": (hidden, query + 2 * key),
        "gate_proj": up, "up_proj": up, "fc1": up, "dense_h_to_4h": up, "gate_up_proj": (hidden, 2 * wide),
        "down_proj": down, "fc2": down, "dense_4h_to_h": down,
    }  # fmt: skip
    return rank * shape.layers * sum(sum(sizes.get(name, (hidden, 2 * wide))) for name in targets)
