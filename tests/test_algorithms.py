"""Algorithms in a config: combinations that are refused, and the table that documents them."""

import dataclasses
import inspect
import re
from pathlib import Path

import pytest

import prerl_jax as pj
from prerl_jax.config import CriticSpec, OptimizerSpec, SamplingSpec
from prerl_jax.config.checks import validate
from prerl_jax.config.io import load_config
from prerl_jax.config.overrides import apply_overrides
from prerl_jax.core import baselines, recipes

DOCS = (Path(__file__).parent.parent / "docs" / "algorithms.md").read_text("utf-8")
LAB = load_config("lab")
CUT = SamplingSpec(prompts_per_step=24, group_size=8, max_new_tokens=64, top_p=0.9)


def config(*, sampling=LAB.sampling, critic=None, **phase):
    return dataclasses.replace(LAB, sampling=sampling, critic=critic, phases=(pj.Phase("p", 1, **phase),))


@dataclasses.dataclass(frozen=True)
class Valued:
    """An advantage estimator that reads a critic's values, and does not say what the critic learns."""

    traits = pj.AdvantageTraits(needs_values=True)

    def __call__(self, rollouts, group_size, values=None):
        return rollouts.rewards[:, None] - values, rollouts.rewards >= 0


REFUSED = [
    ({"sampling": CUT}, r"'p' has an importance ratio .*ClippedPG.*sampling.top_p = 0.9 .*Reinforce\(\)"),
    ({"sampling": CUT, "objective": pj.WithEntropy(pj.GSPO(), 0.1)}, "importance ratio"),
    ({"sampling": CUT, "objective": pj.TruncatedIS(pj.Reinforce())}, "importance ratio"),
    (
        {"advantage": pj.GAE()},
        r"'p' has the advantage estimator GAE.*no critic\. Set critic=CriticSpec\(\), .* GroupRelative\(\)",
    ),
    ({"critic": CriticSpec()}, r"no phase reads its values.*estimator GAE\(\), as ppo.*or set critic=None"),
    (
        {"sampling": dataclasses.replace(LAB.sampling, group_size=1), "critic": CriticSpec(), "advantage": pj.GAE()},
        r"group_size is 1 and alignment.every 5.*Set alignment.every=0",
    ),
    (
        {"objective": pj.WithKL(pj.Reinforce(), 0.1)},
        r"'p' has a KL divergence in WithKL.*InitialModel\(\)",
    ),
    ({"reward_shaping": pj.KLPenalty(0.1)}, r"'p' has a KL divergence in KLPenalty.*PhaseStart\(\)"),
    (
        {"reference": pj.PhaseStart()},
        r"reference PhaseStart\(\), and neither .* nor a guard .*a Guard on train/reference_kl",
    ),
    (
        {"minibatches": 5},
        r"minibatches = 5, which do not divide the sampling.prompts_per_step = 24 .*\[1, 2, 3, 4, 6,",
    ),
    ({"sampling": dataclasses.replace(LAB.sampling, group_size=1), "advantage": pj.LeaveOneOut()}, "group_size is 1"),
    (
        {"sampling": dataclasses.replace(LAB.sampling, group_size=1), "advantage": pj.BatchNormalized(True)},
        "group_size is 1",
    ),
]


@pytest.mark.parametrize(("changes", "says"), REFUSED)
def test_what_a_run_cannot_do_is_refused_when_the_config_is_read(changes, says):
    with pytest.raises(ValueError, match=says):
        validate(config(**changes))


@pytest.mark.parametrize("wrap", [lambda advantage: advantage, pj.DropTruncated])
def test_an_estimator_that_reads_values_says_what_the_critic_learns(wrap):
    with pytest.raises(ValueError, match=r"Valued reads .* not define what the critic learns.*targets\(rollouts"):
        config(advantage=wrap(Valued()))


@pytest.mark.parametrize(
    "changes",
    [
        {"sampling": CUT, "objective": pj.Reinforce()},
        {"objective": pj.TruncatedIS(pj.CISPO())},
        {"sampling": dataclasses.replace(LAB.sampling, group_size=1), "advantage": pj.BatchNormalized()},
        {"sampling": dataclasses.replace(LAB.sampling, group_size=1), "advantage": pj.BinaryAdvantage(positive=0.1)},
        {"reward_shaping": pj.OverlongPenalty(16)},
        {"advantage": pj.DropTruncated(pj.GAE()), "critic": CriticSpec(value_clip=None)},
        {"reward_shaping": pj.KLPenalty(0.1, reward_shaping=pj.OverlongPenalty(16)), "reference": pj.InitialModel()},
        {"objective": pj.WithKL(pj.GSPO(), 0.1), "reference": pj.PhaseStart(), "epochs": 2, "minibatches": 4},
        {"terms": pj.mixed(steps=1, pretrain=pj.Linear(0.1, 0.0, 5))[0].terms},
        {"space": pj.PromptDropout(0.5), "advantage": pj.DropTruncated(pj.GroupRelative())},
    ],
)
def test_what_fits_together_passes(changes):
    assert validate(config(**changes)).phases[0].name == "p"


def test_a_critic_is_an_override():
    given = ["critic=CriticSpec()", "phases=ppo(steps=9)", "critic.optimizer.learning_rate=3e-4"]
    with pytest.raises(ValueError, match="no critic"):
        apply_overrides(LAB, given[1:2])
    assert apply_overrides(LAB, given).critic == CriticSpec(OptimizerSpec(3e-4))
    with pytest.raises(ValueError, match=r"critic\.value_clip is 0; it must be above 0, or None"):
        CriticSpec(value_clip=0)


def test_minibatches_divide_over_the_mesh():
    assert validate(config(minibatches=24), shards=8)
    with pytest.raises(ValueError, match=r"minibatches = 24, of 8 rows each, and microbatches = 1: 8 rows"):
        validate(config(minibatches=24), shards=12)


def test_a_recipe_is_an_override():
    texts = ["w_reinforce(steps=60, positive=0.2)", "dapo(steps=60, overlong_buffer=16)", "rloo(steps=60)"]
    for text in (*texts, "dsrl(warmup=40, total=90, guards=WARMUP_GUARDS)"):
        assert apply_overrides(LAB, [f"phases={text}"]).phases == eval(text, vars(pj))


def test_every_recipe_is_documented_and_every_documented_recipe_builds():
    found = [pair for room in (recipes, baselines) for pair in inspect.getmembers(room, inspect.isfunction)]
    names = {name for name, _ in found if name[0] != "_"}
    calls = [c for line in DOCS.split("## Pieces")[0].splitlines() for c in re.findall(r"`(\w+\(.*?\))`", line)]
    built = {
        call.split("(")[0]: eval(call, vars(pj) | {"n": 50, "b": 4})
        for call in calls
        if "steps=" in call or "total" in call
    }
    assert set(built) == names
    assert all(isinstance(phase, pj.Phase) for phases in built.values() for phase in phases)


def test_the_documented_phases_build():
    (code,) = re.findall(r"```python\n(.*?)```", DOCS, re.DOTALL)
    names = {}
    exec(code, names)
    assert names["rloo"].advantage.keep == "negative"
    assert names["gspo"].objective.traits.needs_reference
    assert len(names["mixed"].terms) == 2
