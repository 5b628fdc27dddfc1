"""Bad datasets are refused with the exact finding; odd good ones are read as they are meant."""

import csv
import gzip
import io
import json
from dataclasses import replace
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from presets.errors import DataError
from presets.recipe import AuditRecipe, DataRecipe
from steps.audit import Audit
from steps.dataset import prepare
from steps.gather import Source
from steps.messages import Conversation
from steps.split import HELD_OUT_FILE, TRAIN_FILE, load

RULES = AuditRecipe(1 << 40, 0.0, 0.5, "remove")
DATA = DataRecipe((), None, (), None, None, None, None, None, True, 42, 0.2)
QA = [{"question": f"what is number {i} of the list", "answer": f"that one is called {i * i}"} for i in range(30)]


def user(text: Any) -> dict[str, Any]:
    return {"role": "user", "content": text}


def said(text: Any) -> dict[str, Any]:
    return {"role": "assistant", "content": text}


CHAT = [{"messages": [user(row["question"]), said(row["answer"])]} for row in QA]


def jsonl(rows: list[Any]) -> bytes:
    return b"".join(json.dumps(row).encode() + b"\n" for row in rows)


def sheet(rows: list[dict[str, Any]], delimiter: str = ",", encoding: str = "utf-8") -> bytes:
    text = io.StringIO(newline="")
    writer = csv.DictWriter(text, list(rows[0]), delimiter=delimiter)
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue().encode(encoding)


def parquet(rows: list[dict[str, Any]]) -> bytes:
    sink = io.BytesIO()
    pq.write_table(pa.Table.from_pylist(rows), sink)
    return sink.getvalue()


def arrow(rows: list[dict[str, Any]], *, stream: bool) -> bytes:
    table, sink = pa.Table.from_pylist(rows), io.BytesIO()
    opened = pa.ipc.new_stream if stream else pa.ipc.new_file
    with opened(sink, table.schema) as writer:
        writer.write_table(table)
    return sink.getvalue()


def zstd(data: bytes) -> bytes:
    return pa.compress(data, codec="zstd", asbytes=True)


def run(tmp_path, files: dict[str, bytes], data: DataRecipe = DATA, rules: AuditRecipe = RULES) -> Audit:
    sources = []
    for name, content in files.items():
        path = tmp_path / name
        path.write_bytes(content)
        sources.append(Source(path, name, "0" * 64))
    return prepare(sources, data, rules, lambda: None, tmp_path / "out")


def rows_of(tmp_path) -> list[Conversation]:
    return [row for name in (TRAIN_FILE, HELD_OUT_FILE) for row in load(tmp_path / "out" / name)]


GOOD_LINES = jsonl(QA)
BAD: dict[str, tuple[dict[str, bytes], str, str]] = {
    # files as a whole
    "empty file": ({"a.jsonl": b""}, "DatasetEmpty", "a.jsonl is empty"),
    "white space": ({"a.jsonl": b" \n\n \n"}, "FormatUnknown", "a.jsonl"),
    "empty list": ({"a.json": b"[]"}, "DatasetEmpty", "no rows"),
    "empty parquet": ({"a.parquet": parquet(QA[:1])[:0] or b""}, "DatasetEmpty", "a.parquet"),
    "parquet without rows": (
        {"a.parquet": (lambda s: (pq.write_table(pa.table({"a": []}), s), s.getvalue())[1])(io.BytesIO())},
        "DatasetEmpty",
        "no rows",
    ),
    "header alone": ({"a.csv": b"question,answer\n"}, "DatasetEmpty", "no rows"),
    "cut parquet": ({"a.parquet": parquet(QA)[:-20]}, "Unparsable", "a.parquet is a damaged parquet file"),
    "cut gzip": ({"a.jsonl.gz": gzip.compress(GOOD_LINES)[:-30]}, "Unparsable", "damaged gzip"),
    "cut zstd": ({"a.jsonl.zst": zstd(GOOD_LINES)[:-30]}, "Unparsable", "a.jsonl.zst"),
    "cut arrow": ({"a.arrow": arrow(QA, stream=False)[:-30]}, "Unparsable", "damaged arrow"),
    "a web page": ({"a.parquet": b"<!DOCTYPE html><html>sign in</html>"}, "FormatUnknown", "a web page"),
    "an LFS pointer": (
        {"a.jsonl": b"version https://git-lfs.github.com/spec/v1\n"},
        "FormatUnknown",
        "Git LFS pointer",
    ),
    "a zip": ({"a.csv.zip": b"PK\x03\x04rest"}, "FormatUnknown", "a zip archive"),
    "a picture": ({"a.png": b"\x89PNG\r\n\x1a\n"}, "FormatUnknown", "a.png is neither"),
    "plain text": ({"a.txt": b"hello\nworld\n"}, "FormatUnknown", "a.txt"),
    "two lists": ({"a.json": json.dumps({"x": QA, "y": QA}).encode()}, "ShapeAmbiguous", "x, y"),
    "a list of numbers": ({"a.json": b"[1, 2, 3]"}, "Unparsable", "a.json row 1: not an object"),
    "a cut list": ({"a.json": json.dumps(QA).encode()[:-10]}, "Unparsable", "a.json is not valid JSON"),
    "a comma too many": ({"a.json": b'[{"question": "q", "answer": "a"},]'}, "Unparsable", "a comma"),
    "something behind the end": ({"a.json": b'{"a": 1} x'}, "Unparsable", "something follows"),
    "a column twice": ({"a.csv": b"question,question\n1,2\n"}, "HeaderInvalid", "question twice"),
    "a column without a name": ({"a.csv": b"question,,answer\n1,2,3\n"}, "HeaderInvalid", "without a name"),
    "csv in latin-1": ({"a.csv": "question,answer\ncafé,thé\n".encode("latin-1")}, "Unparsable", "UTF-8"),
    # rows
    "a broken line": ({"a.jsonl": GOOD_LINES + b'{"question": "q"\n'}, "Unparsable", "a.jsonl line 31: not valid JSON"),
    "a line in latin-1": (
        {"a.jsonl": GOOD_LINES + '{"question": "é", "answer": "è"}\n'.encode("latin-1")},
        "Unparsable",
        "a.jsonl line 31: not valid UTF-8",
    ),
    "a line that is a list": (
        {"a.jsonl": GOOD_LINES + b"[1]\n"},
        "Unparsable",
        "a.jsonl line 31: not an object but list",
    ),
    "a field too many": (
        {"a.csv": sheet(QA) + b"1,2,3\r\n"},
        "Unparsable",
        "a.csv line 32: 3 fields where the header has 2",
    ),
    "a field too few": ({"a.csv": sheet(QA) + b"1\r\n"}, "Unparsable", "a.csv line 32: 1 fields"),
    "no answer": ({"a.jsonl": jsonl([*QA, {"question": "q"}])}, "RowsInvalid", "a.jsonl line 31: answer is empty"),
    "an empty answer": (
        {"a.jsonl": jsonl([*QA, {"question": "q", "answer": " "}])},
        "RowsInvalid",
        "assistant turn is empty",
    ),
    "an empty question": (
        {"a.jsonl": jsonl([*QA, {"question": "", "answer": "a"}])},
        "RowsInvalid",
        "the question is empty",
    ),
    "a null answer": (
        {"a.parquet": parquet([*QA, {"question": "q", "answer": None}])},
        "RowsInvalid",
        "a.parquet row 31",
    ),
    "an answer that is an object": (
        {"a.jsonl": jsonl([*QA, {"question": "q", "answer": {}}])},
        "RowsInvalid",
        "dict, not text",
    ),
    "an answer of no accepted ones": (
        {"a.jsonl": jsonl([*QA, {"question": "q", "answer": []}])},
        "RowsInvalid",
        "is empty",
    ),
    "no assistant turn": (
        {"a.jsonl": jsonl([*CHAT, {"messages": [user("q")]}])},
        "RowsInvalid",
        "line 31: there is no assistant",
    ),
    "the user last": (
        {"a.jsonl": jsonl([*CHAT, {"messages": [user("q"), said("a"), user("q")]}])},
        "RowsInvalid",
        "the last turn is not the assistant's",
    ),
    "two users in a row": (
        {"a.jsonl": jsonl([*CHAT, {"messages": [user("q"), user("q"), said("a")]}])},
        "RowsInvalid",
        "out of order (user, user, assistant)",
    ),
    "system in the middle": (
        {"a.jsonl": jsonl([*CHAT, {"messages": [user("q"), {"role": "system", "content": "s"}, said("a")]}])},
        "RowsInvalid",
        "out of order",
    ),
    "an unknown role": (
        {"a.jsonl": jsonl([*CHAT, {"messages": [{"role": "robot", "content": "x"}]}])},
        "RowsInvalid",
        "'robot'",
    ),
    "no messages": ({"a.jsonl": jsonl([*CHAT, {"messages": []}])}, "RowsInvalid", "no assistant turn"),
    "messages that are text": (
        {"a.jsonl": jsonl([*CHAT, {"messages": "hello"}])},
        "RowsInvalid",
        "not a list of messages",
    ),
    "a message that is text": (
        {"a.jsonl": jsonl([*CHAT, {"messages": ["hello"]}])},
        "RowsInvalid",
        "a message is not an object",
    ),
    "a picture in a message": (
        {"a.jsonl": jsonl([*CHAT, {"messages": [user([{"type": "image_url"}]), said("a")]}])},
        "RowsInvalid",
        "parts that are not text",
    ),
    "a tool that nobody called": (
        {"a.jsonl": jsonl([*CHAT, {"messages": [user("q"), {"role": "tool", "content": "1"}, said("a")]}])},
        "RowsInvalid",
        "out of order",
    ),
    "a call without its answer": (
        {
            "a.jsonl": jsonl(
                [*CHAT, {"messages": [user("q"), {**said(""), "tool_calls": [{"x": 1}]}, user("q"), said("a")]}]
            )
        },
        "RowsInvalid",
        "out of order",
    ),
    "content that is a number": (
        {"a.jsonl": jsonl([*CHAT, {"messages": [user("q"), said(7)]}])},
        "RowsInvalid",
        "int, not text",
    ),
    "an empty object": ({"a.jsonl": jsonl([{}, {}])}, "Unparsable", "a.jsonl line 1: an object without keys"),
    # columns
    "unknown columns": ({"a.jsonl": jsonl([{"x": 1, "y": 2}])}, "ShapeUnknown", "x, y match no known shape"),
    "two readings": (
        {"a.jsonl": jsonl([{**CHAT[0], "prompt": "q", "completion": "a"}])},
        "ShapeAmbiguous",
        "as messages (there is a column messages) or as prompt/completion",
    ),
    # what is left
    "one row": ({"a.jsonl": jsonl(QA[:1])}, "DatasetTooSmall", "1 distinct row"),
    "all the same": ({"a.jsonl": jsonl(QA[:1] * 9)}, "DatasetTooSmall", "1 distinct row"),
}

ODD: dict[str, dict[str, bytes]] = {
    "byte order mark": {"a.jsonl": b"\xef\xbb\xbf" + GOOD_LINES},
    "windows line ends": {"a.jsonl": GOOD_LINES.replace(b"\n", b"\r\n")},
    "no last line end": {"a.jsonl": GOOD_LINES.rstrip()},
    "blank lines": {"a.jsonl": GOOD_LINES.replace(b"\n", b"\n\n")},
    "lines called json": {"a.json": GOOD_LINES},
    "a pretty list": {"a.json": json.dumps(QA, indent=4).encode()},
    "a list in an object": {"a.json": json.dumps({"version": "1", "tags": ["x"], "data": QA}).encode()},
    "a list called jsonl": {"a.json": b"\n " + json.dumps(QA).encode()},
    "gzipped lines": {"a.jsonl.gz": gzip.compress(GOOD_LINES)},
    "zstandard lines": {"a.jsonl.zst": zstd(GOOD_LINES)},
    "a gzipped list": {"a.json.gz": gzip.compress(json.dumps(QA).encode())},
    "gzipped without saying so": {"a.jsonl": gzip.compress(GOOD_LINES)},
    "two gzips in one": {"a.jsonl.gz": gzip.compress(jsonl(QA[:9])) + gzip.compress(jsonl(QA[9:]))},
    "csv": {"a.csv": sheet(QA)},
    "csv with a mark": {"a.csv": b"\xef\xbb\xbf" + sheet(QA)},
    "csv with semicolons": {"a.csv": sheet(QA, ";")},
    "tsv": {"a.tsv": sheet(QA, "\t")},
    "tabs called csv": {"a.csv": sheet(QA, "\t")},
    "gzipped csv": {"a.csv.gz": gzip.compress(sheet(QA))},
    "parquet": {"a.parquet": parquet(QA)},
    "parquet without an ending": {"train-00000-of-00001": parquet(QA)},
    "gzipped parquet": {"a.parquet.gz": gzip.compress(parquet(QA))},
    "arrow file": {"a.arrow": arrow(QA, stream=False)},
    "arrow stream": {"a.arrow": arrow(QA, stream=True)},
    "arrow with zstandard": {"a.arrow.zst": zstd(arrow(QA, stream=True))},
    "two formats": {"a.jsonl": jsonl(QA[:9]), "b.csv": sheet(QA[9:])},
    "two shapes": {"a.jsonl": jsonl(QA[:9]), "b.parquet": parquet(CHAT[9:])},
    "messages in parquet": {"a.parquet": parquet(CHAT)},
    "messages as JSON in csv": {"a.csv": sheet([{"messages": json.dumps(row["messages"])} for row in CHAT])},
    "OpenAI's parts": {
        "a.jsonl": jsonl(
            [{"messages": [user([{"type": "text", "text": r["question"]}]), said(r["answer"])]} for r in QA]
        )
    },
    "ShareGPT": {
        "a.jsonl": jsonl(
            [
                {"conversations": [{"from": "human", "value": r["question"]}, {"from": "gpt", "value": r["answer"]}]}
                for r in QA
            ]
        )
    },
    "Alpaca": {"a.jsonl": jsonl([{"instruction": r["question"], "input": "", "output": r["answer"]} for r in QA])},
    "Alpaca with its text": {
        "a.jsonl": jsonl(
            [{"instruction": r["question"], "input": "", "output": r["answer"], "text": "all"} for r in QA]
        )
    },
    "dolly": {
        "a.jsonl": jsonl(
            [{"instruction": r["question"], "context": "", "response": r["answer"], "category": "qa"} for r in QA]
        )
    },
    "prompt and completion": {"a.jsonl": jsonl([{"prompt": r["question"], "completion": r["answer"]} for r in QA])},
    "conversational completion": {
        "a.jsonl": jsonl([{"prompt": [user(r["question"])], "completion": [said(r["answer"])]} for r in QA])
    },
    "several answers": {"a.jsonl": jsonl([{**r, "answer": [r["answer"], "another"]} for r in QA])},
    "a prompt beside messages": {"a.jsonl": jsonl([{**row, "prompt": "x", "prompt_id": 3} for row in CHAT])},
    "a column that most rows lack": {"a.jsonl": jsonl([{**r, "note": "x"} if i == 5 else r for i, r in enumerate(QA)])},
}


@pytest.mark.parametrize("name", BAD)
def test_a_bad_dataset_is_refused_with_its_place(tmp_path, name):
    files, reason, fragment = BAD[name]
    with pytest.raises(DataError) as caught:
        run(tmp_path, files).require_usable()
    assert caught.value.reason == reason
    assert fragment in str(caught.value)
    assert caught.value.fix


@pytest.mark.parametrize("name", ODD)
def test_an_odd_dataset_is_read_whole(tmp_path, name):
    audit = run(tmp_path, ODD[name])
    audit.require_usable()
    found = {(row.messages[-2]["content"], row.messages[-1]["content"]) for row in rows_of(tmp_path)}
    assert found == {(row["question"], row["answer"]) for row in QA}
    assert (audit.rows_read, audit.rows_bad, audit.duplicates, audit.near_duplicates) == (30, 0, 0, 0)


def test_the_corpus_is_as_large_as_promised():
    assert len(BAD) >= 40
    assert len(ODD) >= 20


def test_a_few_bad_rows_are_left_out_where_that_is_allowed(tmp_path):
    files = {"a.jsonl": jsonl([*QA, {"question": "q"}])}
    audit = run(tmp_path, files, rules=replace(RULES, max_bad_rows=0.05))
    assert not audit.errors
    assert (audit.rows_bad, audit.rows_train + audit.rows_held_out) == (1, 30)
    assert [f.severity for f in audit.findings if f.reason == "RowsInvalid"] == ["warning"]


def test_all_that_is_wrong_is_said_at_once(tmp_path):
    files = {"a.jsonl": jsonl([*QA, {"question": "q"}]) + b"{\n"}
    with pytest.raises(DataError) as caught:
        run(tmp_path, files).require_usable()
    assert "line 32" in str(caught.value)
    assert "line 31" in str(caught.value)


def test_named_columns_settle_what_is_ambiguous(tmp_path):
    both = [{"prompt": r["question"], "completion": r["answer"], "question": "no", "answer": "no"} for r in QA]
    data = replace(DATA, context_column="prompt", response_column="completion")
    run(tmp_path, {"a.jsonl": jsonl(both)}, data).require_usable()
    assert {row.messages[0]["content"] for row in rows_of(tmp_path)} == {r["question"] for r in QA}


def test_a_column_called_tools_reaches_the_conversation(tmp_path):
    tools = [{"type": "function", "function": {"name": "add", "parameters": {"type": "object"}}}]
    call = {**said(""), "tool_calls": [{"function": {"name": "add", "arguments": {"a": 1}}}]}
    rows = [
        {
            "messages": [user(f"sum of {i}"), call, {"role": "tool", "content": str(i)}, said(f"it is {i}")],
            "tools": tools,
        }
        for i in range(9)
    ]
    run(tmp_path, {"a.jsonl": jsonl(rows)}).require_usable()
    found = rows_of(tmp_path)
    assert all(row.tools == tools and row.messages[1]["tool_calls"] == call["tool_calls"] for row in found)
    assert len(found) == 9


def test_plain_text_is_kept_as_text(tmp_path):
    audit = run(
        tmp_path, {"a.jsonl": jsonl([{"text": f"Chapter {i}. It was a dark night {i * 7}."} for i in range(9)])}
    )
    assert not audit.errors
    assert all(row.is_text for row in rows_of(tmp_path))


def test_a_context_stands_before_its_question(tmp_path):
    rows = [{"context": f"The code is {i}.", "question": f"What is code {i}?", "answer": str(i)} for i in range(9)]
    run(tmp_path, {"a.jsonl": jsonl(rows)}).require_usable()
    assert rows_of(tmp_path)[0].messages[0]["content"].startswith("The code is ")


def test_columns_that_are_not_used_are_told(tmp_path):
    audit = run(tmp_path, {"a.jsonl": jsonl([{**row, "difficulty": 3} for row in QA])})
    assert [f.message for f in audit.findings if f.reason == "ColumnsIgnored"] == [
        "a.jsonl: the column difficulty is not used."
    ]


def test_near_duplicates_go_and_their_places_are_told(tmp_path):
    answer = (
        "The river rises in the mountains of the north, flows through seven towns, and ends in a wide bay by the sea."
    )
    rows = [*QA, {"question": "Where does the river flow?", "answer": answer}]
    rows.append({"question": "where does the river flow", "answer": answer.replace(", and", " and").upper()})
    audit = run(tmp_path, {"a.jsonl": jsonl(rows)})
    assert audit.near_duplicates == 1
    assert [f.rows for f in audit.findings if f.reason == "NearDuplicates"] == [
        ("a.jsonl line 32 repeats a.jsonl line 31",)
    ]
    kept = run(tmp_path, {"a.jsonl": jsonl(rows)}, rules=replace(RULES, near_duplicates="keep"))
    assert kept.near_duplicates == 0


def test_different_questions_about_one_passage_are_different_rows(tmp_path):
    passage = " ".join(f"In year {i} the council of town {i * 3} met and agreed on rule {i * 7}." for i in range(60))
    asked = [
        "Who met in the first year?",
        "What did town nine agree on?",
        "Which body makes the rules?",
        "Who gathered last?",
    ]
    rows = [{"context": passage, "question": question, "answer": "the council"} for question in asked]
    assert run(tmp_path, {"a.jsonl": jsonl(rows)}).near_duplicates == 0


def test_no_near_copy_of_a_held_out_row_is_trained_on(tmp_path):
    long = "a sentence with quite a few words in it that all matter to what is said here about topic"
    rows = [{"question": f"{long} {i}?", "answer": f"{long} number {i}, as everybody knows by now."} for i in range(60)]
    noisy = [{k: v.replace(",", ";").title() for k, v in row.items()} for row in rows]
    audit = run(tmp_path, {"a.jsonl": jsonl(rows + noisy)})
    assert audit.duplicates + audit.near_duplicates >= 60
    sides = [
        {row.messages[0]["content"].lower() for row in load(tmp_path / "out" / n)} for n in (TRAIN_FILE, HELD_OUT_FILE)
    ]
    assert not sides[0] & sides[1]


def test_secrets_and_addresses_are_warned_of_by_row_and_never_shown(tmp_path):
    token = "ghp_" + "a1B2" * 9
    rows = [
        *QA,
        {"question": "my token", "answer": token},
        {"question": "my mail", "answer": "ann.bee@mail.example.io"},
    ]
    audit = run(tmp_path, {"a.jsonl": jsonl(rows)})
    found = {f.reason: f for f in audit.findings}
    assert found["PossibleSecrets"].rows == ("a.jsonl line 31",)
    assert found["EmailAddresses"].rows == ("a.jsonl line 32",)
    assert token not in json.dumps(audit.to_json())


def test_two_files_of_one_name_are_both_used(tmp_path):
    (tmp_path / "1").mkdir()
    (tmp_path / "2").mkdir()
    sources = []
    for number, rows in (("1", QA[:10]), ("2", QA[10:])):
        path = tmp_path / number / "train.jsonl"
        path.write_bytes(jsonl(rows))
        sources.append(Source(path, f"{number}/train.jsonl", "0" * 64))
    audit = prepare(sources, DATA, RULES, lambda: None, tmp_path / "out")
    assert audit.rows_train + audit.rows_held_out == 30
