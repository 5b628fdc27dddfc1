"""Is the value of this one field well formed?  Images, object names and URLs, wherever they stand."""

import re
from collections.abc import Iterator, Mapping
from urllib.parse import SplitResult, urlsplit

from presets.addresses import is_metadata, is_private, without_query
from presets.errors import FieldError
from presets.names import is_dns_subdomain, parse_image, placeholders
from presets.workspace import Preset

Errors = Iterator[FieldError]

URL_SCHEMES = ("http", "https", "hf", "s3", "gs", "az", "file", "pkg")
BUCKET_SCHEMES = ("s3", "gs", "az")
HUB_FORM = "hf://datasets/ORG/NAME/path/to/file.parquet"


def check_url(field: str, url: str, private_hosts_allowed: bool) -> Errors:
    """Yield what is wrong with a dataset URL: its scheme, its host, white space."""
    shown = without_query(url)
    try:
        parts = urlsplit(url.strip())
        host, _ = parts.hostname or "", parts.port
    except ValueError:
        yield FieldError(field, "InvalidUrl", "This is not a URL.", "Write https://host/path/file.parquet.")
        return
    if url != url.strip() or any(character.isspace() for character in url):
        yield FieldError(field, "InvalidUrl", f"{shown} holds white space.", "Write a space as %20.")
    elif not url.startswith(tuple(f"{scheme}:" for scheme in URL_SCHEMES)):
        scheme = url.partition("://")[0] if parts.scheme else "(none)"
        yield FieldError(
            field, "InvalidUrl", f"The scheme {scheme!r} is not supported.",
            "A dataset URL uses https, http, hf, s3, gs or az; file:// and pkg:// are read on your own machine alone.",
        )  # fmt: skip
    elif not (host or parts.scheme == "file"):
        yield FieldError(field, "InvalidUrl", f"{url} names no host.", "Write https://host/path/file.parquet.")
    elif parts.scheme == "pkg" and not parts.path.strip("/"):
        yield FieldError(field, "InvalidUrl", f"{shown} names no file.", "Write pkg://PACKAGE/path/in/the/package.")
    else:
        yield from _check_place(field, parts, private_hosts_allowed)


def _check_place(field: str, parts: SplitResult, private_hosts_allowed: bool) -> Errors:
    host, shown = parts.hostname or "", without_query(parts.geturl())
    if parts.scheme == "hf" and not (host == "datasets" and parts.path.count("/") >= 3):
        yield FieldError(field, "InvalidUrl", f"{shown} names no file of a dataset on the hub.", f"Write {HUB_FORM}.")
    elif parts.scheme in BUCKET_SCHEMES and not parts.path.strip("/"):
        yield FieldError(field, "InvalidUrl", f"{shown} names no file.", f"Write {parts.scheme}://BUCKET/path.parquet.")
    elif parts.scheme in ("http", "https"):
        if is_metadata(host):
            yield _forbidden_host(field, host, "a metadata endpoint, which hands out credentials")
        elif is_private(host) and not private_hosts_allowed:
            yield _forbidden_host(field, host, "a loopback, private or link-local address")
    if parts.fragment and not re.fullmatch("sha256[=:][0-9a-fA-F]{64}", parts.fragment):
        yield FieldError(
            field, "InvalidUrl", f"The fragment #{parts.fragment[:20]} of {shown} is not a digest.",
            "Write #sha256= and 64 hexadecimal digits, or remove it.",
        )  # fmt: skip


def _forbidden_host(field: str, host: str, what: str) -> FieldError:
    return FieldError(
        field,
        "ForbiddenAddress",
        f"{host} is {what}.",
        "Serve the dataset from a public host, or use an image.",
    )


def check_image(field: str, image: str) -> Errors:
    """Yield what is wrong with an image reference, naming what to replace in a template."""
    if parse_image(image) is not None:
        return
    if placeholders(image):
        yield placeholder(field, image, "the names of your registry and repository, in lower case")
    elif image != image.lower():
        yield FieldError(
            field, "InvalidImage", f"{image!r}: a repository name is lower-case.", f"Write {image.lower()}."
        )
    else:
        yield FieldError(
            field,
            "InvalidImage",
            f"{image!r} is not an image reference.",
            "Write registry.example.com/team/name:tag.",
        )


def check_preset_name(field: str, name: str) -> Errors:
    """Yield what is wrong with the form of a name that is not the catalogue's but the hub's."""
    if "/" in name and (name.count("/") != 1 or not all(name.split("/"))):
        yield FieldError(field, "UnknownPreset", f"{name!r} is no Hugging Face id.", "Write organisation/model.")


def check_access(preset: Preset, field: str, gated: Mapping[str, bool], *, at_hand: bool = False) -> Errors:
    """Yield what keeps the preset's weights from being read: a private image or a token that is not named.

    ``at_hand``: they lie in a folder.
    """
    options = preset.preset_options
    if preset.access_mode == "private" and not options.image and not at_hand:
        yield missing(f"{field}.presetOptions.image", "A private preset needs the image that holds its weights.")
    if options.image:
        yield from check_image(f"{field}.presetOptions.image", options.image)
    for index, secret in enumerate(options.image_pull_secrets):
        yield from check_object_name(f"{field}.presetOptions.imagePullSecrets[{index}]", secret, "a Secret")
    if options.model_access_secret:
        yield from check_object_name(
            f"{field}.presetOptions.modelAccessSecret", options.model_access_secret, "a Secret"
        )
    if gated.get(preset.name.lower()) and not (options.model_access_secret or options.image or at_hand):
        yield FieldError(
            f"{field}.presetOptions.modelAccessSecret", "MissingField",
            f"The weights of {preset.name} are gated: a Hugging Face token is needed to read them.",
            "Accept the licence on the model's page, and name a Secret with the key HF_TOKEN.",
        )  # fmt: skip


def check_object_name(field: str, name: str, what: str) -> Errors:
    """Yield what is wrong with the name of a Kubernetes object, ``what`` being its kind with an article."""
    if is_dns_subdomain(name):
        return
    if placeholders(name):
        yield placeholder(field, name, f"the name of {what}")
    else:
        yield FieldError(
            field,
            "InvalidName",
            f"{name!r} is not the name of {what}.",
            "Use lower-case letters, digits, dots, dashes.",
        )


def missing(field: str, fix: str) -> FieldError:
    """Return the error of a field that has to be there."""
    return FieldError(field, "MissingField", f"{field} is missing.", fix)


def placeholder(field: str, value: str, what: str) -> FieldError:
    """Return the error of a template's upper-case word that nobody replaced."""
    found = placeholders(value)
    return FieldError(
        field, "PlaceholderNotReplaced", f"{value!r} still holds {' and '.join(found)}, which stands for {what}.",
        f"Replace {'them' if len(found) > 1 else 'it'}.",
    )  # fmt: skip
