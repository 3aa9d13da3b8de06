"""Prompts to tokens, on a tokenizer of a few words that is made here."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

import prerl_jax
from prerl_jax.data import ChatTemplate, Message, PlainText, Problem, encode, lab, left_pad

TEMPLATE = (
    "{{ bos_token }}{% for m in messages %}{{ '<' + m.role + '> ' + m.content + ' ' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<assistant> ' }}"
    "{% if enable_thinking is defined and not enable_thinking %}{{ 'quiet ' }}{% endif %}{% endif %}"
)
WORDS = ["<s>", "</s>", "<unk>", "<user>", "<system>", "<assistant>", "quiet", "a", "b", "c", "d", "<t>"]
ID = {word: index for index, word in enumerate(WORDS)}


@pytest.fixture(scope="module")
def make_tokenizer():
    tokenizers = pytest.importorskip("tokenizers")
    transformers = pytest.importorskip("transformers")

    def make(template=TEMPLATE, adds="<s> $A </s>"):
        words = tokenizers.Tokenizer(tokenizers.models.WordLevel(ID, unk_token="<unk>"))
        words.pre_tokenizer = tokenizers.pre_tokenizers.WhitespaceSplit()
        if adds:
            special = [(word, ID[word]) for word in ("<s>", "</s>")]
            words.post_processor = tokenizers.processors.TemplateProcessing(single=adds, special_tokens=special)
        tokenizer = transformers.PreTrainedTokenizerFast(
            tokenizer_object=words, bos_token="<s>", eos_token="</s>", unk_token="<unk>"
        )
        tokenizer.chat_template = template
        return tokenizer

    return make


def words(examples):
    return [" ".join(WORDS[token] for token in example.tokens) for example in examples]


TEXT = Problem("a b", "1")
CHAT = Problem((Message("system", "c"), Message("user", "a"), Message("assistant", "b"), Message("user", "d")), "1")


@pytest.mark.parametrize(
    ("template", "expected"),
    [
        (ChatTemplate(), ["<s> <user> a b <assistant>", "<s> <system> c <user> a <assistant> b <user> d <assistant>"]),
        (
            ChatTemplate((("enable_thinking", False),)),
            ["<s> <user> a b <assistant> quiet", "<s> <system> c <user> a <assistant> b <user> d <assistant> quiet"],
        ),
        (
            ChatTemplate(add_generation_prompt=False),
            ["<s> <user> a b", "<s> <system> c <user> a <assistant> b <user> d"],
        ),
        (PlainText(), ["<s> a b", "<s> c a b d"]),
    ],
)
def test_encode(make_tokenizer, template, expected):
    examples, report = encode([TEXT, CHAT], make_tokenizer(), template, 20)
    assert words(examples) == expected
    assert [example.problem for example in examples] == [TEXT, CHAT]
    assert (report.total, report.dropped, report.truncated) == (2, 0, 0)


@pytest.mark.parametrize(
    ("adds", "text", "expected"),
    [
        ("<s> $A", "a", "<s> a"),
        ("<s> $A", "<s> a", "<s> a"),
        ("<s> $A </s>", "<s> a </s>", "<s> a </s>"),  # the text's own EOS stays, the tokenizer's is not added
        ("$A </s>", "a", "a"),
        (None, "a", "a"),
        (None, "<s> a", "<s> a"),
    ],
)
def test_plain_text_has_at_most_one_bos_and_no_added_eos(make_tokenizer, adds, text, expected):
    ((example,), _) = encode([Problem(text, "1")], make_tokenizer(adds=adds), PlainText(), 9)
    assert words([example]) == [expected]


def test_plain_text_without_a_bos(make_tokenizer):
    tokenizer = make_tokenizer(adds="<s> $A")
    tokenizer.bos_token = None
    ((example,), _) = encode([TEXT], tokenizer, PlainText(), 9)
    assert words([example]) == ["a b"]


def test_no_chat_template(make_tokenizer):
    with pytest.raises(ValueError, match=r"no chat template; use PlainText\(\)"):
        encode([TEXT], make_tokenizer(template=None), ChatTemplate(), 9)


def test_an_argument_that_the_template_ignores(make_tokenizer):
    with pytest.raises(ValueError, match="enable_thinkin'"):
        encode([TEXT], make_tokenizer("{{ enable_think }}"), ChatTemplate((("enable_thinkin'", False),)), 9)


LONG = [Problem("a", "1"), Problem("a b c d", "2"), Problem("c d", "3")]


def test_too_long_is_dropped_and_counted(make_tokenizer):
    examples, report = encode(LONG, make_tokenizer(), PlainText(), 3)
    assert words(examples) == ["<s> a", "<s> c d"]
    assert [example.problem.answer for example in examples] == ["1", "3"]
    assert (report.total, report.dropped, report.truncated, report.longest, report.limit) == (3, 1, 0, 5, 3)
    assert "1 dropped" in str(report)


def test_too_long_is_truncated_from_the_left(make_tokenizer):
    examples, report = encode(LONG, make_tokenizer(), PlainText(), 3, "truncate_left")
    assert words(examples) == ["<s> a", "b c d", "<s> c d"]
    assert (report.dropped, report.truncated) == (0, 1)


def test_every_prompt_too_long(make_tokenizer):
    with pytest.raises(ValueError, match=r"all 3 prompts are longer than max_prompt_tokens=1 \(2 to 5 tokens\)"):
        encode(LONG, make_tokenizer(), PlainText(), 1)
    assert len(encode(LONG, make_tokenizer(), PlainText(), 1, "truncate_left")[0]) == 3


@pytest.mark.parametrize(
    ("problems", "limit", "too_long", "message"),
    [
        ([], 9, "drop", "no problems"),
        (LONG, 0, "drop", "max_prompt_tokens must be at least 1"),
        (LONG, 9, "truncate", "too_long is one of"),
        ([TEXT, Problem("", "1")], 9, "drop", "problem 1 has no token"),
    ],
)
def test_bad_input(make_tokenizer, problems, limit, too_long, message):
    with pytest.raises(ValueError, match=message):
        encode(problems, make_tokenizer(adds=None), PlainText(), limit, too_long)


def test_text_that_the_tokenizer_cannot_encode():
    """The lab's tokenizer has a character a token, and none for the others."""
    problems = [Problem("1+2=\n", "3"), Problem("1*2=\n", "2")]
    with pytest.raises(ValueError, match=r"cannot encode the prompt of problem 1 \(.*\): .*1\*2="):
        encode(problems, lab.make_tokenizer(), PlainText(), 9)
    shipped = json.loads(Path(prerl_jax.__file__).parent.joinpath("lab_base/tokenizer.json").read_text())
    assert json.loads(lab.make_tokenizer().backend_tokenizer.to_str()) == shipped


def test_left_pad(make_tokenizer):
    examples, _ = encode(LONG, make_tokenizer(), PlainText(), 5)
    prompts = left_pad(examples, 6, ID["a"])  # a padding id that occurs in the prompts
    np.testing.assert_array_equal(prompts.prompt, [[7, 7, 7, 7, 0, 7], [7, 0, 7, 8, 9, 10], [7, 7, 7, 0, 9, 10]])
    np.testing.assert_array_equal(prompts.prompt_mask.sum(1), [2, 5, 3])
    np.testing.assert_array_equal(prompts.prompt_mask, np.sort(prompts.prompt_mask, axis=1))
    assert prompts.prompt.dtype == np.int32
    assert prompts.prompt_mask.dtype == bool
    assert prompts.ids is None


def test_left_pad_refuses_what_does_not_fit(make_tokenizer):
    examples, _ = encode(LONG, make_tokenizer(), PlainText(), 5)
    with pytest.raises(ValueError, match="5 tokens does not fit into rows of 4"):
        left_pad(examples, 4, 0)
