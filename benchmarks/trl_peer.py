"""TRL as a peer (`pip install trl`): its GRPOTrainer on one of our configs, on a CPU, with transformers' generate."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable

import numpy as np
import torch
from datasets import Dataset
from transformers import AutoModelForCausalLM, AutoTokenizer, TrainerCallback
from trl import GRPOConfig, GRPOTrainer

from prerl_jax.data.problems import Problem, as_text
from prerl_jax.models.location import resolve
from prerl_jax.trainer.setup import Setup


class Clock(TrainerCallback):
    """Measures the seconds of each step, generation included, and calls the other contenders between two steps."""

    def __init__(self, between: Callable[[], None]):
        self.seconds: list[float] = []
        self._between = between

    def on_step_begin(self, *_, **__):
        self._start = time.perf_counter()

    def on_step_end(self, *_, **__):
        self.seconds.append(time.perf_counter() - self._start)
        self._between()


def grpo_steps(setup: Setup, steps: int, threads: int, between: Callable[[], None]) -> tuple[list[float], dict]:
    """Trains for `steps` steps of the setup's config, and calls `between` after each.

    A step has one update with GRPO's loss, without KL, and our verifier. Returns (the seconds of each step, the means
    of rewards and of lengths in tokens).
    """
    torch.set_num_threads(threads)
    config, verifier = setup.config, setup.config.data.verifier
    problems = [example.problem for example in setup.train]
    rewards, lengths = [], []

    def reward(prompts, completions, completion_ids, answer, **_):
        said = zip(prompts, answer, completions, strict=True)
        found = [verifier(Problem(prompt, truth), response) for prompt, truth, response in said]
        ended = [ids[-1] in setup.stop_tokens for ids in completion_ids]
        rewards.append(np.mean(np.multiply(found, ended)))
        lengths.append(np.mean([len(ids) for ids in completion_ids]))
        return [value * end for value, end in zip(found, ended, strict=True)]

    path = str(resolve(config.model.path))
    clock, tokenizer = Clock(between), AutoTokenizer.from_pretrained(path, padding_side="left")
    rows = {"prompt": [as_text(p.prompt) for p in problems], "answer": [p.answer for p in problems]}
    theirs = tokenizer(rows["prompt"])["input_ids"]
    if theirs != [list(example.tokens) for example in setup.train]:
        raise RuntimeError("TRL's prompts are other tokens than ours.")
    with tempfile.TemporaryDirectory() as folder:
        trainer = GRPOTrainer(
            AutoModelForCausalLM.from_pretrained(path, dtype=torch.float32),
            reward,
            args=settings(config, steps, folder),
            train_dataset=Dataset.from_dict(rows),
            processing_class=tokenizer,
            callbacks=[clock],
        )
        trainer.train()
    return clock.seconds, {"reward": float(np.mean(rewards)), "length": float(np.mean(lengths))}


def settings(config, steps: int, folder: str) -> GRPOConfig:
    """TRL's arguments for one of our configs, without logging, saving or gradient checkpointing."""
    sampling, optimizer = config.sampling, config.optimizer
    return GRPOConfig(
        output_dir=folder,
        use_cpu=True,
        bf16=False,
        gradient_checkpointing=False,
        max_steps=steps,
        per_device_train_batch_size=sampling.prompts_per_step * sampling.group_size,
        num_generations=sampling.group_size,
        max_completion_length=sampling.max_new_tokens,
        temperature=1.0,
        top_p=1.0,
        top_k=0,
        beta=0.0,
        num_iterations=1,
        learning_rate=optimizer.learning_rate,
        lr_scheduler_type="constant",
        weight_decay=optimizer.weight_decay,
        max_grad_norm=optimizer.max_grad_norm,
        logging_strategy="no",
        save_strategy="no",
        eval_strategy="no",
        report_to=[],
        disable_tqdm=True,
        dataloader_pin_memory=False,
    )
