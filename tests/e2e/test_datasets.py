"""The seed's dataset from an address to an adapter, and ``kaiflow audit`` as a person types it."""

import hashlib
import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.e2e.commands import workspace
from tests.fault_server import Served, serving

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(420)]
TRAINING = {
    "QuantizationConfig": {"load_in_4bit": True},
    "LoraConfig": {"r": 4},
    "TrainingArguments": {"max_steps": 2, "max_length": 128},
}
CITIES = ("oslo", "lima", "cairo", "quito", "minsk", "accra", "tunis", "hanoi", "sofia", "riga", "doha", "bern")
ROWS = [
    {"question": f"where is {city}", "answer": f"{city.title()} is a capital, number {i}."}
    for i, city in enumerate(CITIES)
]


def chat(rows=ROWS):
    return [
        {"messages": [{"role": "user", "content": r["question"]}, {"role": "assistant", "content": r["answer"]}]}
        for r in rows
    ]


def lines(path: Path, rows=ROWS) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


@pytest.mark.slow  # a whole run, for a minute
def test_the_seeds_dataset_runs_from_its_address_to_an_adapter(here, tmp_path):
    """A parquet file of messages, its digest in its name, behind ``?download=true``."""
    sink = tmp_path / "x.parquet"
    pq.write_table(pa.Table.from_pylist(chat()), sink)
    content = sink.read_bytes()
    name = f"train-00000-of-00001-{hashlib.sha256(content).hexdigest()[:16]}.parquet"
    with serving(Served(content)) as served:
        url = f"{served.url.rpartition('/')[0]}/{name}?download=true"
        documents = workspace("seed", [url], TRAINING, evaluation={"split": 0.2}, deploy={"enabled": False})
        first = here.kaiflow("run", here.write(documents))
        assert first.returncode == 0, first.stderr
        served.asked.clear()
        documents[0]["metadata"]["annotations"] = {"kaiflow.dev/max-cut-rows": "80%"}
        again = here.kaiflow("run", here.write(documents))
        assert again.returncode == 0, again.stderr
    assert len(served.asked) == 1  # a question, no download
    assert "audited" in here.kaiflow("logs", "seed", "fetch").stdout  # the rows were judged anew
    assert "reused" in here.kaiflow("logs", "seed", "tune").stdout  # and are the same: nothing is trained again
    status = here.get("seed")["status"]
    assert status["output"]["digest"].startswith("sha256:")
    blobs = list(here.folder.rglob("store/blobs/sha256/*"))
    pages = [p for p in blobs if b": audit</title>" in p.read_bytes()[:400]]
    assert len(pages) == 1  # the same findings give the same page
    assert name in pages[0].read_text()


def test_an_audit_names_rows_and_writes_its_page(here, tmp_path):
    path = lines(tmp_path / "rows.jsonl", [*ROWS, ROWS[0], {"question": "and now", "answer": ""}])
    page = tmp_path / "audit.html"
    done = here.kaiflow("audit", path, "--html", page)
    assert done.returncode == 3
    assert "rows.jsonl line 14: an assistant turn is empty" in done.stdout
    assert "rows.jsonl line 14" in page.read_text()
    assert "duplicates" not in done.stdout + page.read_text()  # there is one; it was not looked for
    assert "14 rows read, 1 left out" in done.stdout


def test_an_audit_measures_in_tokens_and_marks_what_is_learned(here, tmp_path):
    path = lines(tmp_path / "rows.jsonl", [*ROWS, ROWS[0]])
    done = here.kaiflow("audit", path, "-o", "json")
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert (found["duplicates"], found["rows_train"] + found["rows_held_out"]) == (1, 12)
    tokens = found["tokens"]
    assert tokens["exact"]
    assert 0 < tokens["p50"] <= tokens["p95"] <= tokens["longest"] < 100
    assert sum(tokens["counts"]) == tokens["rows"] == 12
    marked = ["".join(text for text, used in preview["pieces"] if used) for preview in found["previews"]]
    assert marked[0] == f"{ROWS[0]['answer']}<|im_end|>"


def test_rows_that_lose_their_whole_answer_are_refused(here, tmp_path):
    path = lines(tmp_path / "rows.jsonl", [{"question": "word " * 400 + city, "answer": "yes"} for city in CITIES])
    config = tmp_path / "config.yaml"
    config.write_text("training_config: {TrainingArguments: {max_length: 64}}")
    done = here.kaiflow("audit", path, "--config", config)
    assert done.returncode == 3
    assert "No answer begins within the first 64 tokens of any row" in done.stdout
    assert "Raise TrainingArguments.max_length" in done.stdout


@pytest.mark.parametrize(
    ("source", "code", "said"),
    [
        ("missing.jsonl", 4, "There is no file"),
        (".", 3, "is a folder"),
        ("file://rows.csv", 3, "names a host"),
        ("https://example.com/a b.jsonl", 3, "white space"),
        ("ftp://example.com/a.jsonl", 3, "scheme 'ftp'"),
        ("https://example.com/a.jsonl#sha256=12", 3, "is not a digest"),
    ],
)
def test_a_source_that_makes_no_sense_is_told(here, source, code, said):
    done = here.kaiflow("audit", source)
    assert done.returncode == code
    assert said in done.stderr


def test_a_report_that_cannot_be_written_names_the_place(here, tmp_path):
    path = tmp_path / "rows.jsonl"
    path.write_text('{"question": "a", "answer": "b"}\n')
    done = here.kaiflow("audit", path, "--html", tmp_path / "nowhere/page.html")
    assert done.returncode == 1
    assert str(tmp_path / "nowhere/page.html") in done.stderr
