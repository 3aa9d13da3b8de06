"""The gradients in both spaces and their alignment from one program, beside two separate programs.

    python benchmarks/dual_gradients.py [--quick] [--model lab smollm2] [--repetitions 5]

The separate programs are what a user would write otherwise: the gradient of each phase's loss, jitted by itself. They
are compared with the one program, with the alignment of the objectives alone, and with that of the mean
log-probabilities as well, which needs two more gradients. Temporaries are what a compiled program allocates besides its
arguments and results. Of the two separate programs the larger one counts, because the second starts when the first has
ended.
"""

from __future__ import annotations

import argparse

import jax
import models
from timing import Row, interleaved, report

import prerl_jax as pj
from prerl_jax.runtime.memory import keep_freed_memory

GROUP = 8
PRE, POST = pj.nsr_prerl(steps=1, prefix=0)[0], pj.grpo(steps=1)[0]
SIZES = {
    "lab": (lambda: (models.LAB, models.random_params(models.LAB)), 16, 8, 54),
    "smollm2": (models.smollm2, 1, 64, 192),
    "tiny": (lambda: (models.TINY, models.random_params(models.TINY)), 2, 4, 12),
}
"""By model: (architecture and parameters, prompts, tokens of a prompt, tokens of a response)."""


def compare(name: str, repetitions: int) -> list[Row]:
    """The rows of one model in the table."""
    load, prompts, prompt, response = SIZES[name]
    config, params = load()
    model, rollouts = models.trained(config), models.random_rollouts(config, prompts, GROUP, prompt, response)

    def alone(phase):
        def gradient(params, rollouts):
            batch = pj.make_prepare(phase, GROUP)(rollouts)
            return jax.grad(pj.make_loss(model, phase.objective), has_aux=True)(params, batch)

        return jax.jit(gradient).lower(params, rollouts).compile()

    def together(logprob_alignment):
        function = pj.make_dual_gradients(model, PRE, POST, GROUP, logprob_alignment=logprob_alignment)
        return jax.jit(function).lower(params, rollouts).compile()

    apart, dual, full = [alone(phase) for phase in (PRE, POST)], together(False), together(True)
    seconds = interleaved(
        {
            "apart": lambda: [jax.block_until_ready(program(params, rollouts)) for program in apart],
            "dual": lambda: dual(params, rollouts),
            "full": lambda: full(params, rollouts),
        },
        repetitions,
    )
    temporary = max(program.memory_analysis().temp_size_in_bytes for program in apart)
    rows = []
    for key, what, bound in (("dual", "objectives", 1.05), ("full", "objectives and mean log-probabilities", 1.75)):
        note = f"{what}: {seconds[key] * 1e3:.0f} ms, apart {seconds['apart'] * 1e3:.0f} ms"
        rows.append(Row(f"dual_gradients/{name}/{key}/time", seconds[key] / seconds["apart"], f"<= {bound}", note))
    found = dual.memory_analysis().temp_size_in_bytes
    note = f"{found / 2**20:.0f} MiB, the larger one apart {temporary / 2**20:.0f} MiB"
    return [*rows, Row(f"dual_gradients/{name}/dual/temporaries", found / temporary, "<= 1.1", note)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="a tiny model alone, once")
    parser.add_argument("--model", nargs="+", choices=SIZES, default=["lab", "smollm2"])
    parser.add_argument("--repetitions", type=int, default=5)
    options = parser.parse_args()
    keep_freed_memory()
    names, repetitions = (["tiny"], 1) if options.quick else (options.model, options.repetitions)
    report(row for name in names for row in compare(name, repetitions))


if __name__ == "__main__":
    main()
