"""Kinds of thoughts against texts labelled by hand, traps included: everything that is not in a label is 0."""

import pytest

from prerl_jax.analysis.thought_patterns import THOUGHTS, Thought
from prerl_jax.analysis.thoughts import (
    Change,
    count_thoughts,
    find_thoughts,
    thoughts_before_and_after,
    thoughts_by_step,
)

T, R, S, E, V, B = (thought.name for thought in THOUGHTS)

LABELLED = [
    # transition
    ("Alternatively, we can factor it.", {T: 1}),
    ("alternatively we could count the pairs", {T: 1}),
    ("She paints the posts alternatively red and blue.", {}),
    ("However, the sum is odd. The product, however, is even.", {T: 2}),
    ("However many apples he takes, 3 are left.", {}),
    ('The word "however" has 7 letters, and \u2018alternatively\u2019 has 13.', {}),
    ("On the other hand, x may be negative.", {T: 1}),
    ("He holds 3 coins in one hand and 4 on the other hand.", {}),
    ("Let's try a different approach.", {T: 1}),
    ("There is another way to solve this. Another way home is 3 km long.", {T: 1}),
    ("Instead, use the formula. He buys tea instead of 2 coffees.", {T: 1}),
    # reflection
    ("Wait, that's 12.", {R: 1}),
    ("WAIT! 7*8=56", {R: 1}),
    ("7+8=16\nwait 7+8=15\n#15", {R: 1}),
    ("So x = 4. But wait... x was negative. Oh wait, no.", {R: 2}),
    ("The waiter is waiting; I await his tips, 5% of the waits.", {}),
    ("Tom has to wait 20 minutes. Wait 5 more minutes, then stir. Wait for the bus.", {}),
    ("The wait time is 3 hours. Wait times add up.", {}),
    ("Wait a minute, I forgot to carry the 1.", {R: 2}),
    ("Hmm, let me\nreconsider. Hmmm.", {R: 3}),
    ("A chrome hmac of 5 hm.", {}),
    ("Hold on. Is that right? She told him to hold on to the rope.", {R: 2}),
    ("Actually, I made a sign error. What she actually paid is $4.", {R: 2}),
    ("On second thought, 5 is prime. On the second thought experiment he spent 5 hours.", {R: 1}),
    ("I think I misread the question", {R: 1}),
    # subgoals
    ("Step 1: find x.\nStep 2: find y.\nFrom step 1 and step 2 we get 7.", {S: 2}),
    ("**Step 1.** Add.\n### Step 2\nSubtract.", {S: 2}),
    ("She climbs 3 steps, one step 2 feet high.", {}),
    ("First, add 3 and 4. Then double it.", {S: 1}),
    ("We first compute the area, then the cost.", {S: 1}),
    ("First place gets $5, the second place $3; Ann came first.", {}),
    ("The first apple weighs 3 ounces, then Ann eats it.", {}),
    ("Let's break this down. We need to find the\ntotal cost.", {S: 2}),
    ("We start by breaking the problem into parts; a plate breaks into 3 parts.", {S: 1}),
    ("Our goal is to maximise f. A goal is worth 3 points.", {S: 1}),
    # enumeration
    ("Case 1: x > 0.\nCase 2: x < 0.", {E: 2}),
    ("A case of 12 bottles costs $8; in that case he pays $9. In any case, it is his suitcase 2.", {}),
    ("Let's list all the pairs one by one.", {E: 1}),
    ("The list price is $40, from a list of all books.", {}),
    ("Consider all possible cases. There are three cases.", {E: 2}),
    ("There are three cases of soda. The students leave one by one.", {}),
    ("Try n = 3. Try $n = 4$. For n = 5, we get 25.", {E: 3}),
    # verification
    ("Let me verify: 3*4=12.", {V: 1}),
    ("let\u2019s double-check this", {V: 1}),
    ("She writes a check for $20. The check bounced, and he cashed 3 checks.", {}),
    ("He checks out 3 books and plays checkers; the flag is checkered.", {}),
    ("We can check in at 3 pm. She went to check her mail.", {}),
    ("Check: 7 + 5 = 12.", {V: 1}),
    ("Check: $20", {}),
    ("To check, substitute x = 2 back into the equation. It checks out.", {V: 3}),
    ("Checking the answer: 5*5=25. This checks out", {V: 2}),
    ("Please check your work and verify this result.", {V: 2}),
    ("Let's see if 7 divides 91. Let's see: it does.", {V: 1}),
    ("Quick check: 3+4=7. Ann has to double-check her bags.", {V: 1}),
    # backtracking
    ("That's not right. Let me start over.", {B: 2}),
    ("No, this is wrong; it doesn't work.", {B: 2}),
    ("Find the step that is wrong. Ben went back to the store and started over.", {}),
    ("This approach fails. Let's go back to the first equation.", {B: 2}),
    ("Never mind. Scratch that!", {B: 2}),
    ("It is wrong to divide by 0.", {}),
    # several, and none
    ("<think>Hmm, 3 < 4, wait.</think>Check: 7", {R: 2, V: 1}),
    (r"\textbf{Wait.} $W_{\text{wait}} = 3$. \textbf{Case 1:} \emph{However}, $\text{Check: } x$", {R: 1, E: 1, T: 1}),
    ("1. Ann waits.\n2. Ben awaits a cheque in the waiting room.\n(a) Who was first? (b) Check 104 is for $7.", {}),
    ("In the first hour he drives 40 miles; first he stops, then he drives. Check total: $60.", {}),
    (
        "Wait, that's not right. Let me double-check: 17+5 is 22, not 21.\nAlternatively, count up.",
        {R: 1, B: 1, V: 1, T: 1},
    ),
    ("First, we need to find x.\n\nStep 2: Hmm, however, x = 3. Let me verify.", {S: 3, R: 1, T: 1, V: 1}),
    ("“Wait, let me check,” said Ann. `wait()` returns 'let me verify'.", {}),
    ("the sum is 12, so the answer is \\boxed{12}", {}),
    ("", {}),
]


@pytest.mark.parametrize(("text", "label"), LABELLED)
def test_labelled_texts(text, label):
    found = {name: counts[0] for name, counts in count_thoughts([text]).items() if counts[0]}
    assert found == label, [(name, text[a:b]) for name, a, b in find_thoughts(text)]


def test_every_kind_is_labelled_with_and_without():
    for thought in THOUGHTS:
        assert sum(thought.name in label for _, label in LABELLED) >= 4
    assert len(LABELLED) >= 40
    assert sum(not label for _, label in LABELLED) >= 15


MINE = (Thought("doubt", (r"perhaps", r"^maybe")), Thought("carry", (r"carry \d",)))


def test_own_kinds():
    texts = ["Perhaps 7.\nMaybe 8, maybe 9, mayb", 'carry 1, "carry 2", carry 3', ""]
    assert {name: counts.tolist() for name, counts in count_thoughts(texts, MINE).items()} == {
        "doubt": [2, 0, 0],
        "carry": [0, 2, 0],
    }
    assert count_thoughts([], MINE)["doubt"].shape == (0,)
    assert find_thoughts("Maybe carry 1, perhaps", MINE) == [("doubt", 0, 5), ("carry", 6, 13), ("doubt", 15, 22)]


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


def test_refuses_a_kind_without_patterns():
    with pytest.raises(ValueError, match="at least one pattern"):
        Thought("mine", ())


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
    for piece in ("wait ", "# \n", "\n\n", "((((", "1. ", "check the check the ", "' \" ", "try a b c d e "):
        counts = count_thoughts([piece * 3000])
        assert set(counts) == {thought.name for thought in THOUGHTS}
