"""Problems from files: the rows that are read and dropped, and the errors that stop a run."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from prerl_jax.data import (
    Columns,
    FileProblems,
    JsonlProblems,
    Message,
    Mixture,
    Options,
    ParquetProblems,
    ShuffledOptions,
    StreamProblems,
)
from prerl_jax.data.problems import parse_answer, parse_prompt
from prerl_jax.data.values import parse_number
from prerl_jax.verify import BoxedAnswer

DATA = Path(__file__).parents[1] / "data"
SHARED = Path(__file__).parents[3] / "shared" / "data"
SYSTEM = r"Please reason step by step, and put your final answer within \boxed{}."


REPEATED = (
    "prompts of an earlier row repeated: {} (the first: {}), {} of them with another answer; "
    "deduplicate=True keeps the first row of each"
)


def test_parquet_reads_verls_schema():
    problems, dropped = ParquetProblems(str(DATA / "math_sample.parquet")).load()
    assert len(problems) == 46
    assert len(dropped) == 4
    assert all("empty ground truth" in line for line in dropped)
    first = problems[0]
    assert first.prompt[0] == Message("system", SYSTEM)
    assert [message.role for message in first.prompt] == ["system", "user"]
    assert (first.answer, first.source) == ("0", "qwen_math_train")
    assert (first.metadata["index"], first.metadata["level"], first.metadata["ability"]) == (0, "Level 5", "math")
    hash(first)


def test_dropped_rows_are_named_by_their_number():
    rows = pq.read_table(DATA / "math_sample.parquet").to_pylist()
    empty = [index for index, row in enumerate(rows) if not row["reward_model"]["ground_truth"]]
    _, dropped = ParquetProblems(str(DATA / "math_sample.parquet")).load()
    assert [line.split(":")[0] for line in dropped] == [f"row {index}" for index in empty]


def test_every_gold_of_the_sample_scores_one_in_its_box():
    problems, _ = ParquetProblems(str(DATA / "math_sample.parquet")).load()
    assert {BoxedAnswer()(problem, f"so \\boxed{{{problem.answer}}}.").reward for problem in problems} == {1.0}


@pytest.mark.skipif(not SHARED.is_dir(), reason="the paper's problem sets are not beside this checkout")
class TestPublishedFiles:
    def test_all_7496_golds_of_math_train_score_one(self):
        problems, dropped = ParquetProblems(str(SHARED / "math_train.parquet")).load()
        assert dropped == tuple(f"row {row}: empty ground truth" for row in (5341, 5343, 6627, 7301))
        assert len(problems) == 7496
        scores = [BoxedAnswer()(problem, f"so \\boxed{{{problem.answer}}}.").reward for problem in problems]
        assert scores == [1.0] * 7496

    @pytest.mark.parametrize(
        ("name", "rows", "distinct"),
        [("aime_2024_20times", 600, 30), ("aime_2025_20times", 600, 30), ("amc2023_20times", 800, 40)],
    )
    def test_evaluation_files_deduplicate(self, name, rows, distinct):
        path = str(SHARED / f"{name}.parquet")
        assert len(ParquetProblems(path).load()[0]) == rows
        assert len(ParquetProblems(path, deduplicate=True).load()[0]) == distinct


def test_parquet_needs_only_prompt_and_ground_truth(tmp_path):
    rows = [{"prompt": "2 + 2 =", "reward_model": {"ground_truth": "4"}}]
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "small.parquet")
    ((problem,), _) = ParquetProblems(str(tmp_path / "small.parquet")).load()
    assert (problem.prompt, problem.answer, problem.source, problem.metadata) == ("2 + 2 =", "4", "", {})


@pytest.mark.parametrize(
    ("row", "missing"),
    [
        ({"question": "a", "answer": "b"}, "'prompt', 'reward_model.ground_truth'"),
        ({"prompt": "a", "answer": "b"}, r"\['reward_model.ground_truth'\]"),
        ({"prompt": "a", "reward_model": {"style": "rule"}}, r"\['reward_model.ground_truth'\]"),
    ],
)
def test_parquet_without_the_columns_names_missing_and_present(tmp_path, row, missing):
    pq.write_table(pa.Table.from_pylist([row]), tmp_path / "bad.parquet")
    with pytest.raises(ValueError, match=missing) as error:
        ParquetProblems(str(tmp_path / "bad.parquet")).load()
    assert all(name in str(error.value) for name in row)


@pytest.mark.parametrize("prompt", [" ", [], [{"role": "user"}], 3])
def test_parquet_names_the_malformed_row(tmp_path, prompt):
    table = pa.Table.from_pylist([{"prompt": prompt, "reward_model": {"ground_truth": "4"}}])
    pq.write_table(table, tmp_path / "bad.parquet")
    with pytest.raises(ValueError, match=r"bad.parquet, row 0: "):
        ParquetProblems(str(tmp_path / "bad.parquet")).load()


def test_not_a_parquet_file(tmp_path):
    (tmp_path / "text.parquet").write_text("hello")
    with pytest.raises(ValueError, match="not a readable parquet file"):
        ParquetProblems(str(tmp_path / "text.parquet")).load()


def test_a_damaged_parquet_file_is_named(tmp_path):
    rows = [{"prompt": "2+2=", "reward_model": {"ground_truth": "4"}}]
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "bad.parquet", compression="none", use_dictionary=False)
    whole = (tmp_path / "bad.parquet").read_bytes()
    length = (4).to_bytes(4, "little") + b"2+2="  # before a text stands its length
    assert whole.count(length) == 1
    (tmp_path / "bad.parquet").write_bytes(whole.replace(length, b"\xff\xff\xff\x7f2+2="))
    with pytest.raises(ValueError, match=r"bad\.parquet is not a readable parquet file"):
        ParquetProblems(str(tmp_path / "bad.parquet")).load()


def test_the_name_of_a_data_set_is_text(tmp_path):
    rows = [{"prompt": "a", "reward_model": {"ground_truth": "4"}, "data_source": 5}]
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "bad.parquet")
    with pytest.raises(ValueError, match=r"bad\.parquet, row 0: `data_source` must be text, got 5"):
        ParquetProblems(str(tmp_path / "bad.parquet")).load()


def test_jsonl():
    (first, second, third), dropped = JsonlProblems(str(DATA / "sample.jsonl")).load()
    assert (first.prompt, first.answer, first.source) == ("What is 2 + 2?", "4", "hand")
    assert first.metadata == {"level": 1}
    assert second.prompt == (Message("system", "Be brief."), Message("user", "What is 3 + 3?"))
    assert (second.answer, second.metadata) == ("6", {"id": "b"})
    assert third.prompt == first.prompt
    assert dropped == (REPEATED.format(1, "line 5", 0), "line 4: empty ground truth")
    (first, second), dropped = JsonlProblems(str(DATA / "sample.jsonl"), deduplicate=True).load()
    assert first.prompt != second.prompt
    assert dropped == ("line 4: empty ground truth", "line 5: an earlier row has the same prompt")


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (5.0, "5"),
        (-3.0, "-3"),
        (0.5, "0.5"),
        (1e20, "1" + 20 * "0"),
        (math.nan, ""),
        (None, ""),
        (7, "7"),
        ("5.0", "5.0"),
    ],
)
def test_a_ground_truth_as_text(value, text):
    assert parse_answer(value) == text


def test_an_infinite_ground_truth_is_refused():
    with pytest.raises(ValueError, match="the ground truth is -inf"):
        parse_answer(-math.inf)


GOOD = b'{"prompt": "a\xe2\x80\xa8b", "answer": "4"}\n'  # a Unicode line separator inside a string is no line end


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (b"{", "line 2: "),
        (b"\xff\xfe", "line 2: "),
        (b"[1]", "line 2: expected a JSON object, got a list"),
        (b"[" * 100_000, "line 2: "),
        (b'{"prompt": "a"}', r"line 2: the keys \['answer'\] are missing"),
        (b'{"prompt": "", "answer": "1"}', "line 2: the prompt is empty"),
        (b'{"prompt": {"role": "user"}, "answer": "1"}', "line 2: the prompt is a dict"),
        (b'{"prompt": [{"role": "user", "content": null}], "answer": "1"}', "line 2: a message must be"),
        (rb'{"prompt": "a", "answer": "\ud800"}', "line 2: .*surrogates not allowed"),
        (b'{"prompt": "a", "answer": ["1"]}', "line 2: the ground truth is a list"),
        (b'{"prompt": "a", "answer": true}', "line 2: the ground truth is a bool"),
        (b'{"prompt": "a", "answer": "1", "metadata": [1]}', "line 2: `metadata` must be an object"),
    ],
)
def test_jsonl_names_the_malformed_line(tmp_path, line, message):
    (tmp_path / "bad.jsonl").write_bytes(GOOD + line)
    with pytest.raises(ValueError, match=message):
        JsonlProblems(str(tmp_path / "bad.jsonl")).load()


@pytest.mark.parametrize("answer", [None, "", "\n"])
def test_a_data_set_of_empty_truths_is_empty(tmp_path, answer):
    (tmp_path / "empty.jsonl").write_text(json.dumps({"prompt": "a", "answer": answer}))
    with pytest.raises(ValueError, match=r"has no valid problem \(1 rows dropped"):
        JsonlProblems(str(tmp_path / "empty.jsonl")).load()


def test_empty_files(tmp_path):
    (tmp_path / "empty.jsonl").write_text("\n\n")
    with pytest.raises(ValueError, match="has no valid problem"):
        JsonlProblems(str(tmp_path / "empty.jsonl")).load()
    table = pq.read_table(DATA / "math_sample.parquet")
    pq.write_table(table.slice(0, 0), tmp_path / "empty.parquet")
    with pytest.raises(ValueError, match="has no valid problem"):
        ParquetProblems(str(tmp_path / "empty.parquet")).load()


def test_a_file_inside_an_installed_package(tmp_path, monkeypatch):
    (tmp_path / "shipped_problems").mkdir()
    (tmp_path / "shipped_problems" / "few.jsonl").write_bytes(GOOD)
    monkeypatch.syspath_prepend(tmp_path)
    ((problem,), _) = JsonlProblems("package:shipped_problems/few.jsonl").load()
    assert problem.answer == "4"
    with pytest.raises(FileNotFoundError, match=r"none\.jsonl"):
        JsonlProblems("package:shipped_problems/none.jsonl").load()


def test_several_files_follow_one_another(tmp_path):
    paths = tuple(str(tmp_path / f"{name}.jsonl") for name in "abc")
    rows = [[("1+1", "2"), ("2+2", "")], [("3+3", "6"), ("1+1", "2")], [("4+4", "")]]
    for path, pairs in zip(paths, rows, strict=True):
        text = "\n".join(json.dumps({"prompt": prompt, "answer": answer, "source": path}) for prompt, answer in pairs)
        Path(path).write_text(text)
    problems, dropped = JsonlProblems(paths[:2]).load()
    assert [(problem.prompt, problem.source) for problem in problems] == [
        ("1+1", paths[0]),
        ("3+3", paths[1]),
        ("1+1", paths[1]),
    ]
    assert dropped == (REPEATED.format(1, f"{paths[1]}, line 2", 0), f"{paths[0]}, line 2: empty ground truth")
    problems, dropped = JsonlProblems(paths[:2], deduplicate=True).load()
    assert [problem.prompt for problem in problems] == ["1+1", "3+3"]
    assert dropped[1] == f"{paths[1]}, line 2: an earlier row has the same prompt"
    with pytest.raises(ValueError, match=r"c\.jsonl has no valid problem \(1 rows dropped, the first: .*empty"):
        JsonlProblems(paths).load()
    with pytest.raises(FileNotFoundError, match="none"):
        ParquetProblems((str(DATA / "math_sample.parquet"), "none")).load()
    with pytest.raises(ValueError, match="at least one file"):
        ParquetProblems(()).load()


@pytest.mark.parametrize("source", [ParquetProblems, JsonlProblems])
def test_no_such_file(tmp_path, source):
    with pytest.raises(FileNotFoundError, match=r"nowhere\.x"):
        source(str(tmp_path / "nowhere.x")).load()


@pytest.mark.parametrize(
    "text",
    [
        '[{"type": "text", "role": "user", "text": "x"}]',
        '[{"name": null, "role": "user"}]',
        '["hi there"]',
        "{'question': 'hi'}",
    ],
)
def test_a_list_or_an_object_in_a_text_is_no_prompt(text):
    with pytest.raises(ValueError, match="a message must be"):
        parse_prompt(text)


@pytest.mark.parametrize(
    "turns",
    [
        [{"role": "USER", "content": "x"}, {"role": "Assistant", "content": "y"}],
        [{"from": "human", "value": "x"}, {"from": "gpt", "value": "y"}],
        [{"role": "user", "content": [{"type": "text", "text": "x"}]}, {"role": "model", "content": "y"}],
        [{"role": None, "content": None, "from": "human", "value": "x"}],
        "[{'from': 'human', 'value': 'x'}]",
    ],
)
def test_turns_as_other_programs_write_them(turns):
    assert parse_prompt(turns) == (Message("user", "x"),)


@pytest.mark.parametrize(
    ("turn", "message"),
    [
        ({"role": "tool", "content": "x"}, "must be user, assistant or system, got 'tool'"),
        ({"role": "", "content": "x"}, "must be user, assistant or system, got ''"),
        ({"role": "user", "content": [{"type": "image", "url": "x"}]}, "a message must be"),
    ],
)
def test_turns_that_are_refused(turn, message):
    with pytest.raises(ValueError, match=message):
        parse_prompt([turn])


def test_a_message_in_a_text():
    assert parse_prompt("{'role': 'user', 'content': 'hi'}") == (Message("user", "hi"),)
    assert [parse_prompt(text) for text in ("[1, 2]", "{x} is a set", "[a]")] == ["[1, 2]", "{x} is a set", "[a]"]


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (
            lambda: FileProblems(Path("x")),
            r"FileProblems\.path: expected str \| tuple\[str, .* \| HubFiles, got Po",
        ),
        (lambda: FileProblems(None), r"FileProblems\.path: expected str .*, got NoneType None"),
        (lambda: Columns("q", ["a"]), r"Columns\.answer: expected str, got list \['a'\]"),
        (lambda: Columns(metadata="foo"), r"Columns\.metadata: expected tuple\[str, \.\.\.\], got str 'foo'"),
        (lambda: Mixture((JsonlProblems("a"), JsonlProblems("b"))), r"a pair \(source, weight\)"),
        (lambda: Mixture(((JsonlProblems, 1), (JsonlProblems("b"), 1))), "a part is a source with fixed problems"),
        (lambda: Mixture(5), r"a tuple of \(source, weight\) pairs, got 5"),
        (lambda: StreamProblems("x", wait="0"), r"StreamProblems\.wait: expected float, got str '0'"),
    ],
)
def test_an_argument_of_the_wrong_type_is_said(make, message):
    with pytest.raises(ValueError, match=message):
        make()


@pytest.mark.parametrize("word", ["NA", "nan", "None", "null", "N/A"])
def test_words_for_nothing_in_a_csv(tmp_path, word):
    (tmp_path / "file").write_text(f"prompt,answer\nx,{word}\ny,1\n")
    assert [problem.answer for problem in FileProblems(str(tmp_path / "file")).load()[0]] == ["1"]
    assert parse_number(word, "difficulty") is None


def test_a_share_in_percent():
    assert parse_number("37.5%", "difficulty") == 0.375


def test_a_sentinel_may_end_with_a_full_stop(tmp_path):
    rows = [{"prompt": "x", "answer": "Proof."}, {"prompt": "y", "answer": "1"}]
    (tmp_path / "file").write_text("\n".join(map(json.dumps, rows)))
    columns = Columns(drop=(("answer", ("proof",)),))
    assert len(FileProblems(str(tmp_path / "file"), columns).load()[0]) == 1


def test_the_remedy_for_a_layout_reads_the_file(tmp_path):
    (tmp_path / "file").write_text('{"data": [{"prompt": "x", "answer": "1"}]}')
    with pytest.raises(ValueError, match='rows="data"'):
        FileProblems(str(tmp_path / "file")).load()
    (tmp_path / "file").write_text('{"version": 1, "schema": [{"a": 1}], "rows": [{"prompt": "x", "answer": "1"}]}')
    with pytest.raises(ValueError, match='rows="rows"'):
        FileProblems(str(tmp_path / "file")).load()
    with pytest.raises(ValueError, match="is not one JSON value with the list 'a', which `rows` names"):
        FileProblems(written(tmp_path / "file", ROW, ROW), rows="a").load()
    splits = {"train": [ROW], "test": [ROW]}
    with pytest.raises(ValueError, match='rows="train" or rows="test"'):
        FileProblems(written(tmp_path / "file", splits)).load()
    assert len(FileProblems(written(tmp_path / "file", splits), rows="test").load()[0]) == 1
    (tmp_path / "file").write_text('{"prompt": "x", "reward_model": {"ground_truth": "1"}}')
    with pytest.raises(ValueError, match=r"fits FileProblems\(path, maps.VERL\)"):
        FileProblems(str(tmp_path / "file")).load()


def written(path, *rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


ROW = {"prompt": "x", "answer": "1", "subject": "s", "level": 1}


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        (Columns(metadata=("subjct",)), r"Did you mean 'subject' for 'subjct'\? .*optional=\('subjct',\)"),
        (Columns(difficulty="levels"), r"Did you mean 'level' for 'levels'\? .*optional=\('levels',\)"),
        (Columns(unit="nothing_alike"), r"\['answer', 'level', 'prompt', 'subject'\]\. If rows may lack them"),
        (Columns("promt"), r"Did you mean 'prompt' for 'promt'\? The layout fits FileProblems\(path\)"),
    ],
)
@pytest.mark.parametrize("table", [False, True])
def test_a_misspelt_column_is_told_its_nearest(tmp_path, columns, message, table):
    path = written(tmp_path / "file", ROW)
    if table:
        pq.write_table(pa.Table.from_pylist([ROW]), path)
    with pytest.raises(ValueError, match=message) as error:
        FileProblems(path, columns).load()
    assert "Columns(prompt=" not in str(error.value)


def test_a_bad_row_after_good_ones_may_be_left_out(tmp_path):
    path = written(tmp_path / "file", ROW, {"question": "y", "answer": "2"})
    with pytest.raises(ValueError, match=r"line 2: the keys \['prompt'\] are missing.*skip_bad_rows=True") as error:
        FileProblems(path).load()
    assert "Columns(" not in str(error.value)


def test_a_list_beside_a_question_is_not_taken_for_the_rows(tmp_path):
    row = {"question": "Write f.", "tests": [{"in": 1, "out": 2}], "solution": "f"}
    with pytest.raises(ValueError, match=r'layouts.programs\(path, prompt="question"\)'):
        FileProblems(written(tmp_path / "file", row)).load()
    with pytest.raises(ValueError, match=r'Columns\(prompt="messages", answer="..."\)'):
        FileProblems(written(tmp_path / "file", {"messages": [{"role": "user", "content": "x"}]})).load()


def test_the_columns_of_a_layout_of_its_own_are_proposed(tmp_path):
    with pytest.raises(ValueError, match=r'Columns\(prompt="Question", answer="Answer"\).*skip_bad_rows=True'):
        FileProblems(written(tmp_path / "file", {"Question": "y", "Answer": "2"})).load()
    with pytest.raises(ValueError, match=r'Columns\(prompt="0", answer="1"\)'):
        FileProblems(written(tmp_path / "file", ["y", "2"])).load()
    problems, _ = FileProblems(written(tmp_path / "file", ["y", "2"], ["z", "3"]), Columns("0", "1")).load()
    assert [problem.answer for problem in problems] == ["2", "3"]


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("https://host/a.jsonl", "download the file"),
        ("data/*.jsonl", "names of the files as a tuple"),
        ("openai/gsm8k", r'HubProblems\("openai/gsm8k"\)'),
    ],
)
def test_a_path_that_is_none_says_what_to_write_instead(path, message):
    with pytest.raises(FileNotFoundError, match=message):
        FileProblems(path).load()


WORKED = "It has 3 + 2 = 5 pens.\nThen it has 5 + 1 = 6 pens."
LONG_TEXT = "First we add the numbers of the two lists, and then we take the largest one of all.\nSo the answer is 12."


@pytest.mark.parametrize(
    ("answer", "rule"),
    [
        (f"{WORKED}\n#### 6", 'MarkedGold("####")'),
        (rf"{WORKED} \boxed{{6}}", "BoxedGold()"),
        (r"\boxed{6}", "BoxedGold()"),
        (LONG_TEXT, "MarkedGold(the text before the answer)"),
    ],
)
def test_worked_solutions_that_are_read_as_answers_are_said_once(tmp_path, answer, rule):
    rows = [{"prompt": f"q{number}", "answer": answer} for number in range(3)]
    path = written(tmp_path / "file", *rows, {"prompt": "x", "answer": "6"}, {"prompt": "y", "answer": ""})
    (note, _) = FileProblems(path).load()[1]  # the other one is the empty answer's
    assert note.startswith("3 of 4 answers are worked solutions, and a verifier that compares answers would ")
    assert f"Columns(..., gold={rule})" in note
    mostly_plain = [{"prompt": f"p{number}", "answer": str(number)} for number in range(3)]
    assert FileProblems(written(tmp_path / "file", *rows, *mostly_plain)).load()[1] == ()


def test_short_answers_of_several_lines_are_no_worked_solutions(tmp_path):
    assert FileProblems(written(tmp_path / "file", {"prompt": "A poem?", "answer": "a\nb\nc"})).load()[1] == ()
    code = json.dumps(["assert f(1) == 2"] * 30)
    assert FileProblems(written(tmp_path / "file", {"prompt": "A function?", "answer": code})).load()[1] == ()


def test_a_field_of_the_wrong_type_has_its_own_name(tmp_path):
    row = {"prompt": "q", "answer": "A", "o": ["x", ["y"]], "w": ["z"], "i": ["j"]}
    for columns, name in (
        (Columns(options=Options("o")), "option 2 is a list"),
        (Columns(options=ShuffledOptions(("w",))), "the wrong option `w` is a list"),
        (Columns(id="i"), "the id `i` is a list"),
        (Columns(answer="w", options=Options(("prompt", "answer"))), "the answer, which names the right option, is a"),
    ):
        with pytest.raises(ValueError, match=f"line 1: {name}") as error:
            FileProblems(written(tmp_path / "file", row), columns).load()
        assert "ground truth" not in str(error.value)
        assert "AnyGold" not in str(error.value)
