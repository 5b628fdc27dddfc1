"""Is the place where the adapter goes one that can be written, is its tag the user's, and can it be served so?"""

from presets.errors import FieldError
from presets.field_rules import Errors, check_image, check_object_name, missing
from presets.names import is_reserved_tag, parse_image
from presets.workspace import DataDestination, Deploy


def check_deploy(deploy: Deploy) -> Errors:
    """Yield what is wrong with how the result is to be served."""
    if deploy.runtime == "vllm":
        yield FieldError(
            "tuning.deploy.runtime", "RuntimeNotSupported", "This version serves by transformers, on a GPU too.",
            "Set it to auto, or leave it out.",
        )  # fmt: skip


def check_output(output: DataDestination) -> Errors:
    """Yield what is wrong with the destination: exactly one kind, a tag that is the user's, a Secret to push with."""
    given = [
        k for k, v in {"image": output.image or None, "volumeSource": output.volume_source}.items() if v is not None
    ]
    if len(given) != 1:
        yield FieldError(
            "tuning.output", "ExactlyOne",
            f"Exactly one of image and volumeSource must be given; here: {', '.join(given) or 'none'}.", "Keep one.",
        )  # fmt: skip
    if output.image:
        yield from check_image("tuning.output.image", output.image)
        if "@" in output.image:
            yield FieldError(
                "tuning.output.image",
                "InvalidImage",
                f"{output.image} names a digest; a push needs a tag.",
                "Write repository:tag.",
            )
        reference = parse_image(output.image)
        if reference and is_reserved_tag(reference.tag):
            yield FieldError(
                "tuning.output.image", "InvalidImage", f"The tag {reference.tag} is one of kaiflow's own.",
                "Name another tag, one that does not begin with kaiflow- or sha256-.",
            )  # fmt: skip
        if not output.image_push_secret:
            yield missing(
                "tuning.output.imagePushSecret",
                "Pushing an image needs a Secret of type kubernetes.io/dockerconfigjson.",
            )
    if output.image_push_secret:
        yield from check_object_name("tuning.output.imagePushSecret", output.image_push_secret, "a Secret")
