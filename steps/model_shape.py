"""The shape of any decoder, read from its config: what the memory estimate of a model outside the catalogue needs."""

from typing import Any

from presets.catalogue import Shape

UNGATED = ("phi", "falcon")  # architectures whose MLP has two matrices


def shape_of(config: Any) -> Shape:  # noqa: ANN401  (a transformers config of any class)
    """Return the numbers that sizes follow from."""
    heads = config.num_attention_heads
    hidden = config.hidden_size
    return Shape(
        hidden=hidden,
        layers=config.num_hidden_layers,
        heads=heads,
        kv_heads=_key_heads(config),
        head=getattr(config, "head_dim", None) or hidden // heads,
        intermediate=getattr(config, "intermediate_size", None)
        or getattr(config, "ffn_hidden_size", None)
        or 4 * hidden,
        vocabulary=config.vocab_size,
        gated_mlp=config.model_type not in UNGATED,
        tied_embeddings=bool(config.tie_word_embeddings),
    )


def _key_heads(config: Any) -> int:  # noqa: ANN401
    if config.model_type == "falcon":  # says it in three ways
        if config.new_decoder_architecture:
            return int(config.num_kv_heads)
        return 1 if config.multi_query else int(config.num_attention_heads)
    return int(getattr(config, "num_key_value_heads", None) or config.num_attention_heads)
