"""Files of every kind, and bad ones: the error names file, row and remedy, or skip_bad_rows counts the rows."""

from __future__ import annotations

import bz2
import dataclasses
import datetime
import json
import lzma
import pickle
import re

import fuzz_readers
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from published import csv_file, json_array, json_lines, json_object, parquet

from prerl_jax.data import json_rows
from prerl_jax.data.columns import Columns
from prerl_jax.data.sources import FileProblems, JsonlProblems, ParquetProblems

QA = Columns("q", "a")
ROWS = [{"q": f"question {number}", "a": str(number)} for number in range(1, 6)]


def answers(path, **changes):
    """The answers of the file's problems, and the notes."""
    problems, notes = FileProblems(str(path), QA, **changes).load()
    return [problem.answer for problem in problems], notes


@pytest.mark.parametrize("write", [json_lines, json_array, json_object, parquet, csv_file])
@pytest.mark.parametrize("name", ["a.jsonl", "a.json", "a.csv", "a.txt", "a"])
def test_the_content_says_the_kind_whatever_the_name(tmp_path, write, name):
    rows = "examples" if write is json_object else ""
    assert answers(write(tmp_path / name, ROWS), rows=rows) == (["1", "2", "3", "4", "5"], ())


@pytest.mark.parametrize(
    "text",
    [
        '{"q": "x", "a": 1}',
        '\ufeff{"q": "x", "a": 1}\n\n',
        '[{"q": "x", "a": 1}]',
        '[\n{"q": "x", "a": 1}\n]',
        '[{"q": "x",\n "a": 1}]\n',
        '\n [ {"q": "x", "a": 1} ] ',
        "q,a\nx,1\n",
        "\ufeffq\ta\r\nx\t1\r\n",
        'q;a\n"x";1',
        'q;a;"n, o, p"\nx;1;2',
        "q|a\nx|1\n",
        "q, a\nx, 1\n",
        'q, a\n"x", 1\n',
        'q, "a"\n"x", "1"\n',
        '"q","a"\n"x","1"\n',
    ],
)
def test_one_row_in_many_spellings(tmp_path, text):
    (tmp_path / "file").write_text(text, "utf-8")
    problems, notes = FileProblems(str(tmp_path / "file"), QA).load()
    assert [(problem.prompt, problem.answer) for problem in problems] == [("x", "1")]
    assert notes == ()


def test_the_list_of_an_object_may_lie_deep(tmp_path):
    (tmp_path / "file").write_text(json.dumps({"data": {"rows": [{"row": row} for row in ROWS]}}, indent=2))
    source = FileProblems(str(tmp_path / "file"), Columns("row.q", "row.a"), rows="data.rows")
    assert len(source.load()[0]) == 5


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "is empty"),
        (b" \n\n", "is empty"),
        (b"\x1f\x8b\x08", "is compressed; unpack it with gunzip"),
        (b"PK\x03\x04", "zip archive"),
        (b"version https://git-lfs.github.com/spec/v1\noid", "git lfs pull"),
        (b"<!DOCTYPE html><html>", "web page"),
        ("q,a\nx,1\n".encode("utf-16"), "UTF-16"),
        ("q,a\nx,1\n".encode("utf-16-be"), "first line is not text"),
        ('{"q": "x", "a": 1}\n'.encode("utf-16-le"), "first line is not text"),
        (bz2.compress(b"q,a\nx,1\n"), "is compressed; unpack it with bunzip2"),
        (lzma.compress(b"q,a\nx,1\n"), "is compressed; unpack it with unxz"),
        (lzma.compress(b"q,a\nx,1\n", lzma.FORMAT_ALONE), "first line is not text"),
        (pickle.dumps([{"q": "x", "a": 1}]), "first line is not text"),
        (b"{'q': 'x', 'a': 1}\n", "as Python prints them"),
        (b'{"q": "x", "a": 1}{"q": "y", "a": 2}', "line 1: there is more after the JSON value: '{"),
        (b'{"q": "x", "a": 1},\n{"q": "y", "a": 2},\n', "more after the JSON value: ',"),
        (b"PAR1 and no more", "not a readable parquet file"),
        (b"q,q\n1,2\n", "header of distinct names"),
        (b'q, "a"b\nx,1\n', "no readable header"),
        (b'q,a\n"x,1\n', r"line 2: unexpected end of data; the file is damaged or cut here"),
        (b"q,a\nx,1,2\n", "line 2: the row has 3 fields, the header 2"),
        (b"q,a\n\xff,1\n", "line 2: it is not UTF-8 text"),
        (b'[{"q": "x", "a": 1}, {"q": "y"', r"row 1 \(line 1\): .*damaged or cut here"),
        (b'[\n{"q": "x", "a": 1}\n{"q": "y", "a": 1}]', r"row 1 \(line 2\): no comma"),
        (b'[{"q": "x", "a": 1}] [', "row 1 .*text after the end of the array"),
        (b'[{"q": "\xff", "a": 1}]', r"row 0 \(line 1\): it is not UTF-8 text"),
        (b'{"q": "x",\n "a": ', "not JSON lines, nor one JSON value"),
        (b'{"q": "x", "q": "y", "a": 1}', "line 1: the name 'q' stands twice"),
        (b'[{"q": "x", "q": "y", "a": 1}]', "row 0 .*: the name 'q' stands twice"),
        (b'{"q": "x", "a": 1}\n' + b"[" * 100_000, "line 2: the JSON is nested too deeply"),
        (b"[" + b"[" * 100_000, "nested too deeply"),
        (b'{"q": "x", "a": ' + b"9" * 5000 + b"}", "line 1: "),
        (b'{"q": ["x"], "a": 1}', "line 1: a message must be"),
        (b'{"q": 5, "a": 1}', "line 1: the prompt is a int"),
        (b'{"q": "x", "a": [1]}', "line 1: the ground truth is a list.*AnyGold"),
        (b'{"q": "x", "a": "\\ud800"}', "line 1: it is not UTF-8 text"),
        (b'{"q": "x", "a": 1}\n{"question": "y", "a": 1}', r"line 2: the keys \['q'\] are missing"),
        (b'{"q": "x", "a": 1}\n["x", 1]', "line 2: expected a JSON object, got a list"),
        (b'{"q": "' + b"x" * 1_000_001 + b'", "a": 1}', "line 1: the prompt has 1,000,001 characters"),
    ],
)
def test_a_bad_file_names_itself_the_place_and_the_fault(tmp_path, content, message):
    (tmp_path / "bad.file").write_bytes(content)
    with pytest.raises(ValueError, match=rf"(?s)bad\.file.*{message}"):
        answers(tmp_path / "bad.file")


def test_a_folder_is_no_file(tmp_path):
    with pytest.raises(FileNotFoundError, match="is a folder; name its files"):
        answers(tmp_path)


def test_a_line_that_is_too_long_is_one_bad_row(tmp_path, monkeypatch):
    monkeypatch.setattr(json_rows, "LONGEST_LINE", 100)
    lines = [json.dumps(row) for row in ROWS]
    lines[2] = lines[2].replace("question", "question" * 100)
    (tmp_path / "file").write_text("\n".join(lines))
    with pytest.raises(ValueError, match="line 3: the line has more than 100 bytes; remove or split it"):
        answers(tmp_path / "file")
    kept, notes = answers(tmp_path / "file", skip_bad_rows=True)
    assert kept == ["1", "2", "4", "5"]
    assert notes == ("line 3: the line has more than 100 bytes; remove or split it",)


def test_a_large_file_of_one_value_asks_for_lines(tmp_path, monkeypatch):
    monkeypatch.setattr(json_rows, "LARGEST_FILE", 50)
    with pytest.raises(ValueError, match="write it as JSON lines or parquet"):
        answers(json_array(tmp_path / "file", ROWS))


@pytest.mark.parametrize("write", [json_lines, json_array, csv_file])
def test_bad_rows_are_skipped_and_listed(tmp_path, write):
    rows = [ROWS[0], {"q": " ", "a": "2"}, ROWS[2], {"q": "[{'role': 1}]", "a": "4"}, ROWS[4]]
    path = write(tmp_path / "file", rows)
    with pytest.raises(
        ValueError,
        match=r"the prompt is empty. Correct the row, or read the file with FileProblems.*skip_bad_rows=True",
    ):
        answers(path)
    kept, notes = answers(path, skip_bad_rows=True)
    assert kept == ["1", "3", "5"]
    assert [note.partition(": ")[2][:16] for note in notes] == ["the prompt is em", "a message must b"]


def test_many_bad_rows_are_counted(tmp_path):
    path = json_lines(tmp_path / "file", [{"q": "x", "a": [number]} for number in range(30)] + ROWS)
    kept, notes = answers(path, skip_bad_rows=True)
    assert len(kept) == 5
    assert notes[0] == "30 rows: bad rows"
    assert len(notes) == 11
    with pytest.raises(ValueError, match=r"no valid problem \(30 rows dropped, the first: line 1: the ground truth"):
        answers(json_lines(tmp_path / "file", [{"q": "x", "a": [number]} for number in range(30)]), skip_bad_rows=True)


def test_the_rows_before_the_cut_of_an_array_can_be_kept(tmp_path):
    text = json.dumps(ROWS)
    (tmp_path / "file").write_text(text[: text.index("question 4")])
    kept, notes = answers(tmp_path / "file", skip_bad_rows=True)
    assert kept == ["1", "2", "3"]
    assert re.match(r"row 3 \(line 1\): .*cut here", notes[0])


@pytest.mark.parametrize("text", ['[{"q": "x", "a": 1}, {"q": oops}, {"q": "y", "a": 2}]', 'q,a\nx,1\n"z"y,1\ny,2\n'])
def test_what_follows_damage_is_said_to_be_unread(tmp_path, text):
    rows = [{"q": "x", "a": [number]} for number in range(12)]  # bad rows of another kind do not hide it
    text = text.replace("[{", "[" + "".join(json.dumps(row) + "," for row in rows) + "{")
    (tmp_path / "file").write_text(text)
    kept, notes = answers(tmp_path / "file", skip_bad_rows=True)
    assert kept == ["1"]
    assert notes[-1].endswith("the rest of it was not read")


def test_a_csv_field_may_be_as_long_as_a_prompt(tmp_path):
    (tmp_path / "file").write_text(f"q,a\n{'x' * 200_000},1\n")
    assert answers(tmp_path / "file")[0] == ["1"]


def write_timestamps(path):
    """Parquet with a timestamp in the year 292277 in row 1, which Python cannot hold."""
    stamps = pa.array([0, 2**62, 0], pa.timestamp("us"))
    truth = pa.array([{"ground_truth": answer} for answer in "123"])
    prompts = ["p1", "p2", "p3"]
    pq.write_table(pa.table({"prompt": prompts, "reward_model": truth, "when": stamps}), path)
    return str(path)


def test_a_column_that_is_not_asked_for_is_not_read(tmp_path):
    path = write_timestamps(tmp_path / "file")
    columns = Columns("prompt", "reward_model.ground_truth")
    assert [problem.answer for problem in FileProblems(path, columns).load()[0]] == ["1", "2", "3"]
    with pytest.raises(ValueError, match=r"file, row 1: the value of 'when' cannot be read .*name the columns"):
        ParquetProblems(path).load()
    every = dataclasses.replace(columns, metadata=("*",))
    problems, notes = FileProblems(path, every, skip_bad_rows=True).load()
    assert [problem.metadata for problem in problems] == [{"when": datetime.datetime(1970, 1, 1)}] * 2
    assert notes[0].startswith("row 1: the value of 'when' cannot be read")


def test_damage_in_a_parquet_file_says_how_many_rows_came_before(tmp_path):
    path = parquet(tmp_path / "file", ROWS)
    content = bytearray((tmp_path / "file").read_bytes())
    content[10:40] = bytes(30)
    (tmp_path / "file").write_bytes(content)
    with pytest.raises(ValueError, match="damaged after 0 rows"):
        answers(path)


def test_text_of_parquet_that_is_not_utf8_is_one_bad_row(tmp_path):
    raw = pa.array([b"fine", b"\xff\xfe"], pa.binary())
    text = pa.Array.from_buffers(pa.string(), 2, raw.buffers())
    pq.write_table(pa.table({"q": text, "a": ["1", "2"]}), tmp_path / "file")
    with pytest.raises(ValueError, match="row 1: the value of 'q' cannot be read"):
        answers(tmp_path / "file")
    assert answers(tmp_path / "file", skip_bad_rows=True)[0] == ["1"]


def test_more_rows_than_a_batch(tmp_path):
    rows = [{"q": f"question {number}", "a": number} for number in range(1300)]
    path = parquet(tmp_path / "file", rows)
    assert answers(path)[0] == [str(number) for number in range(1300)]
    pq.write_table(pq.read_table(path), path, row_group_size=100)
    assert answers(path)[0] == [str(number) for number in range(1300)]


def test_an_id_that_stands_twice_is_an_error(tmp_path):
    rows = [row | {"id": number} for row, number in zip(ROWS, (1, 2, 1, 3, 4), strict=True)]
    path = json_lines(tmp_path / "file", rows)
    columns = dataclasses.replace(QA, id="id")
    with pytest.raises(ValueError, match="line 3: the id '1' is that of an earlier row with another prompt"):
        FileProblems(path, columns).load()
    problems, notes = FileProblems(path, columns, skip_bad_rows=True).load()
    assert ([problem.answer for problem in problems], len(notes)) == (["1", "2", "4", "5"], 1)
    repeated = json_lines(tmp_path / "file", [rows[0], rows[0]])  # a copy of a row is a repeated prompt, and no error
    assert len(FileProblems(repeated, columns, deduplicate=True).load()[0]) == 1


def test_repeated_prompts_are_said_or_dropped(tmp_path):
    path = json_lines(tmp_path / "file", [*ROWS, ROWS[0], ROWS[1] | {"a": "7"}])
    kept, notes = answers(path)
    assert kept == ["1", "2", "3", "4", "5", "1", "7"]
    assert notes == (
        "prompts of an earlier row repeated: 2 (the first: line 6), 1 of them with another answer; "
        "deduplicate=True keeps the first row of each",
    )
    kept, notes = answers(path, deduplicate=True)
    assert kept == ["1", "2", "3", "4", "5"]
    assert notes == (
        "line 6: an earlier row has the same prompt",
        "line 7: an earlier row has the same prompt and another answer",
    )


def test_jsonl_problems_reads_lines_and_nothing_else(tmp_path):
    for write, kind in (
        (json_array, "is a JSON array"),
        (parquet, "is parquet"),
        (csv_file, "is no JSON"),
    ):
        with pytest.raises(ValueError, match=f"{kind}.*FileProblems"):
            JsonlProblems(write(tmp_path / "file", ROWS)).load()
    (tmp_path / "file").write_text('[\n{"prompt": "x", "answer": 1},\n{"prompt": "y", "answer": 2}\n]')
    with pytest.raises(ValueError, match="is a JSON array"):
        JsonlProblems(str(tmp_path / "file")).load()
    (tmp_path / "file").write_text(json.dumps({"prompt": "x", "answer": 1}, indent=1))
    with pytest.raises(ValueError, match="is one JSON value over several lines"):
        JsonlProblems(str(tmp_path / "file")).load()


def test_fuzzed_files_end_in_problems_or_in_an_error_with_the_file(tmp_path):
    ended = {fuzz_readers.outcome(source) for _, source, _ in fuzz_readers.cases(7, 150, tmp_path)}
    assert ended == {"read", "ValueError"}


@pytest.mark.slow
def test_many_fuzzed_files(tmp_path):
    ended = {fuzz_readers.outcome(source) for _, source, _ in fuzz_readers.cases(8, 4000, tmp_path)}
    assert ended == {"read", "ValueError"}
