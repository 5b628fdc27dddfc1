"""``kaiflow presets``: the models that can be tuned by name."""

from controller.output import Format, write_data, write_table
from presets.catalogue import catalogue


def write_presets(output: Format) -> None:
    """Print the catalogue."""
    models = list(catalogue().values())
    if output in (Format.JSON, Format.YAML):
        write_data([model.model_dump(mode="json") for model in models], output)
        return
    rows = [
        (m.name, f"{m.shape.parameters / 1e9:.1f}B" if m.shape else "", str(m.context_tokens), m.license,
         "yes" if m.gated else "no", m.hugging_face_id) for m in models
    ]  # fmt: skip
    write_table(("NAME", "PARAMETERS", "CONTEXT", "LICENSE", "GATED", "HUGGINGFACE"), rows)
