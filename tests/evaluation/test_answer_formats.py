"""How a problem's own answer is written, and how messages show texts."""

import pytest

from prerl_jax.data.problems import Message, Problem
from prerl_jax.evaluation.answer_formats import filled, write_answer
from prerl_jax.evaluation.quoted import quoted

BOX = r"Please put your final answer within \boxed{}."


def silent(problem, response):
    """A verifier that writes no answers."""
    return 0.0


@pytest.mark.parametrize(
    ("problem", "response"),
    [
        (Problem("1+1=", "2", answer_format="<<{answer}>>"), "<<2>>"),
        (Problem(f"1+1? {BOX}", "2", answer_format="#### {answer}"), "#### 2"),  # the source knows best
        (Problem(f"1+1? {BOX}", "2"), r"\boxed{2}"),
        (Problem(f"1+1? {BOX}", "so\n#### 2"), r"\boxed{2}"),
        (Problem(f"1+1? {BOX}", r"It is \boxed{2}."), r"\boxed{2}"),
        (Problem("1+1?", r"It is \boxed{2}."), r"It is \boxed{2}."),
        (Problem("1+1?", "so\n#### 2"), "so\n#### 2"),
        (Problem("Question: 1+1?\nAnswer:", "2"), "2"),  # the response begins after it
        (Problem("Question: 1+0?\nAnswer: 1\n\nQuestion: 1+1?\nAnswer: ", "2"), "2"),
        (Problem("#### Question\n1+1?", "2"), "2"),  # a heading
        (Problem("If the answer is not whole, round it.", "2"), "2"),
        (Problem((Message("user", f"1+1? {BOX}"),), "2"), r"\boxed{2}"),
    ],
)
def test_how_an_answer_is_written(problem, response):
    prompt = problem.prompt if isinstance(problem.prompt, str) else problem.prompt[0].content
    assert write_answer(problem, prompt, silent).responses[0] == response


@pytest.mark.parametrize(
    ("text", "answer", "first"),
    [
        ("is ({answer}).", "(A)", "is (A)."),
        ("${answer}$", "$7$", "$7$"),
        (r"\boxed{{answer}}", "{1, 2}", r"\boxed{1, 2}"),
        ("<<{answer}>>", "(A)", "<<(A)>>"),
        ("{answer}", "(A)", "(A)"),
        ("a{answer}a", "aba", "aabaa"),
        ("({answer})", "()", "(())"),
    ],
)
def test_what_a_format_has_around_an_answer_is_not_doubled(text, answer, first):
    assert filled(text, answer)[0] == first
    assert text.replace("{answer}", answer) in filled(text, answer)


CODE = ["#### 1. Task", "#### 1) Input", "  #### 2. Output", "#### 任务", "#### **Hint**", "#### Task", "## A ####"]


@pytest.mark.parametrize("heading", CODE)
def test_headings_ask_for_nothing(heading):
    prompt = f"{heading}\nWrite a program.\n[INST] {heading}"
    assert write_answer(Problem(prompt, "2"), prompt, silent).responses == ("2",)


@pytest.mark.parametrize(
    "line", ['End with "####".', "Put it after ####", "####", "#### 72", "#### <answer>", "如####2"]
)
def test_what_asks_for_an_answer_after_hashes(line):
    prompt = f"Question?\n{line}\nGo on."
    assert write_answer(Problem(prompt, "2"), prompt, silent).responses == ("#### 2",)


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        (r"\boxed{7}", r"'\boxed{7}'"),
        ("a\nb\x00", r"'a\nb\x00'"),
        ("it's", '"it\'s"'),
        ("\u2028\ud800é", r"'\u2028\ud800é'"),
    ],
)
def test_texts_can_be_copied_from_messages(text, shown):
    assert quoted(text) == shown
