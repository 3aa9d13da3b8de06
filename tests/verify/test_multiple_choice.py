"""Multiple choice: the letter that a response chooses, and responses that choose none."""

from __future__ import annotations

import pytest

from prerl_jax.data import Problem
from prerl_jax.verify import MultipleChoice


def score(verifier, gold, response):
    return verifier(Problem("q", gold), response).reward


@pytest.mark.parametrize(
    ("gold", "response", "expected"),
    [
        ("B", r"\boxed{B}", 1),
        ("(B)", r"\boxed{(B)}", 1),
        ("b", r"\boxed{b}", 1),
        ("B", r"\boxed{\text{B}}", 1),
        ("B", r"\boxed{\textbf{(B)}}", 1),
        ("B", r"The answer is A. \boxed{B}", 1),
        ("B", "The answer is B.", 1),
        ("B", "The answer is (B) because A is wrong.", 1),
        ("B", "**Answer: B**", 1),
        ("B", "The correct option is **B**.", 1),
        ("B", "the answer is: $B$", 1),
        ("B", "The answer is option B", 1),
        ("B", "The answer is A. No, the answer is B.", 1),
        ("B", "B", 1),
        ("B", " (B) ", 1),
        ("B", "B.", 1),
        ("B", "B. Paris", 1),
        ("B", "(B) Paris", 1),
        ("A", r"\boxed{A, B}", 0),
        ("A", r"\boxed{B} \boxed{}", 0),
        ("A", "The answer is A or B.", 0),
        ("A", "The answer is (A) and (B).", 0),
        ("A", "(A) or (B)", 0),
        ("A", "A, B", 0),
        ("A", "The answer is Apple.", 0),
        ("A", "the answer is a number", 0),
        ("A", "Although it is late", 0),
        ("A", "A dog is an animal.", 0),
        ("B", "The answer is not B.", 0),
        ("A", "", 0),
        ("E", r"\boxed{E: A polygenic score}", 1),
        ("E", r"\boxed{E. foo}", 1),
        ("A", r"\boxed{\textbf{(A)}\ 12}", 1),
        ("B", r"\boxed{\text{(B)}}", 1),
        ("G", "(G)", 1),
        ("(A)", r"\boxed{A}", 1),
        ("a", r"\boxed{A}", 1),
        ("A", "A. B. C. D. E.", 0),
        ("E", "A. B. C. D. E.", 0),
        ("A", "A or B", 0),
        ("A", r"\boxed{A or B}", 0),
        ("A", r"\boxed{A. B. C.}", 0),
        ("A", r"\boxed{AB}", 0),
        ("A", r"\boxed{A/B}", 0),
        ("A", r"\boxed{A B}", 0),
        ("A", r"\boxed{A polygenic score}", 0),
        ("A", r"\boxed{(A) \text{ or } (B)}", 0),
        ("A", r"\boxed{A}, \boxed{B}", 0),
        ("A", r"\boxed{A} or \boxed{B}", 0),
        ("B", r"\boxed{A} wait \boxed{B}", 1),
        ("B", r"\boxed{\text{Option B}}", 1),
        ("B", r"\boxed{Answer: B}", 1),
        ("B", r"\boxed{\textbf{B}\ 12}", 1),
        ("B", r"\boxed{\mathrm{B}}", 1),
        ("B", r"\boxed{B) Vitamin C.}", 1),
        ("A", r"\boxed{A) P(B) = 0.5}", 1),
        ("C", "The answer is C, I think.", 1),
        ("I", "The answer is I think C", 0),
        ("A", "The answer is A because", 1),
        ("c", "The answer is c", 1),
        ("c", "the answer is c ) 30", 1),
        ("c", "the answer is (c)", 1),
        ("C", "C ) 30", 1),
        ("J", "The answer is J.", 1),
        ("J", r"\boxed{J}", 1),
        ("A", "The answer is A. Hmm, the answer is A or B.", 0),
        ("B", "**B** Paris", 1),
        ("B", "**(B)** Paris", 1),
        ("B", "**B. Paris**", 1),
        ("A", r"\boxed{A: 5 and B: 6}", 0),
        ("A", r"\boxed{A. 5, B. 6}", 0),
        ("A", "(A) 12 (B) 13", 0),
        ("B", "B. Paris\nC. London", 0),
        ("B", "\\boxed{\uff22}", 1),
        ("B", r"$\boxed{B}$", 1),
        ("B", r"\boxed{\text{B: 12 cm}}", 1),
        ("B", r"\boxed{\text{(B) } 12}", 1),
        ("B", r"\boxed{\textbf{(B) }12}", 1),
        ("B", r"\boxed{(B)\ \text{foo}}", 1),
        ("B", r"\boxed{12}", 0),
        ("A", r"\boxed{Apple}", 0),
        ("B", "Answer: **B**", 1),
        ("B", "Final answer: (B).", 1),
        ("B", r"The correct choice is $\textbf{(B)}$.", 1),
        (r"\text{(B)}", r"\boxed{B}", 1),
        ("B", "The answer is either A or B", 0),
        ("E", r"\boxed{\mathbf{E}}", 1),
        ("D", r"\boxed{\text{D}. 4}", 1),
        ("D", r"\boxed{D, 4}", 0),
        ("D", "Answer: D\n", 1),
        ("A", "Answer: A\nAnswer: B", 0),
        ("A", "(A)\n(B)", 0),
        ("B", "The answer is B: Paris", 1),
        ("B", "The answer is: B) Paris", 1),
        ("B", "The answer is B and not A", 1),
        ("B", "I choose B", 0),
        ("A", r"\boxed{(A) or B}", 0),
        ("A", r"\boxed{A) and B}", 0),
        ("B", "C", 0),
    ],
)
def test_multiple_choice(gold, response, expected):
    assert score(MultipleChoice(), gold, response) == expected


def test_multiple_choice_letters():
    assert score(MultipleChoice("ABCDEFGHIJ"), "J", "The answer is J.") == 1.0
    assert score(MultipleChoice("AB"), "B", "The answer is C.") == 0.0
    for letters in ("", "A", "AA", "ab", "A]"):
        with pytest.raises(ValueError, match="distinct capital letters"):
            MultipleChoice(letters)


# The ground truth is A.
SEVERAL = [
    "The answer is (A) 2! (B) 3!",
    "The answer is (A) (B) (C)",
    "The answer is (A)(B)",
    "The answer is A B C D",
    "answer: A B",
    "Answer: A|B|C",
    "The answer is A or maybe B",
    "The answer is A. Or B.",
    "The answer is A) B) C)",
    "A) 12 B) 13 C) 14 D) 15",
    r"\boxed{A) 12 B) 13 C) 14}",
    "A: x B: y",
    "A. B",
    "The answer is A? B?",
    "The answer is A - B",
    "The answer is A (or B)",
    "The answer is A, or it could be B",
    "The answer is A. B. C. D.",
    "The answer is A. B, C.",
    "The answer is A. Paris B. London",
    "Answer: A\nB\nC",
    "a) 1 b) 2",
    r"\boxed{a) b) c)}",
    r"\boxed{a. x b. y}",
    r"\boxed{(a) 1 (b) 2}",
    "The answer is a) b) c)",
    "(A) or b",
    r"\boxed{A (or B)}",
    r"\boxed{A (B)}",
    r"\boxed{A, A, B}",
    r"\boxed{\text{A}\text{B}}",
    r"\boxed{(A), B}",
    "The answer is A and also B",
    "The answer is A as well as B",
    "**A** **B**",
    "The answer is **A** **B**",
    "Answer: A, but maybe B",
    "Answer: A; B; C",
    r"Answer: A\B",
    r"Answer: A\quad B",
    "Answer: [A] [B]",
    'Answer: "A" "B"',
    "Answer: A & B",
    "The answer is A/B",
    "Answer: A\n\nAlso B.",
    "A\nB\nC",
    "(A)\n(B)",
    "A B C D",
    "ABCD",
    "The answer is A, B, C, or D",
    r"\boxed{A} \boxed{B}",
    r"\boxed{A}\boxed{B}",
    r"\boxed{A\\B\\C}",
    r"\boxed{A|B|C}",
    r"\boxed{\textbf{(A)}\ \textbf{(B)}}",
    "The answer is (A) 12 (B) 13",
    "The answer is A: 12 B: 13",
    "Option A: 5, Option B: 6",
    r"\boxed{\text{A. x, B. y}}",
    "A) x\nB) y",
    "A. x\n\nB. y",
    "The answer is A and (B)",
    "The answer is A & (B)",
    "The answer is A and the answer is also option B",
]
ONE = [
    r"\boxed{A) D/(M-3)}",
    r"\boxed{A) I and II only}",
    r"\boxed{A) (b-c)/d}",
    "The answer is A. The others fail.",
    "The answer is A because (B) is too small.",
    "The answer is (A). Option (B) is too small.",
    "The answer is A. B is wrong since it is big.",
    "The answer is A. B, C and D are wrong.",
    'The answer is "A".',
    "The answer is 'A'.",
    r"\boxed{A \text{ (Paris)}}",
    r"\boxed{A (Paris)}",
    "The answer is [A].",
    "The answer is A, not B.",
    "The answer is A and not B",
    "The answer is A. A is right.",
    "The answer is (A) (i.e. 30)",
    "The answer is A, i.e. 30",
    "The answer is A, e.g. 30",
    r"\boxed{\textbf{(A)}\ E = mc^2}",
    r"\boxed{A) P(B) = 0.5}",
    r"\boxed{A) P(B \cup C) = 0.5}",
    r"\boxed{A) (a+b)}",
    r"\boxed{A: Vitamin C}",
    "The answer is A (Paris).",
    "Answer: A. Paris",
    "Answer: A) Paris",
    "The answer is A: Paris",
    "The answer is (A) Paris",
    "The answer is A I think",
    "A",
    "A.",
    "(A)",
    "The answer is __A__",
    "The answer is A. I am sure.",
    "The answer is A!",
    "Answer: A\n\nB is wrong because it is late",
    "The answer is (A), because (B), (C) are wrong.",
    "The answer is A, as B is wrong.",
    "The answer is A with 90% confidence.",
    "The answer is “A”.",
    "Answer: A\n\n",
    "The answer is option (A): f(x) = 3.",
    "The answer is A - Paris",
    r"\boxed{A) (i) and (ii)}",
]


@pytest.mark.parametrize("response", SEVERAL)
def test_a_response_that_names_several_letters_chooses_none(response):
    judgement = MultipleChoice()(Problem("q", "A"), response)
    assert (judgement.verdict, judgement.answer) in (("wrong", None), ("wrong", "B"))


@pytest.mark.parametrize("response", ONE)
def test_a_letter_that_is_only_mentioned_is_not_chosen(response):
    assert MultipleChoice()(Problem("q", "A"), response).verdict == "right"


@pytest.mark.parametrize("lead", ["", "The answer is ", "Answer:", "So\nthe option is: "])
@pytest.mark.parametrize("mark", ["{}", "({})", "{})", "{}.", "**{}**", r"\text{{{}}}", "[{}]", "'{}'"])
def test_all_letters_in_a_row_choose_none(lead, mark):
    for gap in (" ", "\n", ", ", " or ", " and maybe ", "/", " | ", "; ", "? ", " - ", r" \quad "):
        row = gap.join(mark.format(letter) for letter in "ABCD")
        for response in (lead + row, rf"{lead}\boxed{{{row}}}"):
            assert MultipleChoice()(Problem("q", "A"), response).reward == 0, response


@pytest.mark.parametrize("lead", ["", "The answer is "])
@pytest.mark.parametrize("mark", ["({})", "{})", "{}.", "{}:"])
@pytest.mark.parametrize("text", ["12", "Paris", "a dog", "x", "the cat sat", "9 hours.", "3!", "Rs. 20"])
def test_all_options_with_their_texts_choose_none(lead, mark, text):
    for letters in ("ABCD", "abcd", "AB"):
        options = " ".join(f"{mark.format(letter)} {text}" for letter in letters)
        for response in (lead + options, rf"\boxed{{{options}}}"):
            assert MultipleChoice()(Problem("q", "A"), response).reward == 0, response
