"""What a config refuses, and how it is read, overridden, written and compared."""

import dataclasses
import math
import re
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

import prerl_jax
from prerl_jax import (
    AdvantageTraits,
    Cosine,
    GroupRelative,
    Linear,
    Phase,
    Reinforce,
    SequenceSumTokenSumNorm,
    Term,
    TokenMean,
    Warmup,
    dsrl,
    grpo,
    prerl,
)
from prerl_jax.analysis.thought_patterns import Thought
from prerl_jax.config import (
    AlignmentSpec,
    CheckpointSpec,
    DataSpec,
    EvaluationSpec,
    ModelSpec,
    OptimizerSpec,
    SamplingSpec,
    TrainConfig,
)
from prerl_jax.config.checks import validate
from prerl_jax.config.io import config_names, difference, load_config, render
from prerl_jax.config.overrides import apply_overrides
from prerl_jax.core.spaces import PostTrainSpace, PreTrainSpace
from prerl_jax.data import ChainSum, ChatTemplate, ParquetProblems, PlainText
from prerl_jax.rollout import ContinuousBatching
from prerl_jax.runtime.mesh import MeshSpec
from prerl_jax.verify import AfterThinking, BoxedAnswer, GSM8KAnswer, MathAnswer

CONFIG = TrainConfig(
    name="test",
    model=ModelSpec("some/folder"),
    data=DataSpec(ParquetProblems("train.parquet"), ChainSum(count=8), ChatTemplate((("a", False),)), BoxedAnswer()),
    phases=dsrl(warmup=2, total=5),
    sampling=SamplingSpec(prompts_per_step=4, group_size=4),
    mesh=MeshSpec(data=1, fsdp=1),
)

USER_MODULE = """
import dataclasses

@dataclasses.dataclass(frozen=True)
class Halves:
    share: float = 0.5
    def __call__(self, mask, keep, response_length):
        return mask * self.share

@dataclasses.dataclass(frozen=True)
class TokenMean(Halves):
    pass

class Holder:
    @dataclasses.dataclass(frozen=True)
    class Inner(Halves):
        pass

def warm(step):
    return 1e-3 * step

def make(rate):
    def schedule(step):
        return rate
    return schedule
"""


@pytest.fixture
def user(tmp_path, monkeypatch):
    """A user's own importable module."""
    (tmp_path / "my_ideas.py").write_text(USER_MODULE)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(sys.modules, "my_ideas", raising=False)
    import my_ideas

    yield my_ideas
    sys.modules.pop("my_ideas", None)


def with_aggregation(aggregation):
    return dataclasses.replace(
        CONFIG, phases=(dataclasses.replace(CONFIG.phases[0], aggregation=aggregation), *CONFIG.phases[1:])
    )


def read_back(text, tmp_path):
    file = tmp_path / "rendered.py"
    file.write_text(text)
    return load_config(file)


# --- validation


@pytest.mark.parametrize(
    ("build", "says"),
    [
        (lambda: ModelSpec("x", compute_dtype="float16"), r"compute_dtype is 'float16'.*'float32', 'bfloat16'"),
        (lambda: ModelSpec("x", remat="some"), r"remat is 'some'.*'none', 'dots', 'attention', 'full'"),
        (lambda: ModelSpec("x", attention="flash"), r"attention is 'flash'.*'auto', 'xla', 'splash'"),
        (lambda: ModelSpec(""), r"model\.path is empty"),
        (lambda: dataclasses.replace(CONFIG.data, too_long="cut"), r"too_long is 'cut'.*'drop', 'truncate_left'"),
        (lambda: dataclasses.replace(CONFIG.data, max_prompt_tokens=0), r"data\.max_prompt_tokens is 0"),
        (lambda: dataclasses.replace(CONFIG.data, verify_workers=-1), r"data\.verify_workers is -1"),
        (lambda: dataclasses.replace(CONFIG.data, verify_timeout=0.0), r"data\.verify_timeout is 0\.0"),
        (lambda: SamplingSpec(prompts_per_step=0), r"sampling\.prompts_per_step is 0; it must be 1 or more"),
        (lambda: SamplingSpec(top_p=1.5), r"sampling\.top_p is 1\.5"),
        (lambda: SamplingSpec(stop_tokens=(3, -1)), r"stop_tokens is \(3, -1\)"),
        (lambda: OptimizerSpec(learning_rate=-1e-6), r"learning_rate is -1e-06"),
        (lambda: OptimizerSpec(learning_rate=math.nan), r"learning_rate is nan"),
        (lambda: OptimizerSpec(b2=1.0), r"optimizer\.b2 is 1\.0"),
        (lambda: OptimizerSpec(moments="int8"), r"optimizer\.moments is 'int8'.*'float32', 'bfloat16'"),
        (lambda: OptimizerSpec(placement="disk"), r"optimizer\.placement is 'disk'.*'device', 'host'"),
        (lambda: OptimizerSpec(max_grad_norm=0.0), r"optimizer\.max_grad_norm is 0\.0; it must be above 0"),
        (lambda: EvaluationSpec(samples=0), r"evaluation\.samples is 0"),
        (lambda: EvaluationSpec(temperature=-1.0), r"evaluation\.temperature is -1\.0"),
        (lambda: EvaluationSpec(reflection="("), r"'\(' is no regular expression"),
        (lambda: EvaluationSpec(reflection="(wait)?"), r"'\(wait\)\?' matches the empty text"),
        (lambda: EvaluationSpec(thoughts=(Thought("a", ("x*",)),)), r"'x\*' matches the empty text"),
        (lambda: EvaluationSpec(thoughts=(Thought("a", ("x",)),) * 2), r"\['a', 'a'\]; give each its own name"),
        (lambda: EvaluationSpec(seed=2**32), r"evaluation\.seed is 4294967296; .* 2\*\*32 - 1"),
        (lambda: EvaluationSpec(seed=-1), r"evaluation\.seed is -1"),
        (lambda: CheckpointSpec(keep_last=0), r"checkpoints\.keep_last is 0"),
        (lambda: dataclasses.replace(CONFIG, microbatches=0), r"microbatches is 0"),
        (lambda: dataclasses.replace(CONFIG, seed=-1), r"^seed is -1"),
        (lambda: dataclasses.replace(CONFIG, seed=2**32), r"^seed is 4294967296"),
        (lambda: dataclasses.replace(CONFIG, name="a/b"), r"name is 'a/b'"),
    ],
)
def test_a_field_that_makes_no_sense(build, says):
    with pytest.raises(ValueError, match=says):
        build()


def reinforce(**fields):
    return Phase("reinforce", 1, objective=Reinforce(), **fields)


@dataclasses.dataclass(frozen=True)
class OwnAdvantage:
    traits = AdvantageTraits()

    def __call__(self, rollouts, group_size, values=None):
        return rollouts.rewards, rollouts.rewards > -1


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"phases": ()}, "phases is empty"),
        ({"phases": (*grpo(steps=1), *grpo(steps=2))}, r"\['grpo', 'grpo'\].*\['grpo'\] are not distinct"),
        ({"phases": (Phase("base", 1),)}, r"\['base'\] are not distinct"),
        ({"sampling": SamplingSpec(4, 1)}, r"group_size is 1, and phase 'nsr_prerl' compares.*2 or more"),
        (
            {
                "sampling": SamplingSpec(4, 1),
                "phases": (reinforce(terms=(Term(PostTrainSpace(), OwnAdvantage()), Term(PreTrainSpace()))),),
            },
            "group_size is 1, and phase 'reinforce'",
        ),
        ({"microbatches": 3}, r"4 x 4 = 16 rows do not divide into microbatches = 3"),
        ({"mesh": MeshSpec(data=1, fsdp=3)}, r"sampling\.prompts_per_step = 4 groups do not divide over the 3 shards"),
        (
            {"mesh": MeshSpec(data=1, fsdp=4), "sampling": SamplingSpec(4, 4, engine=ContinuousBatching(slots=6))},
            r"ContinuousBatching has slots = 6, which do not divide over the 4 shards",
        ),
        (
            {"mesh": MeshSpec(data=1, fsdp=4), "microbatches": 8},
            r"16 rows in microbatches = 8 are 2 rows each.*4 shards",
        ),
        ({"alignment": AlignmentSpec(every=1)}, "alignment.prompts is 8, but a step has sampling.prompts_per_step = 4"),
        (
            {"checkpoints": CheckpointSpec(best="eval/avg@4")},
            r"never measured with evaluation\.samples = 8.*eval/avg@8",
        ),
        ({"checkpoints": CheckpointSpec(best="eval/pass@16")}, r"'eval/pass@16', which is never measured"),
        ({"checkpoints": CheckpointSpec(best="eval/pass@3")}, r"'eval/pass@3', which is never.*'eval/pass@4'"),
        ({"checkpoints": CheckpointSpec(best="accuracy")}, r"'accuracy', which is never measured"),
        (
            {"checkpoints": CheckpointSpec(every=10)},
            r"checkpoints\.every = 10 and evaluation\.every = 25 that is every 50 steps.*best=None",
        ),
    ],
)
def test_parts_that_do_not_fit_together(changes, says):
    with pytest.raises(ValueError, match=says):
        validate(dataclasses.replace(CONFIG, **changes))


@pytest.mark.parametrize(
    ("data", "says"),
    [
        ({"verifier": MathAnswer()}, r"MathAnswer\(.* must run in worker processes.*data\.verify_workers=4"),
        ({"evaluation_verifier": AfterThinking(MathAnswer())}, "must run in worker processes"),
        ({"verifier": None}, r"data\.verifier is None, which is no verifier"),
        ({"verifier": BoxedAnswer}, r"data\.verifier is the class BoxedAnswer"),
        ({"evaluation_verifier": "BoxedAnswer()"}, r"data\.evaluation_verifier is 'BoxedAnswer\(\)', which is no"),
    ],
)
def test_verifiers_that_a_run_cannot_have(data, says):
    with pytest.raises(ValueError, match=says):
        validate(dataclasses.replace(CONFIG, data=dataclasses.replace(CONFIG.data, **data)))
    with_workers = dataclasses.replace(CONFIG.data, verifier=MathAnswer(), verify_workers=1)
    validate(dataclasses.replace(CONFIG, data=with_workers))


def test_what_fits_together_passes():
    assert validate(CONFIG) is CONFIG
    own = dataclasses.replace(CONFIG, sampling=SamplingSpec(4, 1), phases=(reinforce(advantage=OwnAdvantage()),))
    assert validate(own) is own
    assert validate(dataclasses.replace(CONFIG, mesh=MeshSpec(fsdp=-1))).mesh.fsdp == -1
    for checkpoints in (CheckpointSpec(every=5), CheckpointSpec(every=0), CheckpointSpec(every=10, best=None)):
        assert validate(dataclasses.replace(CONFIG, checkpoints=checkpoints)).checkpoints is checkpoints
    with pytest.raises(ValueError, match="over the 5 shards"):
        validate(CONFIG, shards=5)


# --- overrides


@pytest.mark.parametrize(
    ("override", "get", "value"),
    [
        ("name=other", lambda c: c.name, "other"),
        ("name='5'", lambda c: c.name, "5"),
        ("name=5", lambda c: c.name, "5"),
        (
            "evaluation.thoughts=(Thought('doubt', ('perhaps',)),)",
            lambda c: c.evaluation.thoughts,
            (Thought("doubt", ("perhaps",)),),
        ),
        (r"evaluation.reflection=(?i)\bhm=+\b", lambda c: c.evaluation.reflection, r"(?i)\bhm=+\b"),
        ("seed=7", lambda c: c.seed, 7),
        ("optimizer.max_grad_norm=None", lambda c: c.optimizer.max_grad_norm, None),
        ("optimizer.max_grad_norm=2", lambda c: c.optimizer.max_grad_norm, 2.0),
        ("optimizer.learning_rate=1e-5", lambda c: c.optimizer.learning_rate, 1e-5),
        (
            "optimizer.learning_rate=Warmup(2, Cosine(1e-5, 1e-6, 8))",
            lambda c: c.optimizer.learning_rate,
            Warmup(2, Cosine(1e-5, 1e-6, 8)),
        ),
        ("phases.1.learning_rate=Linear(1, 0, 4)", lambda c: c.phases[1].learning_rate, Linear(1, 0, 4)),
        ("optimizer.learning_rate=1", lambda c: c.optimizer.learning_rate, 1.0),
        ("alignment.mean_logprob=True", lambda c: c.alignment.mean_logprob, True),
        ("alignment.mean_logprob=true", lambda c: c.alignment.mean_logprob, True),
        ("mesh.fsdp=-1", lambda c: c.mesh.fsdp, -1),
        ("sampling.stop_tokens=(1, 2)", lambda c: c.sampling.stop_tokens, (1, 2)),
        ("sampling.stop_tokens=[1,2]", lambda c: c.sampling.stop_tokens, (1, 2)),
        ("data.train.path=/data/x=y.parquet", lambda c: c.data.train.path, "/data/x=y.parquet"),
        ("data.template=PlainText()", lambda c: c.data.template, PlainText()),
        ("data.verifier=GSM8KAnswer()", lambda c: c.data.verifier, GSM8KAnswer()),
        ("data.template.arguments.0.1=True", lambda c: c.data.template.arguments, (("a", True),)),
        ("phases.0.steps=9", lambda c: c.phases[0].steps, 9),
        ("phases.0.space.prefix=5", lambda c: c.phases[0].space.prefix, 5),
        ("phases.0.space.prefix=<s>", lambda c: c.phases[0].space.prefix, "<s>"),
        ("phases.0.space.prefix=None", lambda c: c.phases[0].space.prefix, None),
        ("phases.1.learning_rate=3e-5", lambda c: c.phases[1].learning_rate, 3e-5),
        (
            "phases.0.aggregation=SequenceSumTokenSumNorm(scale=0.01)",
            lambda c: c.phases[0].aggregation,
            SequenceSumTokenSumNorm(scale=0.01),
        ),
        ("phases.1.terms=(Term(PostTrainSpace()),)", lambda c: c.phases[1].terms, (Term(PostTrainSpace()),)),
        ("phases=grpo(steps=3)", lambda c: c.phases, grpo(steps=3)),
        ("phases=prerl(steps=1) + grpo(steps=3)", lambda c: c.phases, prerl(steps=1) + grpo(steps=3)),
        ("phases=(*prerl(steps=1), Phase('rl', 3))", lambda c: c.phases, (*prerl(steps=1), Phase("rl", 3))),
        ("phases=[*prerl(steps=1), *grpo(steps=3)]", lambda c: c.phases, prerl(steps=1) + grpo(steps=3)),
        ("sampling=SamplingSpec(prompts_per_step=2)", lambda c: c.sampling, SamplingSpec(prompts_per_step=2)),
    ],
)
def test_an_override_sets_one_field(override, get, value):
    new = apply_overrides(CONFIG, [override])
    assert get(new) == value
    assert type(get(new)) is type(value)
    assert len(difference(CONFIG, new)) >= 1
    assert {line.split(":")[0].split(".")[0] for line in difference(CONFIG, new)} == {
        override.split("=")[0].split(".")[0]
    }


@pytest.mark.parametrize(
    ("override", "says"),
    [
        ("learning_rate=1", r"TrainConfig has no field 'learning_rate'; its fields are name, model, data, phases"),
        ("optimizer.lr=1", r"optimizer \(OptimizerSpec\) has no field 'lr'; its fields are learning_rate, b1, b2"),
        ("phases.2.steps=1", r"phases is a tuple of 2; an index is one of 0 to 1, not '2'"),
        ("phases.-1.steps=1", r"not '-1'"),
        ("phases.first=1", r"phases is a tuple of 2.*not 'first'"),
        ("seed.x=1", r"seed is 0, a int, which has no fields"),
        ("seed=1.5", r"expected int, got float 1\.5"),
        ("seed=yes", r"expected int, got 'yes'"),
        ("seed=True", r"expected int, got bool True"),
        ("optimizer.eps=small", r"expected float, got 'small'"),
        ("optimizer.max_grad_norm=True", r"expected float \| None, got bool"),
        ("alignment.mean_logprob=yes", r"expected bool, got 'yes'"),
        ("alignment.mean_logprob=1", r"expected bool, got int 1"),
        ("name=None", r"expected str, got NoneType None"),
        ("sampling.stop_tokens=5", r"expected tuple\[int, \.\.\.\] \| None, got int 5"),
        ("sampling.stop_tokens=(1, 2.5)", r"got tuple \(1, 2\.5\)"),
        ("sampling=GSM8KAnswer()", r"expected SamplingSpec, got GSM8KAnswer"),
        ("data.verifier=TokenMean", r"expected SingleVerifier \| BatchVerifier, got type"),
        ("data.train=BoxedAnswer()", r"expected ProblemSource \| ProblemStream, got BoxedAnswer"),
        ("phases.0=TokenMean()", r"expected Phase, got TokenMean"),
        ("phases=(TokenMean(),)", r"expected tuple\[.*Phase, \.\.\.\], got tuple"),
        ("phases.0.aggregation=SequenceSum()", r"'SequenceSum' is none of the names.*SequenceSumTokenSumNorm"),
        ("phases.0.aggregation=TokenMean(size=1)", r"expected LossAggregation.*unexpected keyword argument 'size'"),
        ("phases.0.advantage=GroupRelative(1)", r"GroupRelative\.normalize_std: expected bool, got int 1"),
        ("phases.0.space=PreTrainSpace(2.5)", r"PreTrainSpace\.prefix: expected int \| str \| None, got float 2\.5"),
        ("phases=(Phase('a', 2, epochs=1.5),)", r"Phase\.epochs: expected int, got float 1\.5"),
        (
            "phases=dapo(steps=2, overlong_buffer=4, max_resamples=1.5)",
            r"Phase\.max_resamples: expected int, got float 1\.5",
        ),
        ("phases=dsrl(warmup=2.5, total=5)", r"Phase 'nsr_prerl' has 2\.5 steps; it needs a whole number"),
        ("phases.0.learning_rate=-1", r"has learning_rate -1\.0; it must be 0 or more"),
        ("phases.0.learning_rate=inf", r"has learning_rate inf"),
        ("phases.0.temperature=inf", r"has temperature inf; it must be above 0, and finite"),
        ("optimizer.learning_rate=inf", r"optimizer\.learning_rate is inf; it must be 0 or more, and finite"),
        ("seed=__import__('os').getpid()", r"expected int.*neither a literal, nor a call"),
        ("seed=open('x')", r"'open' is none of the names"),
        ("seed=(lambda: 1)()", r"neither a literal, nor a call"),
        ("seed=2**9", r"neither a literal, nor a call"),
        ("seed=1 + 2", r"'1 \+ 2' is neither .* nor tuples joined by \+"),
        ("phases=grpo(steps=1) + 2", r"neither a literal, .* nor tuples joined by \+"),
        ("phases=(*Phase('rl', 3),)", r"a star before a Phase, which is no tuple"),
        ("seed", r"write it as path=value"),
        ("=3", r"write it as path=value"),
        ("optimizer.b1=3", r"optimizer\.b1 is 3\.0"),
        ("microbatches=3", r"do not divide into microbatches = 3"),
    ],
)
def test_an_override_that_does_not_fit(override, says):
    with pytest.raises(ValueError, match=says):
        apply_overrides(CONFIG, [override])


def test_overrides_are_checked_together_at_the_end():
    new = apply_overrides(CONFIG, ["microbatches=3", "sampling.prompts_per_step=6", "name=a", "name=b"])
    assert (new.microbatches, new.sampling.prompts_per_step, new.name) == (3, 6, "b")
    assert CONFIG.microbatches == 1


def test_an_override_reaches_a_users_own_classes(user):
    config = with_aggregation(user.Halves(0.25))
    assert apply_overrides(config, ["phases.0.aggregation.share=1"]).phases[0].aggregation == user.Halves(1.0)
    assert apply_overrides(config, ["phases.1.aggregation=Halves(share=0.1)"]).phases[1].aggregation == user.Halves(0.1)


# --- render


def same(config, tmp_path):
    return read_back(render(config), tmp_path) == config


def test_long_strings_are_written_in_lines(tmp_path):
    awkward = re.escape("a'\"\\\n\té" * 60)
    config = dataclasses.replace(CONFIG, evaluation=dataclasses.replace(CONFIG.evaluation, reflection=awkward))
    assert read_back(render(config), tmp_path) == config
    assert max(map(len, render(config).splitlines())) <= 120


def test_a_rendered_config_reads_back(tmp_path):
    assert same(CONFIG, tmp_path)
    assert same(
        dataclasses.replace(
            CONFIG,
            name="a 'quoted' \"name\"\n\\",
            sampling=SamplingSpec(prompts_per_step=4, stop_tokens=(7,)),
            optimizer=OptimizerSpec(learning_rate=1 / 3, max_grad_norm=math.inf),
            phases=(
                reinforce(terms=(Term(PostTrainSpace()), Term(PreTrainSpace(3), GroupRelative(False, "negative")))),
                Phase(
                    "other", 1, reset_optimizer=True, learning_rate=Warmup(2, Linear(1e-3, 1e-4, 8)), temperature=0.7
                ),
            ),
        ),
        tmp_path,
    )


def test_a_rendered_config_is_readable():
    text = render(CONFIG)
    assert "    optimizer=OptimizerSpec(\n            learning_rate=1e-06,\n            b1=0.9,\n" in text
    assert "aggregation=TokenMean(scale=0.01),\n" in text
    assert 'path="some/folder",\n' in text
    assert "from prerl_jax import " in text
    assert (
        max(len(line) for line in text.splitlines() if not line.strip().startswith(("'", '"'))) <= 120
    )  # strings are whole


def test_a_users_classes_and_functions_read_back(user, tmp_path):
    assert same(with_aggregation(user.Halves(0.25)), tmp_path)
    assert same(with_aggregation(user.Holder.Inner(0.25)), tmp_path)
    both = with_aggregation(user.TokenMean(0.25))  # beside prerl_jax's class of that name
    assert same(both, tmp_path)
    assert isinstance(both.phases[1].aggregation, TokenMean)
    assert same(dataclasses.replace(CONFIG, optimizer=OptimizerSpec(learning_rate=user.warm)), tmp_path)


@pytest.mark.parametrize("rate", [lambda step: 1e-3, "made", "array"])
def test_what_cannot_be_written_is_refused(user, rate):
    import numpy as np

    value = {"made": user.make(1.0), "array": np.float32(1.0)}.get(rate, rate) if isinstance(rate, str) else rate
    config = dataclasses.replace(CONFIG, optimizer=OptimizerSpec(learning_rate=value))
    with pytest.raises(
        ValueError, match=r"optimizer\.learning_rate is .*(module that Python can import|Use None, numbers)"
    ):
        render(config)


def test_a_class_of_a_config_file_is_refused(tmp_path):
    file = tmp_path / "own.py"
    file.write_text(
        "import dataclasses\nfrom prerl_jax import *\nfrom tests_config import CONFIG\n"
        "@dataclasses.dataclass(frozen=True)\nclass Own:\n    scale: float = 1.0\n"
        "    def __call__(self, mask, keep, response_length): return mask\n"
        "def config(): return dataclasses.replace(CONFIG, phases=(Phase('p', 1, aggregation=Own()),))\n"
    )
    sys.modules["tests_config"] = sys.modules[__name__]
    try:
        config = load_config(file)
    finally:
        del sys.modules["tests_config"]
    assert apply_overrides(config, ["phases.0.aggregation.scale=2"]).phases[0].aggregation.scale == 2.0
    with pytest.raises(ValueError, match=r"phases\.0\.aggregation is .*another process could not import it"):
        render(config)


# --- load


def test_a_shipped_config_is_found_by_name_from_anywhere(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert load_config("grpo_qwen3_4b_math") == load_config("configs/grpo_qwen3_4b_math.py")
    assert "lab" in config_names()
    (tmp_path / "configs").mkdir()
    (tmp_path / "configs/grpo_qwen3_4b_math.py").write_text(render(CONFIG))  # a file that is there goes first
    assert load_config("configs/grpo_qwen3_4b_math.py") == CONFIG


@pytest.mark.parametrize("path", ["nothing", "configs/nothing.py", "other/lab.py", "x/lab"])
def test_a_config_that_is_not_there(path, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(FileNotFoundError, match=r"no config file .*dsrl_qwen3_4b_math.*lab"):
        load_config(path)


@pytest.mark.parametrize(
    ("source", "says"),
    [
        ("x = 1\n", r"has no function config\(\)"),
        ("config = 3\n", r"has no function config\(\)"),
        ("x = (\n", r"rendered\.py, line 1: '\(' was never closed"),
        ("\nx = 1 + ''\n", r"rendered\.py, line 2: TypeError: unsupported operand"),
        ("def config():\n    return dict(a=1)['b']\n", r"rendered\.py, line 2: KeyError: 'b'"),
        (
            "from prerl_jax.config import SamplingSpec\n\ndef config():\n    return SamplingSpec(old=1)\n",
            r"rendered\.py, line 4: TypeError: .*unexpected keyword argument 'old'",
        ),
        ("def config():\n    return {'a': 1}\n", r"returned dict \{'a': 1\}; it must return a TrainConfig"),
    ],
)
def test_a_file_that_is_no_config(source, says, tmp_path):
    with pytest.raises(ValueError, match=says):
        read_back(source, tmp_path)


def test_a_file_that_was_just_rewritten_is_read_anew(tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "dont_write_bytecode", False)
    file = tmp_path / "run.py"
    for seed in (1, 2, 3):
        file.write_text(render(dataclasses.replace(CONFIG, seed=seed)))
        assert load_config(file).seed == seed
    assert [path.name for path in tmp_path.iterdir()] == ["run.py"], "no __pycache__"


def test_an_error_in_a_module_that_a_config_imports_names_its_line(tmp_path, monkeypatch):
    (tmp_path / "my_part.py").write_text("from prerl_jax import AdvantageTraits\n\nAdvantageTraits(old=True)\n")
    (tmp_path / "run.py").write_text("import my_part\n")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(ValueError, match=r"my_part\.py, line 3: TypeError: .*unexpected keyword argument 'old'"):
        load_config(tmp_path / "run.py")


def test_a_config_that_is_not_valid_is_refused_when_it_is_read(tmp_path):
    with pytest.raises(ValueError, match="microbatches = 3"):
        read_back(render(dataclasses.replace(CONFIG, microbatches=3)), tmp_path)


def test_configs_load_from_a_source_tree_that_is_not_installed(tmp_path):
    root = Path(prerl_jax.__file__).parent.parent
    code = f"""
        import sys
        sys.meta_path = [f for f in sys.meta_path if "editable" not in repr(f)]
        sys.path.insert(0, {str(root)!r})
        from prerl_jax.config.io import load_config
        print(load_config("psr_rl_qwen3_4b_math").name)
    """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code)], cwd=tmp_path, capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "psr_rl_qwen3_4b_math"


# --- difference


def test_of_long_values_the_difference_shows_where_they_part():
    old, new = 300 * "a" + "b" + 300 * "c", 300 * "a" + 301 * "c"
    (line,) = difference((old,), (new,))
    start = "..." + 30 * "a"
    assert line == f"0: {start}b{89 * 'c'}... -> {start}{90 * 'c'}..."


def test_the_difference_names_the_innermost_fields():
    assert difference(CONFIG, CONFIG) == []
    new = apply_overrides(CONFIG, ["seed=1", "phases.1.steps=4", "data.template=PlainText()"])
    assert difference(CONFIG, new) == [
        "data.template: ChatTemplate(arguments=(('a', False),), add_generation_prompt=True) -> PlainText()",
        "phases.1.steps: 3 -> 4",
        "seed: 0 -> 1",
    ]
    (line,) = difference(CONFIG, apply_overrides(CONFIG, ["phases=grpo(steps=3)"]))
    assert line.startswith("phases: (Phase(name='nsr_prerl'")


class FalseVerifier:
    """A verifier whose truth value is False, as that of an empty mapping."""

    def __call__(self, problem, response):
        return 1.0

    def __bool__(self):
        return False


def test_the_verifier_of_evaluation_is_the_training_one_unless_it_is_named():
    other, data = FalseVerifier(), CONFIG.data
    assert data.verifier_of_evaluation is data.verifier
    assert dataclasses.replace(data, evaluation_verifier=other).verifier_of_evaluation is other


@pytest.mark.parametrize("reward", [float("nan"), float("inf"), -2e15])
def test_a_reward_that_no_group_could_hold_is_refused(reward):
    with pytest.raises(ValueError, match=r"data\.truncated_reward is .* between -1e\+15 and 1e\+15"):
        dataclasses.replace(CONFIG.data, truncated_reward=reward)


def test_the_default_thoughts_are_saved_by_their_name():
    source = render(load_config("lab"))
    assert "thoughts=THOUGHTS," in source
    assert len(source) < 10_000
