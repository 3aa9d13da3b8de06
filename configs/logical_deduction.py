"""DSRL on logical deduction, with Qwen3-0.6B from the Hugging Face hub.

Command:

    python -m prerl_jax.launch --config configs/logical_deduction.py --workdir runs/logical_deduction

It trains on problems that the package makes, of three, five and seven objects. It evaluates on those of BIG-Bench-Hard,
which are for evaluation only. Download logical_deduction_three_objects.json, and those of five and seven objects, from
the repository suzgunmirac/BIG-Bench-Hard into data/bbh, or name other files:

    --set 'data.evaluation=logical_deduction(("three.json", "five.json", "seven.json"))'

Hardware: as configs/gsm8k.py.

Expected: there is no published number for this model and recipe. A guess is right once in three, five or seven times.
"""

import dataclasses

from prerl_jax import LogicalDeduction, MultipleChoice, TrainConfig, layouts, load_config


def config() -> TrainConfig:
    base = load_config("gsm8k")
    files = tuple(f"data/bbh/logical_deduction_{size}_objects.json" for size in ("three", "five", "seven"))
    data = dataclasses.replace(
        base.data,
        train=LogicalDeduction(count=7500),
        evaluation=layouts.logical_deduction(files),
        verifier=MultipleChoice("ABCDEFG"),
        max_prompt_tokens=512,
    )
    return dataclasses.replace(base, name="logical_deduction", data=data)
