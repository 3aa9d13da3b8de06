"""Which programs a run has, from its config."""

import dataclasses

import pytest
import tiny_run

from prerl_jax import ContinuousBatching, CriticSpec, KLPenalty, PhaseStart, StaticBatching, dsrl, grpo, ppo
from prerl_jax.plan.program import Lengths
from prerl_jax.plan.programs import compile_programs
from prerl_jax.plan.sampling import engines, program_names
from prerl_jax.plan.steps import alignments, evaluations, packed_share
from prerl_jax.runtime.state import bytes_per_device
from prerl_jax.trainer.abstract import abstract_key, abstract_prompts
from prerl_jax.trainer.engines import held_bytes
from prerl_jax.trainer.programs import Programs

COMPARING = (
    dataclasses.replace(grpo(steps=2)[0], reference=PhaseStart(), reward_shaping=KLPenalty(0.1), minibatches=2),
)
"""A phase with a reference, and two updates a step."""


def test_no_data_and_no_tokenizer_are_read(tiny, monkeypatch):
    def refuse(*_, **__):
        raise AssertionError("a plan reads no data, no tokenizer and no weights")

    for name in ("load_tokenizer", "load_examples", "load_model"):
        monkeypatch.setattr(f"prerl_jax.trainer.setup.{name}", refuse)
    assert dict(tiny().mesh.shape) == {"data": 1, "fsdp": 4, "tensor": 2}


def test_phases_share_an_engine_and_evaluation_has_its_own(tiny):
    """Phases sample 4 x 4 responses, evaluation 2 to each of 4 problems."""
    found = engines(Programs(tiny()))
    assert [(who, prompts) for who, _, prompts in found] == [(("nsr_prerl", "rl"), 4), (("evaluation",), 4)]
    spec = dataclasses.replace(tiny_run.config().evaluation, samples=4)
    ((who, _, _),) = engines(Programs(tiny(evaluation=spec)))
    assert who == ("nsr_prerl", "rl", "evaluation")


def test_what_a_run_holds(tiny):
    setup = tiny()
    params = bytes_per_device(setup.model.abstract_params())
    held = held_bytes(setup)
    assert held["parameters"] == params
    assert held["optimizer"] == pytest.approx(2 * params, rel=0.01)
    more = held_bytes(
        tiny(phases=ppo(steps=1), critic=CriticSpec(), alignment=dataclasses.replace(setup.config.alignment))
    )
    critic = more["critic"]
    assert critic > params, "a policy with a head"
    assert more["critic's moments"] == pytest.approx(2 * critic, rel=0.01)
    assert held_bytes(tiny(phases=COMPARING))["reference"] == params, "the lab computes in float32"


def test_how_often_is_measured(tiny):
    """Four steps in two phases: evaluated before, between and after; aligned at steps 1 and 3."""
    setup = tiny()
    assert (evaluations(setup), alignments(setup)) == (3, 2)
    every = dataclasses.replace(tiny_run.config().evaluation, every=1)
    assert evaluations(tiny(evaluation=every)) == 5


def test_the_share_of_the_microbatches_that_are_computed(tiny):
    """16 rows of 40 tokens in microbatches of 4: responses of 9 and prompts of 1 fill a quarter in P(y|x)."""
    programs = Programs(tiny(phases=dsrl(warmup=1, total=2)))
    assert programs.batching.shape == (16, 40)
    assert programs.setup.part_rows == 4
    _, rl = programs.setup.phases
    assert packed_share(programs, rl, Lengths(prompt=1, response=9)) == 0.25
    assert packed_share(programs, rl, Lengths(prompt=1, response=10)) == 0.5
    assert packed_share(programs, rl, Lengths(prompt=8, response=32)) == 1


def test_values_leave_the_critics_moments_beside(tiny, monkeypatch):
    """They read the critic's parameters alone. Nothing is compiled: what compiles says that it does not fit."""
    setup = tiny(phases=ppo(steps=1), critic=CriticSpec())
    monkeypatch.setattr("prerl_jax.plan.programs.sampling_programs", lambda *_: iter(()))
    monkeypatch.setattr("prerl_jax.plan.programs.attempted", lambda compile_it: ("too large", ""))
    found = {program.role: program for program in compile_programs(Programs(setup), Lengths(8, 16))}
    held = held_bytes(setup)
    assert found["values"].beside == sum(held.values()) - held["critic"]
    assert found["train"].beside == 0


@pytest.mark.slow
def test_the_engine_yields_the_names_that_are_expected(tiny):
    """A few seconds: the tiny run's engine with two rings, in full and in half of the slots."""
    sampling = dataclasses.replace(tiny_run.config().sampling, engine=ContinuousBatching(rings=(8, 31), shrink=(8,)))
    setup = tiny(sampling=sampling)
    engine = Programs(setup).engine(setup.phases[0])
    arguments = setup.model.abstract_params(), abstract_prompts(setup, 4), abstract_key(setup)
    names = [name for name, _ in engine.compile(*arguments)]
    plan = engine.plan(16, 8)
    assert names == program_names(plan, engine.programs(plan).lay_out is not None)
    assert names[1:] == program_names(plan, copied=False)
    assert names[1:4] == ["prefill", "decode_chunk/8", "longer_ring/31"]


@pytest.mark.slow
def test_every_program_of_a_run_compiles(tiny):
    """About a minute: of a phase with a reference and updates, with a static engine."""
    engine = dataclasses.replace(tiny_run.config().sampling, engine=StaticBatching())
    setup = tiny(phases=(*dsrl(warmup=1, total=2)[:1], *COMPARING), sampling=engine)
    found = list(compile_programs(Programs(setup), Lengths(8, 16)))
    assert not [program.name for program in found if isinstance(program.compiled, str)]
    roles = [program.role for program in found]
    assert set(roles) == {"sample", "score", "prepare", "train", "align"}
    assert roles.count("sample") == roles.count("prepare") == roles.count("train") == 2
    score = next(program for program in found if program.role == "score")
    assert score.phases == ("grpo",)
    assert score.beside == score.held["optimizer"], "it reads the policy and the reference"
