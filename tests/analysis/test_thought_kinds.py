"""Kinds of thoughts against texts labelled by hand, traps included, and against a plain way to count."""

import json
import random
import re
import sys
from pathlib import Path

import pytest

from prerl_jax.analysis.marked_text import SENTENCE, mark, own_words
from prerl_jax.analysis.openings import LEADING, MARKS, PLACES, SEPARATOR, SPEAKER, Opening
from prerl_jax.analysis.thought_patterns import THOUGHTS, Thought
from prerl_jax.analysis.thoughts import (
    Agreement,
    Change,
    agreement,
    count_thoughts,
    find_thoughts,
    thoughts_before_and_after,
    thoughts_by_step,
)

T, R, S, E, V, B = (thought.name for thought in THOUGHTS)
LABELLED = [json.loads(line) for line in (Path(__file__).parents[1] / "data" / "thoughts.jsonl").open(encoding="utf-8")]
TEXTS = [line["text"] for line in LABELLED]


@pytest.mark.parametrize("kind", [thought.name for thought in THOUGHTS])
def test_precision_and_recall(kind):
    found = agreement(TEXTS, [line["thoughts"] for line in LABELLED])[kind]
    assert found.labelled >= 40
    assert found.precision >= 0.9
    assert found.recall >= 0.9


def test_the_labelled_texts():
    assert len(set(TEXTS)) == len(TEXTS) >= 200
    assert sum(line["origin"] == "after" for line in LABELLED) >= 60
    assert sum(not line["thoughts"] for line in LABELLED) >= 150
    assert {kind for line in LABELLED for kind in line["thoughts"]} == {thought.name for thought in THOUGHTS}


@pytest.mark.parametrize(
    ("text", "label"),
    [
        ("First, the baker sold 48 clips. Instead, he bought 3.", {}),
        ("Hold on tight. When we go back to the store, I check the temperature.", {}),
        ("I forgot to add the sugar. There are 3 cases in the warehouse.", {}),
        ("We list all factors of 12.", {E: 1}),
        ("Let us count in a different way: by rows.", {T: 1}),
        ("Oops, I dropped a sign. Are we sure?", {R: 2}),
        ("Let me make sure that 7 is prime.", {V: 1}),
        ("Now consider the case where n is odd.", {E: 1}),
        ("Wait, let me check again.", {R: 1, V: 1}),
        ("Wait, hmm, I made a mistake. Wait.", {R: 2}),  # one for each sentence
        ("Case 1: x > 0.\n\n- **Case 2:** x < 0.", {E: 2}),
        ("“Wait, let me check,” said Ann. `wait()` returns 'let me verify'.", {}),
        ("```python\n# Wait, let me check\n```", {}),
        ("WAIT! Let\u2019s verify: İ = 7.", {R: 1, V: 1}),
        ("", {}),
    ],
)
def test_counts(text, label):
    found = {name: counts[0] for name, counts in count_thoughts([text]).items() if counts[0]}
    assert found == label, find_thoughts(text)


def test_where_thoughts_are():
    text = "<think>So, wait. “Hmm”, but let's double-check: 7.</think>\nFirst, we add."
    assert [(name, text[a:b]) for name, a, b in find_thoughts(text)] == [
        (R, "wait"),
        (V, "let's double-check"),
        (S, "First, we"),
    ]


def places_of(text, opening):
    """The sentences of a text in which an opening is, found with one regular expression after the other."""
    speaker = SPEAKER.replace("(let", "(?:let", 1)
    after = {
        "sentence": rf"[{MARKS['sentence']}]{LEADING}",
        "clause": rf"[{MARKS['clause']}]{LEADING}",
        "anywhere": " ",
    }
    after["speaker"] = rf"(?:{'|'.join(after.values())})(?:{speaker})"
    marked = mark(own_words(text))
    sentences = set()
    for phrase in opening.phrases.split(SEPARATOR):
        plain = rf"(?:{phrase})(?:{opening.then})(?<!\w\B)"
        spaced = re.sub(r"\[[^\]]*\]| ", lambda m: r"\s+" if m[0] == " " else m[0], plain)
        before = "|".join(after[place] for place in PLACES[opening.place])
        sentences |= {
            marked.count(SENTENCE, 0, m.start(1)) for m in re.finditer(rf"(?=(?:{before})({spaced}))", marked)
        }
    return sentences


def scrambled(count):
    """Texts of words and punctuation from the labelled texts, in any order."""
    draw = random.Random(0)
    words = sorted({word for text in TEXTS for word in re.findall(r"\w+(?:'\w+)?", text)})
    common = re.findall(
        r"\S+", "let me us I we wait hmm but so now check that is not right case step another way try x = 2"
    )
    between = [" "] * 9 + [", ", ". ", "\n", ": ", "; ", " - ", "? ", "... ", " (", "\n- **", '" ', "' ", "  "]
    for _ in range(count):
        yield "".join(draw.choice(draw.choice((words, common))) + draw.choice(between) for _ in range(60))


@pytest.mark.slow
@pytest.mark.parametrize("kind", range(len(THOUGHTS)))
def test_openings_are_found_as_in_the_plain_way(kind):
    texts = TEXTS + list(scrambled(300))
    counts = count_thoughts(texts)[THOUGHTS[kind].name]
    for text, count in zip(texts, counts, strict=True):
        places = set().union(*(places_of(text, opening) for opening in THOUGHTS[kind].openings))
        assert count == len(places), text


@pytest.mark.parametrize(
    "pattern", ["wait", r"^so\b|^maybe", r"\w+ing", "let|let me", r"[a-z]\b", "re.?check", r"\?", "we?"]
)
def test_patterns_are_found_as_in_the_plain_way(pattern):
    texts = [*TEXTS, *scrambled(30), "await wait", "waitwait awaitwait wait", "éwait wait_ _wait"]
    plain = re.compile(rf"(?!\B\w)(?:{pattern})(?<!\w\B)", re.IGNORECASE | re.MULTILINE)
    expected = [sum(1 for _ in plain.finditer(own_words(text))) for text in texts]
    assert count_thoughts(texts, (Thought("mine", (pattern,)),))["mine"].tolist() == expected
    assert sum(expected)


def test_positions_are_kept():
    everything = "".join(map(chr, range(sys.maxunicode + 1)))
    for text in (everything, *TEXTS):
        assert len(own_words(text)) == len(text)
        assert len(mark(own_words(text))) == len(text) + 1


MINE = (Thought("doubt", (r"perhaps", r"^maybe")), Thought("carry", (r"carry \d",)))


def test_own_kinds():
    texts = ["Perhaps 7.\nMaybe 8, maybe 9, mayb", 'carry 1, "carry 2", carry 3', ""]
    assert {name: counts.tolist() for name, counts in count_thoughts(texts, MINE).items()} == {
        "doubt": [2, 0, 0],
        "carry": [0, 2, 0],
    }
    assert count_thoughts([], MINE)["doubt"].shape == (0,)
    assert find_thoughts("Maybe carry 1, perhaps", MINE) == [("doubt", 0, 5), ("carry", 6, 13), ("doubt", 15, 22)]


def test_own_openings():
    texts = ["Possibly 7, or 8, possibly. So, possibly not.", "It is possibly 7", "We should now guess 7; let me guess"]
    thoughts = (
        Thought("doubt", openings=(Opening("clause", "possibly / who knows"),)),
        Thought("guess", ("7",), (Opening("speaker", "guess"),)),
    )
    assert {name: counts.tolist() for name, counts in count_thoughts(texts, thoughts).items()} == {
        "doubt": [2, 0, 0],
        "guess": [1, 1, 2],
    }


@pytest.mark.parametrize(
    ("patterns", "message"),
    [
        (("(wait", "x"), "not a regular expression"),
        (("x", "y*"), "empty"),
        (("(?P<a>x)", "(?P<a>y)"), "do not make one"),
    ],
)
def test_refuses_patterns_that_cannot_count(patterns, message):
    with pytest.raises(ValueError, match=message):
        count_thoughts(["x"], (Thought("mine", patterns),))


def test_refuses_openings_that_cannot_count():
    with pytest.raises(ValueError, match="not regular expressions"):
        count_thoughts([""], (Thought("mine", openings=(Opening("clause", "wait("),)),))
    with pytest.raises(ValueError, match="skipped before a thought"):
        Opening("clause", "perhaps / wait")
    with pytest.raises(ValueError, match="none of the places sentence, clause"):
        Opening("middle", "wait")
    for phrases in ("", "Wait", "hm+", "wait / \\d"):
        with pytest.raises(ValueError, match="do not begin with a word"):
            Opening("clause", phrases)


def test_refuses_a_kind_without_patterns():
    with pytest.raises(ValueError, match="at least one pattern"):
        Thought("mine")


def test_agreement_with_labels():
    found = agreement(["perhaps", "perhaps perhaps", "carry 1"], [{"doubt": 2}, {"doubt": 1}, {}], MINE)
    assert found == {"doubt": Agreement(found=3, labelled=3, agreed=2), "carry": Agreement(1, 0, 0)}
    assert (found["doubt"].precision, found["carry"].precision) == (2 / 3, 0)
    assert str(found["carry"].recall) == "nan"
    with pytest.raises(ValueError, match="1 texts, but 0 labels"):
        agreement(["x"], [])


def test_by_step():
    lines = [(2, "rl", "perhaps"), (1, "warmup", "carry 1"), (2, "rl", "perhaps, perhaps carry 1"), (1, "warmup", "no")]
    rows = thoughts_by_step(({"step": s, "phase": p, "response": r, "reward": 1.0} for s, p, r in lines), MINE)
    assert rows == [
        {"step": 1, "phase": "warmup", "responses": 2, "doubt": 0.0, "carry": 0.5},
        {"step": 2, "phase": "rl", "responses": 2, "doubt": 1.5, "carry": 0.5},
    ]


def test_before_and_after():
    changes = thoughts_before_and_after(["perhaps", "", "", ""], ["perhaps perhaps", "carry 1"], MINE)
    assert changes == {"doubt": Change(0.25, 1.0), "carry": Change(0.0, 0.5)}
    assert changes["doubt"].ratio == 4
    assert changes["carry"].ratio == float("inf")
    assert str(Change(0.0, 0.0).ratio) == "nan"
    with pytest.raises(ValueError, match="0 responses before and 1 after"):
        thoughts_before_and_after([], ["x"], MINE)


def test_counting_takes_time_in_proportion_to_the_text():
    """No pattern backtracks without end on what models repeat when they break."""
    for piece in (
        "wait ",
        "# \n",
        "\n\n",
        "((((",
        "1. ",
        "check the check the ",
        "' \" ",
        "try a b c d e ",
        "we ",
        "so, ",
        "<a>",
    ):
        counts = count_thoughts([piece * 3000])
        assert set(counts) == {thought.name for thought in THOUGHTS}
