"""Readers of published data sets, on rows of our own writing in their layouts, in every kind of file."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
from published import ROWS, TURNS, VERL, csv_file, json_array, json_lines, parquet, writers

from prerl_jax.data import layouts
from prerl_jax.data.columns import Columns
from prerl_jax.data.problems import Message, as_text
from prerl_jax.data.sources import FileProblems, ParquetProblems

EXPECTED = {
    "FileProblems": {"answer": "2", "source": ""},
    "JsonlProblems": {"answer": "2", "source": "own", "metadata": {"level": 1}},
    "ParquetProblems": {"answer": "3", "source": "own"},
    "gsm8k": {"answer": "1005", "alternatives": ("1,005",), "source": "gsm8k", "answer_format": "#### {answer}"},
    "mathqa": {"answer": "B", "metadata": {"options": ("1,000", "7", "rs . 5", "none of these")}},
    "aqua_rat": {"answer": "C", "metadata": {"options": ("5", "6", "7")}},
    "logical_deduction": {"answer": "A", "answer_format": "The answer is ({answer})."},
    "math500": {"answer": r"\frac{3}{2}", "difficulty": 2.0, "metadata": {"subject": "Algebra"}},
    "aime": {"answer": "25", "alternatives": ("025",)},
    "aime_boxed": {"answer": "25"},
    "amc": {"answer": "12"},
    "minerva": {"answer": "1.6"},
    "olympiadbench": {"answer": "(1,8), (2,7)", "unit": "cm^2", "tolerance": 0.1},
    "hendrycks_math": {"answer": r"\frac{3}{2}", "difficulty": 3.0},
    "math_eval": {"answer": r"\frac{1}{2}", "alternatives": ("0.5",)},
    "mmlu_pro": {"answer": "J", "source": "law"},
    "mmlu": {"answer": "B"},
    "gpqa": {},
    "dapo_math": {"answer": "3", "answer_format": "Answer: {answer}", "source": "dapo_math"},
    "dapo_processed": {"answer": "4"},
    "deepscaler": {"answer": "4"},
    "polaris": {"answer": "4", "difficulty": 0.375},
    "big_math": {"answer": "4", "source": "own", "difficulty": None},
    "open_reasoner_zero": {"answer": "4"},
    "skywork": {"answer": r"\frac{1}{2}", "alternatives": ("0.5",), "difficulty": 4.0},
    "numina": {"answer": "5", "source": "own"},
    "openr1_math": {"answer": "5"},
    "deepmath": {"answer": "Yes", "difficulty": 4.5},
    "deepmath_trl": {"answer": "3", "answer_format": r"\boxed{{answer}}"},
    "rlvr": {"answer": "3", "source": "MATH", "prompt": (Message(**TURNS[0]),)},
    "intellect2": {"answer": "4", "difficulty": 0.25},
    "programs": {"answer": "", "prompt": "Write negate(x)."},
}
SHARED = Path(__file__).parents[3] / "shared" / "data"
CASES = [pytest.param(name, write, id=f"{name}-{write.__name__}") for name in ROWS for write in writers(name)]


@pytest.mark.parametrize(("name", "write"), CASES)
def test_a_layout_is_read_from_each_kind_of_file(tmp_path, name, write):
    reader, row = ROWS[name]
    problems, notes = reader(write(tmp_path / "file.json", [row, row])).load()  # one list alone would be an array
    problem = problems[0]
    assert set(map(str, problems)) == {str(problem)}
    assert len(notes) == 1
    assert "earlier row" in notes[0]
    assert {field: getattr(problem, field) for field in EXPECTED[name]} == EXPECTED[name]
    if problem.answer_format:
        assert problem.answer_format.replace("{answer}", "7") in (
            r"\boxed{7}",
            "#### 7",
            "Answer: 7",
            "The answer is (7).",
        )


def test_every_reader_is_tried():
    readers = {name for name, thing in vars(layouts).items() if getattr(thing, "__module__", "") == layouts.__name__}
    assert readers <= set(ROWS) == set(EXPECTED)


def test_prompts_list_the_options_and_say_how_to_answer(tmp_path):
    ((problem,), _) = layouts.mathqa(json_array(tmp_path / "file.json", [ROWS["mathqa"][1]])).load()
    assert problem.prompt == (
        "3 + 4 is\nOptions:\n(A) 1,000\n(B) 7\n(C) rs . 5\n(D) none of these\n\n"
        'Reason step by step. End with "The answer is (X).", where X is the letter of the right option.'
    )


def test_a_context_stands_before_the_question(tmp_path):
    rows = [ROWS["olympiadbench"][1], ROWS["olympiadbench"][1] | {"id": 10, "context": None}]
    problems, _ = layouts.olympiadbench(parquet(tmp_path / "file", rows)).load()
    assert [problem.prompt[-1].content for problem in problems] == [
        "Let n be whole.\n\nFind all pairs.",
        "Find all pairs.",
    ]


def test_numinas_sentinels_and_invalid_rows_are_dropped_and_counted(tmp_path):
    good = ROWS["numina"][1]
    changes = [
        {"answer": "Proof"},
        {"answer": " notfound "},
        {"question_type": "proof"},
        {"problem_is_valid": "Incomplete"},
    ]
    changes += [{"solution_is_valid": None}, {"answer": None}, {"answer": ""}]
    rows = [good, *(good | {"problem": f"q{number}"} | change for number, change in enumerate(changes))]
    problems, notes = layouts.numina(json_lines(tmp_path / "file", rows)).load()
    assert len(problems) == 1
    assert notes == (
        "line 2: `answer` is 'Proof'",
        "line 3: `answer` is 'notfound'",
        "line 4: `question_type` is 'proof'",
        "line 5: `problem_is_valid` is 'Incomplete'",
        "line 6: `solution_is_valid` is ''",
        "line 7: empty ground truth",
        "line 8: empty ground truth",
    )


def test_a_filter_needs_no_answer_in_the_rows_that_it_drops(tmp_path):
    code = {"prompt": "Write code.", "task_type": "code", "verification_info": '{"tests": []}', "solve_rate": 1.0}
    problems, notes = layouts.intellect2(parquet(tmp_path / "file", [ROWS["intellect2"][1], code])).load()
    assert (len(problems), notes) == (1, ("row 1: `task_type` is 'code'",))


def test_shuffled_options_depend_on_the_seed_and_the_question_alone(tmp_path):
    rows = [ROWS["gpqa"][1] | {"Question": f"Which gas? {number}"} for number in range(40)]
    path = csv_file(tmp_path / "file", rows)
    first, again = layouts.gpqa(path).load(), layouts.gpqa(path).load()
    assert first == again
    assert [problem.metadata["options"]["ABCD".index(problem.answer)] for problem in first[0]] == ["neon"] * 40
    assert {problem.answer for problem in first[0]} == set("ABCD")
    other = layouts.gpqa(path, seed=1).load()
    assert [problem.answer for problem in other[0]] != [problem.answer for problem in first[0]]
    reversed_file = csv_file(tmp_path / "reversed", rows[::-1])
    assert layouts.gpqa(reversed_file).load()[0] == first[0][::-1]


def test_dapo_is_read_once_for_each_problem(tmp_path):
    rows = [VERL | {"prompt": [{"role": "user", "content": f"q{number % 5}"}]} for number in range(60)]
    problems, notes = layouts.dapo_math(parquet(tmp_path / "file", rows)).load()
    assert [as_text(problem.prompt) for problem in problems] == [f"q{number}" for number in range(5)]
    assert notes[0] == "55 rows: an earlier row has the same prompt"
    assert len(notes) == 11


@pytest.mark.parametrize(
    "name", ["gsm8k", "mathqa", "aqua_rat", "minerva", "olympiadbench", "gpqa", "numina", "programs"]
)
def test_a_layout_that_does_not_fit_names_the_reader_that_would(tmp_path, name):
    path = json_lines(tmp_path / "file.jsonl", [ROWS[name][1]])
    with pytest.raises(ValueError, match=rf"file\.jsonl, line 1: .*\b{name}\(path\)") as error:
        FileProblems(path, Columns("nothing", "like it")).load()
    assert all(column in str(error.value) for column in ROWS[name][1])


def test_other_layouts_are_named_too(tmp_path):
    write = writers("logical_deduction")[0]
    with pytest.raises(ValueError, match=r'logical_deduction\(path\).*rows="examples"'):
        FileProblems(write(tmp_path / "file.json", [ROWS["logical_deduction"][1]])).load()
    with pytest.raises(ValueError, match=r"open_reasoner_zero\(path\)"):
        FileProblems(json_array(tmp_path / "file.json", [ROWS["open_reasoner_zero"][1]])).load()
    with pytest.raises(ValueError, match=r"FileProblems\(path, maps.VERL\)"):
        FileProblems(parquet(tmp_path / "file", [VERL])).load()
    with pytest.raises(ValueError, match=r'Columns\(prompt="question", answer="label"\)'):
        FileProblems(csv_file(tmp_path / "file.csv", [{"question": "a", "label": "b"}])).load()
    with pytest.raises(ValueError, match=r'programs\(path, prompt="question"\)'):
        FileProblems(json_lines(tmp_path / "file.jsonl", [{"question": "a", "tests": []}])).load()
    with pytest.raises(ValueError, match=r"its lists are \['examples'\]"):
        dataclasses.replace(layouts.logical_deduction(write(tmp_path / "file.json", [])), rows="rows").load()


def test_the_columns_of_copies_on_the_hub(tmp_path):
    """As read on the pages of the hub: math-ai/amc23, lukaemon/bbh and allenai/RLVR-GSM-MATH-IF-Mixed-Constraints."""
    row = {"id": 1, "question": "A dozen and 15?", "answer": "27.0", "url": "u"}
    ((problem,), _) = layouts.amc(parquet(tmp_path / "file", [row]), prompt="question").load()
    assert (problem.answer, problem.alternatives) == ("27", ("27.0",))
    ((problem,), _) = layouts.logical_deduction(parquet(tmp_path / "file", [ROWS["logical_deduction"][1]])).load()
    assert problem.answer == "A"
    rows = [
        {"messages": [{"role": "user", "content": name}], "ground_truth": truth, "dataset": name, "constraint": None}
        for name, truth in (("gsm8k", "7"), ("MATH", "[0, 1]"), ("ifeval", '{"func_name": "validate_end"}'))
    ]
    problems, notes = layouts.rlvr(parquet(tmp_path / "file", rows)).load()
    assert [(problem.source, problem.answer) for problem in problems] == [("gsm8k", "7"), ("MATH", "[0, 1]")]
    assert notes == ("row 2: `dataset` is 'ifeval'",)


def test_skyworks_list_in_a_text_is_any_of_for_verls_reader_too(tmp_path):
    ((problem,), _) = ParquetProblems(parquet(tmp_path / "file", [ROWS["skywork"][1]])).load()
    assert (problem.answer, problem.alternatives) == (r"\frac{1}{2}", ("0.5",))


@pytest.mark.skipif(not SHARED.is_dir(), reason="the published files are not beside this checkout")
@pytest.mark.parametrize(
    ("reader", "file", "count"),
    [
        (layouts.gsm8k, "article/gsm8k_test.jsonl", 1319),
        (layouts.mathqa, "article/mathqa_test.json", 2742),
        (layouts.aqua_rat, "article/aqua_rat_test.json", 254),
        (layouts.logical_deduction, "article/bbh_logical_deduction_seven_objects.json", 250),
        (layouts.math500, "math_sets/math500.jsonl", 500),
        (layouts.aime, "math_sets/aime24.jsonl", 30),
        (layouts.amc, "math_sets/amc23.jsonl", 40),
        (layouts.minerva, "math_sets/minerva_math.jsonl", 272),
        (layouts.olympiadbench, "math_sets/olympiadbench.jsonl", 675),
    ],
)
def test_published_files_are_read_whole(reader, file, count):
    problems, notes = reader(str(SHARED / file)).load()
    assert (len(problems), notes) == (count, ())
    assert not [problem.answer for problem in problems if problem.answer != problem.answer.strip(" \n$")]
