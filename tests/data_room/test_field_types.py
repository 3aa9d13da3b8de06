"""A field of the wrong type is said when a source is made, whichever source and field it is."""

from __future__ import annotations

import dataclasses

import pytest

from prerl_jax import (
    Additions,
    ChainSum,
    ChatTemplate,
    Columns,
    Curriculum,
    FileProblems,
    FiveWayWordProblems,
    HubProblems,
    Instructions,
    IteratorProblems,
    JsonlProblems,
    LogicalDeduction,
    Message,
    ParquetProblems,
    ReasoningGym,
    StreamProblems,
    WordProblems,
)
from prerl_jax.data.golds import AnyGold, BoxedGold, MarkedGold
from prerl_jax.data.hub_files import HubFiles
from prerl_jax.data.options import Options, ShuffledOptions

MADE = (
    Additions(),
    ChainSum(1),
    ChatTemplate(),
    Columns(),
    Curriculum(),
    FileProblems("x"),
    FiveWayWordProblems(1),
    HubProblems("a/b"),
    HubFiles("a/b"),
    Instructions(),
    IteratorProblems("itertools:count"),
    JsonlProblems("x"),
    LogicalDeduction(1),
    ParquetProblems("x"),
    ReasoningGym(("chain_sum",), 1),
    StreamProblems("x"),
    WordProblems(1),
    AnyGold(),
    BoxedGold(),
    MarkedGold(),
    Options(),
    ShuffledOptions(("a",)),
)


class Another:
    """A value that no field takes."""

    def __repr__(self) -> str:
        return "another"


FIELDS = [(made, field.name) for made in MADE for field in dataclasses.fields(made)]


@pytest.mark.parametrize(("made", "name"), FIELDS, ids=lambda one: one if isinstance(one, str) else type(one).__name__)
def test_every_field_of_every_source_is_checked(made, name):
    for wrong in (Another(), [Another()], (Another(),), b"x", {1: 2}, 1j):
        with pytest.raises(
            ValueError, match=rf"{type(made).__name__}\.{name}: expected .*, got {type(wrong).__name__}"
        ):
            dataclasses.replace(made, **{name: wrong})


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (
            lambda: FileProblems("a", instructions="x"),
            r"FileProblems\.instructions: expected Instructions, got str 'x'",
        ),
        (lambda: FileProblems("a", columns="q"), r"FileProblems\.columns: expected Columns, got str 'q'"),
        (lambda: FileProblems("a", columns=Columns), r"FileProblems\.columns: expected Columns, got type"),
        (lambda: FileProblems("a", deduplicate=1), r"FileProblems\.deduplicate: expected bool, got int 1"),
        (lambda: FileProblems("a", source=None), r"FileProblems\.source: expected str, got NoneType None"),
        (
            lambda: WordProblems(1, instructions=None),
            r"WordProblems\.instructions: expected Instructions, got N",
        ),
        (lambda: WordProblems(1.0), r"WordProblems\.count: expected int, got float 1\.0"),
        (lambda: Instructions(few_shot="Q: A:"), r"Instructions\.few_shot: expected .*Message, \.\.\.\], got str"),
        (lambda: Instructions(few_shot=(Message("user", 1),)), r"Message\.content: expected str, got int 1"),
        (lambda: Columns(gold="plain"), r"Columns\.gold: expected GoldRule, got str 'plain'"),
        (lambda: Columns(drop=("answer", "proof")), r"Columns\.drop: expected tuple"),
        (lambda: Additions(seed="x" * 999), r"Additions\.seed: expected int, got str 'x{199}\.\.\.$"),
    ],
)
def test_the_message_names_the_field_the_type_and_the_value(make, message):
    with pytest.raises(ValueError, match=message):
        make()
