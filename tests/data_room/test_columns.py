"""Column maps and instructions: how a row becomes a problem."""

from __future__ import annotations

import functools

import pytest

from prerl_jax.data.columns import Columns, Dropped
from prerl_jax.data.golds import LetterGold, NumberGold
from prerl_jax.data.instructions import BOXED, Instructions
from prerl_jax.data.options import Options, ShuffledOptions
from prerl_jax.data.problems import Message, Problem, parse_prompt
from prerl_jax.data.values import parse_number

ROW = {"prompt": "1 + 1?", "answer": "2"}
USER = Message("user", "1 + 1?")


def problem(row, columns=Columns(), instructions=Instructions(), source=""):  # noqa: B008
    made = columns.problem(row, instructions, source)
    assert isinstance(made, Problem)
    return made


@pytest.mark.parametrize(
    ("row", "name"),
    [
        ({"a": {"b": "2"}}, "a.b"),
        ({"a.b": "2"}, "a.b"),
        ({"a": {"b.c": "2"}}, "a.b.c"),
        ({"a": '{"b": {"c": 2}}'}, "a.b.c"),
        ({"a": "{'b': '2'}"}, "a.b"),
        ({"a": [{"b": 1}, {"b": 2}]}, "a.1.b"),
        ({"a": '[1, "2"]'}, "a.1"),
    ],
)
def test_a_name_with_dots(row, name):
    assert problem({"prompt": "x"} | row, Columns(answer=name)).answer == "2"


@pytest.mark.parametrize("row", [{"a": {}}, {"a": []}, {"a": 5}, {"a": "{}"}, {}])
def test_a_name_that_leads_nowhere(row):
    with pytest.raises(ValueError, match=r"the keys \['a.b'\] are missing; it has .*'prompt'"):
        problem({"prompt": "x"} | row, Columns(answer="a.b"))


def test_none_on_the_way_is_an_empty_ground_truth():
    assert Columns(answer="a.b").problem({"prompt": "x", "a": None}, BOXED, "") == Dropped("empty ground truth")


def test_a_text_on_the_way_that_is_no_json():
    with pytest.raises(ValueError, match="neither JSON nor a Python value: 'free text'"):
        problem({"prompt": "x", "a": "free text"}, Columns(answer="a.b"))


def test_the_columns_of_a_problem():
    columns = Columns(
        source="set", difficulty="rate", unit="unit", tolerance="error", context="story", metadata=("id", "more.*")
    )
    row = ROW | {"set": "own", "rate": "3/8", "unit": r"$\mathrm{~cm}$", "error": ".02,.01", "story": "Long ago."}
    made = problem(row | {"id": 3, "more": {"level": 1}, "unused": 0}, columns)
    assert made == Problem(
        "Long ago.\n\n1 + 1?", "2", "own", {"id": 3, "level": 1}, "", (), unit="cm", tolerance=0.01, difficulty=0.375
    )
    made = problem(ROW | dict.fromkeys(("set", "rate", "unit", "error", "story", "id", "more")), columns, source="all")
    assert made == Problem("1 + 1?", "2", "all", {"id": None})


@pytest.mark.parametrize(
    ("value", "number"),
    [(3, 3.0), (0.5, 0.5), ("3/8", 0.375), ("Level 5", 5.0), ("-1.5", -1.5), ("1e-2", 0.01), (".5", 0.5)],
)
def test_numbers(value, number):
    assert parse_number(value, "x") == number


@pytest.mark.parametrize("value", [None, "", "Level ?", " ", float("nan")])
def test_no_number(value):
    assert parse_number(value, "x") is None


@pytest.mark.parametrize("value", ["1/0", "high", True, [1], float("inf"), 10**400, "1e999", "1_0", {}])
def test_not_a_number(value):
    with pytest.raises(ValueError, match="`x` must be a number"):
        parse_number(value, "x")


@pytest.mark.parametrize(
    ("columns", "row", "message"),
    [
        (Columns(source="set"), {"set": 5}, "`set` must be text, got 5"),
        (Columns(source="set"), {"set": ["a", "b"]}, "`set` must be text"),
        (Columns(tolerance="error"), {"error": "-1"}, "`error` must not be negative"),
        (Columns(context="story"), {"story": 5}, "`story` must be text"),
        (Columns(metadata=("more.*",)), {"more": [1]}, "`more` must be an object"),
        (Columns(answer="x.y"), {"x": {"y": [1]}}, r"the ground truth is a list.* \(column `x\.y`\)"),
        (Columns(answer="n", gold=NumberGold()), {"n": "two"}, r"is not a number: 'two' \(column `n`\)"),
        (Columns(answer="n", gold=LetterGold()), {"n": "2"}, r"not the letter of an option: '2' \(column `n`\)"),
    ],
)
def test_columns_of_a_wrong_type(columns, row, message):
    with pytest.raises(ValueError, match=message):
        problem(ROW | row, columns)


def test_filters():
    columns = Columns(keep=(("valid", ("yes", "true")),), drop=(("kind", ("proof",)),), optional=("kind",))
    assert problem(ROW | {"valid": "Yes"}, columns).answer == "2"
    assert problem(ROW | {"valid": True, "kind": ["word"]}, columns).answer == "2"
    assert columns.problem(ROW | {"valid": None}, BOXED, "") == Dropped("`valid` is ''")
    assert columns.problem(ROW | {"valid": "yes", "kind": " Proof"}, BOXED, "") == Dropped("`kind` is 'Proof'")


def test_instructions_around_a_text():
    wording = Instructions(before="Q: ", after="\nEnd with #### N.", answer_format="#### {answer}")
    made = problem(ROW, instructions=wording)
    assert (made.prompt, made.answer_format) == ("Q: 1 + 1?\nEnd with #### N.", "#### {answer}")


def test_few_shot_turns_and_a_system_turn():
    shots = (Message("user", "0 + 1?"), Message("assistant", "1"))
    system = Message("system", "Be brief.")
    assert Instructions(few_shot=shots).ask("1 + 1?") == (*shots, USER)
    assert Instructions(system="Be brief.", few_shot=shots).ask("1 + 1?") == (system, *shots, USER)
    assert Instructions(after="!", few_shot=shots).ask((system, USER)) == (system, *shots, Message("user", "1 + 1?!"))
    assert Instructions().ask((system, USER)) == (system, USER)
    with pytest.raises(ValueError, match="system turn of its own"):
        Instructions(system="x").ask((system, USER))
    with pytest.raises(ValueError, match="no user turn"):
        Instructions(after="x").ask((system,))
    with pytest.raises(ValueError, match="alternate"):
        Instructions(few_shot=shots[::-1])
    with pytest.raises(ValueError, match=r"needs \{answer\}"):
        Instructions(answer_format="####")


@pytest.mark.parametrize(
    "value",
    [
        [{"role": "user", "content": "1 + 1?"}, {"role": "assistant", "content": "2"}],
        "[{'content': '1 + 1?', 'role': 'user'}]",
        '[{"role": "user", "content": "1 + 1?"}, {"role": "assistant", "content": "2"}]',
        " [ {'role': 'user', 'content': '1 + 1?'}]\n",
    ],
)
def test_a_prompt_of_messages(value):
    assert parse_prompt(value) == (USER,)


@pytest.mark.parametrize("value", ["[1, 2] is a list. Which?", "{'role'} is a set", "[{x} is what?"])
def test_a_text_that_only_looks_like_messages(value):
    assert parse_prompt(value) == value


@pytest.mark.parametrize(
    "value",
    [
        "[{'content': 'a', 'role': 'user'}\n {'content': 'b', 'role': 'user'}]",  # as NumPy prints it
        "[{'content': array(['a']), 'role': 'user'}]",
        "[{'content': 'a', 'role': 'user'",
        "[{'role': __import__('os').getcwd(), 'content': 'a'}]",
        "[{'role': " + "-" * 5000 + "1}]",
        "[{'role': 1" + "+1" * 20_000 + "}]",
        "[{'role': 'user', 'content': 5}]",
        [{"role": "assistant", "content": "2"}],
        [{"role": "user", "content": " "}],
    ],
)
def test_messages_that_cannot_be_read(value):
    with pytest.raises(ValueError, match=r"neither JSON nor a Python value|a message must be|the prompt is empty"):
        parse_prompt(value)


@pytest.mark.parametrize(
    ("options", "row", "letter", "texts"),
    [
        (Options("o"), {"o": ["x", "y"], "answer": "b"}, "B", ("x", "y")),
        (Options("o"), {"o": ["A) x", "B) y"], "answer": "(B)"}, "B", ("x", "y")),
        (Options("o"), {"o": ["(a) x", "(b) y"], "answer": "A."}, "A", ("x", "y")),
        (Options("o"), {"o": "a ) 1 , 200 , b ) 3 , c ) none", "answer": "c"}, "C", ("1 , 200", "3", "none")),
        (Options("o"), {"o": "A. x\nB. y", "answer": "A"}, "A", ("x", "y")),
        (Options("o"), {"o": "['x', 'y']", "answer": "B"}, "B", ("x", "y")),
        (Options("o"), {"o": {"A": "x", "B": "y", "C": None}, "answer": "B"}, "B", ("x", "y")),
        (Options("o"), {"o": {"label": ["1", "2"], "text": ["x", "y"]}, "answer": "2"}, "B", ("x", "y")),
        (Options("o", "index"), {"o": ["1", "0"], "answer": 0}, "A", ("1", "0")),
        (Options(("p", "q"), "number"), {"p": "x", "q": 7, "answer": "2"}, "B", ("x", "7")),
        (Options("o", "text"), {"o": ["x", "y"], "answer": "y"}, "B", ("x", "y")),
    ],
)
def test_options(options, row, letter, texts):
    made = problem({"prompt": "Which?"} | row, Columns(options=options))
    assert (made.answer, made.metadata) == (letter, {"options": texts})
    lines = [f"({name}) {text}" for name, text in zip("ABC", texts, strict=False)]
    assert made.prompt == "\n".join(["Which?", "Options:", *lines])


def test_a_map_without_an_answer_reads_none():
    made = problem(ROW | {"tests": [1]}, Columns(answer="", metadata=("tests",)))
    assert (made.answer, made.alternatives, made.metadata) == ("", (), {"tests": [1]})


@pytest.mark.parametrize(
    ("options", "row", "message"),
    [
        (Options("o"), {"o": ["x", "y"], "answer": "C"}, "'C' is not the letter of one of the 2 options"),
        (Options("o"), {"o": ["x", "y"], "answer": "1"}, "not the letter"),
        (Options("o", "index"), {"o": ["x", "y"], "answer": 2}, "not the index"),
        (Options("o", "number"), {"o": ["x", "y"], "answer": 0}, "not the number"),
        (Options("o", "text"), {"o": ["x", "x"], "answer": "x"}, "not the text"),
        (Options("o"), {"o": ["x"], "answer": "A"}, "2 to 26 options"),
        (Options("o"), {"o": ["x", ""], "answer": "A"}, "none of them empty"),
        (Options("o"), {"o": ["x"] * 27, "answer": "A"}, "2 to 26 options"),
        (Options("o"), {"o": "38 or 27", "answer": "A"}, "do not begin with"),
        (Options("o"), {"o": 5, "answer": "A"}, "the options are a int"),
        (ShuffledOptions(("w",)), {"w": "x", "answer": "x"}, "is a wrong one, too"),
    ],
)
def test_options_that_do_not_fit(options, row, message):
    with pytest.raises(ValueError, match=message):
        problem({"prompt": "Which?"} | row, Columns(options=options))


def test_options_without_an_answer_are_dropped():
    for options in (Options("o"), ShuffledOptions(("o",))):
        row = {"prompt": "Which?", "o": ["x", "y"] if isinstance(options, Options) else "x", "answer": None}
        assert Columns(options=options).problem(row, BOXED, "") == Dropped("empty ground truth")


def test_maps_that_cannot_be():
    unanswered = functools.partial(Columns, answer="", options=Options("o"))
    for make in (lambda: Columns(prompt=""), unanswered, lambda: Options("o", "letters"), lambda: ShuffledOptions("w")):
        with pytest.raises(ValueError, match=r"Columns|Options"):
            make()
