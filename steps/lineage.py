"""From an adapter image back to what it was made of: the run, its rows, its base; and is every byte still what it was?

The links are digests in annotations, so that they hold wherever the artifacts are copied, and subjects: a report and
the recipe name their run, a provenance statement its image. In a place that has only the image (a registry that a
laptop has pushed to) the rest is told by its digest.
"""

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass, field

from presets.errors import DataError, KaiflowError
from steps import provenance
from steps.contract import RECIPE_FILE, REPORT_TYPE
from steps.store import TITLE, Descriptor, Manifest, Store

RUN = "kaiflow.run"
# What a run is made of: annotation that holds the digest -> what that is.
MADE_OF = {"kaiflow.run.dataset": "dataset", "kaiflow.run.weights": "weights"}
# Annotations that are carried along from the run to its image: they must say the same.
CARRIED = (
    "kaiflow.run.key",
    "kaiflow.run.recipe",
    "kaiflow.run.dataset",
    "kaiflow.run.weights",
    "kaiflow.run.tuned-loss",
)
CHUNK_BYTES = 1 << 20


@dataclass(frozen=True, slots=True)
class Link:
    """One artifact on the way back."""

    what: str  # image, run, dataset, weights; report, provenance: what tells of the one above
    digest: str
    manifest: Manifest | None  # None: it is not in this store
    parts: tuple["Link", ...] = ()


@dataclass(frozen=True, slots=True)
class Check:
    """One thing that was looked at."""

    what: str
    digest: str
    problem: str = field(default="")  # empty: as it should be


def lineage(store: Store, reference: str) -> Link:
    """Return the image of a tag or digest with all that it was made of.

    Raises:
        DataError: there is no such image, or it was not made by kaiflow.
    """
    image = store.find(reference)
    if image is None:
        raise DataError("ImageNotFound", f"There is no image {reference} here.", fix="Name its tag, or its digest.")
    if RUN not in image.annotations:
        raise DataError("NotAnAdapter", f"{reference} says nothing of a run of kaiflow.", fix="Name an adapter image.")
    digest = image.annotations[RUN]
    made_of = [
        Link(what, part, store.find(part)) for note, what in MADE_OF.items() if (part := image.annotations.get(note))
    ]
    run = Link("run", digest, store.find(digest), (*made_of, *_telling(store, digest, "report", REPORT_TYPE)))
    stated = _telling(store, image.digest, "provenance", provenance.ARTIFACT_TYPE)
    return Link("image", image.digest, image, (run, *stated))


def _telling(store: Store, digest: str, what: str, artifact_type: str) -> list[Link]:
    """Return the artifacts of one type that tell of another one."""
    return [Link(what, m.digest, m) for m in store.referrers(digest) if m.artifact_type == artifact_type]


def walked(link: Link) -> Iterator[tuple[int, Link]]:
    """Yield every link with its distance from the image."""
    yield 0, link
    for part in link.parts:
        yield from ((depth + 1, found) for depth, found in walked(part))


def verify(store: Store, link: Link) -> Iterator[Check]:
    """Hash every blob of everything that is there again, and compare what image, run and statement say."""
    for _, found in walked(link):
        if found.manifest is None:
            problem = _damage(store, found.digest)
            yield Check(found.what if problem else f"{found.what}, not in this store", found.digest, problem)
            continue
        for name, blob in _blobs(found.manifest):
            yield Check(f"{found.what}: {name}", blob.digest, _problem(store, blob))
    for tells, of in (("provenance", link), ("report", link.parts[0])):
        if of.manifest is not None and not any(part.what == tells for part in of.parts):
            yield Check(f"{tells}, not in this store", "")
    yield from _contradictions(store, link)


def _contradictions(store: Store, link: Link) -> Iterator[Check]:
    """Compare what the image, its run, the report and the statement say of one another."""
    image, run = link.manifest, link.parts[0].manifest
    if image is not None:
        for found in _there(link, "provenance"):
            for problem in provenance.problems(store, found, image):
                yield Check("provenance", found.digest, problem)
    if run is None:
        return
    for note in CARRIED if image else ():
        said, known = image.annotations.get(note), run.annotations.get(note)  # type: ignore[union-attr]  # it is there
        if said != known:
            yield Check(f"image: {note}", link.digest, f"it says {said}, and its run says {known}")
    recipe = run.annotations.get("kaiflow.run.recipe")
    for name, blob in (layer for found in _there(link.parts[0], "report") for layer in _layers(found)):
        if name == RECIPE_FILE and blob.digest != recipe:
            yield Check("report: recipe.json", blob.digest, "it is another recipe than the run tells of")


def _there(link: Link, what: str) -> Iterator[Manifest]:
    """Yield the parts of one kind that are in the store."""
    return (part.manifest for part in link.parts if part.what == what and part.manifest)


def _damage(store: Store, digest: str) -> str:
    """Return what is wrong with an artifact that is not found whole; empty where nothing of it is there."""
    try:
        with store.open_blob(digest) as reader:
            data = reader.read()
    except (FileNotFoundError, DataError):
        return ""
    if f"sha256:{hashlib.sha256(data).hexdigest()}" != digest:
        return "its manifest is another"
    for name, blob in _blobs(Manifest.from_bytes(digest, data)):
        if problem := _problem(store, blob):
            return f"{name}: {problem}"
    return ""


def _blobs(manifest: Manifest) -> Iterator[tuple[str, Descriptor]]:
    if manifest.config is not None:
        yield "config", manifest.config
    yield from _layers(manifest)


def _layers(manifest: Manifest) -> Iterator[tuple[str, Descriptor]]:
    for layer in manifest.layers:
        yield layer.annotations.get(TITLE, "layer"), layer


def _problem(store: Store, blob: Descriptor) -> str:
    hasher, size = hashlib.sha256(), 0
    try:
        with store.open_blob(blob.digest) as reader:
            while chunk := reader.read(CHUNK_BYTES):
                hasher.update(chunk)
                size += len(chunk)
    except FileNotFoundError:
        return "it is gone"
    except KaiflowError as error:
        return error.message
    if size != blob.size:
        return f"it has {size} bytes, and the manifest says {blob.size}"
    return "" if f"sha256:{hasher.hexdigest()}" == blob.digest else "its bytes are others"
