"""Reading, auditing, de-duplicating and splitting real files."""

import csv
import gzip
import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from presets.errors import DataError
from presets.recipe import AuditRecipe, DataRecipe
from steps.dataset import prepare
from steps.gather import Source
from steps.readers import open_rows
from steps.split import HELD_OUT_FILE, TRAIN_FILE, load


def data(split=0.2, **options):
    return DataRecipe((), None, (), None, options.get("path"), None, None, None, True, options.get("seed", 42), split)


RULES = AuditRecipe(1 << 40, 0.0, 0.5, "remove")
ROWS = [{"question": f"what is {i}", "answer": f"it is {i}"} for i in range(200)]


def whole(path):
    rows = list(open_rows(path).rows(path.parent))
    for row in rows:
        if row.problem:
            raise DataError("Unparsable", f"{open_rows(path).place(row.number)}: {row.problem}", fix="")
    return rows


def jsonl(tmp_path, rows, name="rows.jsonl"):
    path = tmp_path / name
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def prepared(tmp_path, paths, recipe):
    sources = [Source(path, path.name, "0" * 64) for path in paths]
    audit = prepare(sources, recipe, RULES, lambda: None, tmp_path / "out")
    audit.require_usable()
    return audit, load(tmp_path / "out" / TRAIN_FILE), load(tmp_path / "out" / HELD_OUT_FILE)


def test_every_row_is_on_one_side_and_the_share_is_kept(tmp_path):
    audit, train, held_out = prepared(tmp_path, [jsonl(tmp_path, ROWS)], data())
    assert len(train) + len(held_out) == 200
    assert 25 <= len(held_out) <= 55
    assert (audit.rows_train, audit.rows_held_out) == (len(train), len(held_out))
    assert not [row for row in held_out if row in train]


def test_a_row_stays_on_its_side_when_others_are_added(tmp_path):
    _, _, before = prepared(tmp_path, [jsonl(tmp_path, ROWS[:100])], data())
    _, train, after = prepared(tmp_path, [jsonl(tmp_path, ROWS)], data())
    assert all(row in after for row in before)
    assert not [row for row in before if row in train]


def test_duplicates_go_before_the_split(tmp_path):
    noisy = [{"question": f"  WHAT is {i}", "answer": f"It  is {i}"} for i in range(50)]
    audit, train, held_out = prepared(tmp_path, [jsonl(tmp_path, ROWS[:50] + noisy + ROWS[:50])], data())
    assert audit.duplicates == 100
    assert len(train) + len(held_out) == 50


def test_all_files_are_used_in_their_order(tmp_path):
    first, second = jsonl(tmp_path, ROWS[:3], "a.jsonl"), jsonl(tmp_path, ROWS[3:6], "b.jsonl")
    _, train, _ = prepared(tmp_path, [first, second], data(split=0))
    assert [row.messages[0]["content"] for row in train] == [f"what is {i}" for i in range(6)]


def test_one_file_of_several_can_be_named(tmp_path):
    paths = [jsonl(tmp_path, ROWS[:3], "a.jsonl"), jsonl(tmp_path, ROWS[3:6], "b.jsonl")]
    _, train, _ = prepared(tmp_path, paths, data(split=0, path="data/b.jsonl"))
    assert len(train) == 3
    with pytest.raises(DataError, match=r"there are a\.jsonl, b\.jsonl"):
        prepared(tmp_path, paths, data(path="c.jsonl"))


def test_the_same_rows_give_the_same_bytes(tmp_path):
    prepared(tmp_path, [jsonl(tmp_path, ROWS)], data())
    first = (tmp_path / "out" / TRAIN_FILE).read_bytes()
    prepared(tmp_path, [jsonl(tmp_path, ROWS)], data())
    assert (tmp_path / "out" / TRAIN_FILE).read_bytes() == first


def test_a_tiny_dataset_still_keeps_a_row_out(tmp_path):
    rows = [{"question": f"q{i}", "answer": "a"} for i in range(3)]
    for seed in range(20):
        _, train, held_out = prepared(tmp_path, [jsonl(tmp_path, rows)], data(split=0.01, seed=seed))
        assert len(held_out) >= 1
        assert len(train) + len(held_out) == 3


@pytest.mark.parametrize(
    ("rows", "reason"),
    [
        ([], "DatasetEmpty"),
        ([{"messages": [{"role": "user", "content": "q"}]}], "RowsInvalid"),
        ([{"question": "q", "answer": "a"}], "DatasetTooSmall"),
        ([{"question": "q", "answer": "a"}] * 9, "DatasetTooSmall"),
        ([{"question": "q", "answer": None}], "RowsInvalid"),
    ],
)
def test_what_would_waste_a_run_is_refused(tmp_path, rows, reason):
    path = jsonl(tmp_path, rows)
    with pytest.raises(DataError) as caught:
        prepared(tmp_path, [path], data())
    assert caught.value.reason == reason


def test_invalid_rows_are_named_by_line_and_counted(tmp_path):
    rows = [*ROWS[:3], *[{"question": "q", "answer": ""}] * 7]
    with pytest.raises(DataError) as caught:
        prepared(tmp_path, [jsonl(tmp_path, rows)], data())
    assert "7 of 10 rows" in caught.value.message
    assert "rows.jsonl line 4" in caught.value.message
    assert "and 2 more" in caught.value.message


def test_the_split_moves_with_the_seed(tmp_path):
    path = jsonl(tmp_path, ROWS)
    assert prepared(tmp_path, [path], data())[2] != prepared(tmp_path, [path], data(seed=43))[2]


def formats(tmp_path):
    rows = ROWS[:5]
    yield jsonl(tmp_path, rows)
    whole = tmp_path / "rows.json"
    whole.write_text(json.dumps(rows, indent=1))
    yield whole
    wrapped = tmp_path / "wrapped.json"
    wrapped.write_text(json.dumps({"data": rows}))
    yield wrapped
    table = tmp_path / "rows.csv"
    with table.open("w", newline="") as writer:
        sheet = csv.DictWriter(writer, ["question", "answer"])
        sheet.writeheader()
        sheet.writerows(rows)
    yield table
    columns = tmp_path / "rows.parquet"
    pq.write_table(pa.Table.from_pylist(rows), columns)
    yield columns
    no_suffix = tmp_path / "train-00000-of-00001"
    no_suffix.write_bytes(columns.read_bytes())
    yield no_suffix


def test_every_format_gives_the_same_rows(tmp_path):
    for path in formats(tmp_path):
        assert [row.values for row in open_rows(path).rows(tmp_path)] == ROWS[:5], path.name


@pytest.mark.parametrize(
    ("name", "content", "reason"),
    [
        ("a.jsonl", b'{"a": 1}\n{"a": \n', "Unparsable"),
        ("a.jsonl", b'{"a": 1}\n[1]\n', "Unparsable"),
        ("a.json", b'[{"a": 1}, 2]', "Unparsable"),
        ("a.json", b'[{"a": 1}', "Unparsable"),
        ("a.csv", b"a,b\n1,2\n1,2,3\n", "Unparsable"),
        ("a.csv", b"a,b\n1\n", "Unparsable"),
        ("a.parquet", b"PAR1 damaged", "Unparsable"),
        ("a.bin", b"\x00\x01", "FormatUnknown"),
        ("a.jsonl.gz", gzip.compress(b"\x00", mtime=0), "FormatUnknown"),
        ("a.jsonl.gz", gzip.compress(b'{"a": 1}' * 999, mtime=0)[:40], "Unparsable"),
        ("a.jsonl", b"", "DatasetEmpty"),
    ],
)
def test_a_damaged_file_is_refused_with_its_place(tmp_path, name, content, reason):
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(DataError) as caught:
        whole(path)
    assert caught.value.reason == reason
    assert name in caught.value.message


def test_the_line_of_a_damaged_row_is_named(tmp_path):
    path = tmp_path / "a.jsonl"
    path.write_bytes(b'{"a": 1}\n\n{"a": \n')
    with pytest.raises(DataError, match=r"a\.jsonl line 3"):
        whole(path)


def test_the_format_is_told_from_the_content(tmp_path):
    path = tmp_path / "my-json-export.csv"
    path.write_text("a,b\n1,2\n")
    assert open_rows(path).format == "csv"
