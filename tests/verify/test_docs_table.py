"""Each row of the tables in docs/verifiers.md is true."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

import prerl_jax
from prerl_jax import Problem
from prerl_jax.verify import InProcessVerifier

PAGE = (Path(__file__).parent.parent.parent / "docs" / "verifiers.md").read_text("utf-8")
ROW = re.compile(r"^\| `([A-Z]\w+\(.*?\))` \| `([^`]+)` \| `(.+?)` \| (\w+) \|$", re.MULTILINE)
ROWS = [tuple(cell.replace("⏎", "\n") for cell in row) for row in ROW.findall(PAGE)]
NAMES = {name: getattr(prerl_jax, name) for name in prerl_jax.__all__}


def test_every_row_of_a_table_of_verdicts_is_read():
    rows = [line for line in PAGE.splitlines() if line.startswith("|") and line.endswith(("| right |", "| wrong |"))]
    assert len(ROWS) == len(rows) > 100


@pytest.mark.parametrize(("verifier", "gold", "response", "verdict"), ROWS)
def test_row(verifier, gold, response, verdict):
    verify = InProcessVerifier(eval(verifier, dict(NAMES)))
    assert verify([Problem("q", gold)], [response], [False]).judgements[0].verdict == verdict


def test_every_verifier_of_the_package_is_on_the_page():
    single = {"BoxedAnswer", "MathAnswer", "IntegerAnswer", "AnswerLine", "GSM8KAnswer", "MultipleChoice", "ExactMatch"}
    named = single | {"RegexAnswer", "BySource", "CombinedReward", "AfterThinking", "Avoids"}
    assert named <= {re.split(r"\W", verifier)[0] for verifier, *_ in ROWS}
