"""Makes the plan of a config and prints it."""

from __future__ import annotations

import dataclasses
import json
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path

import jax

from prerl_jax.config.schema import TrainConfig
from prerl_jax.plan.abstract_setup import abstract_setup
from prerl_jax.plan.advice import verdict
from prerl_jax.plan.native import captured_stderr
from prerl_jax.plan.program import Lengths, Program
from prerl_jax.plan.programs import compile_programs
from prerl_jax.plan.report import Rates, Row, bounds, row_of
from prerl_jax.plan.search import Candidate, distinct, ranked
from prerl_jax.plan.steps import Run, run_at_bound
from prerl_jax.plan.table import heading, run_lines, table, wrapped
from prerl_jax.plan.topology import NoCompiler, Slice, local_slice, slice_named
from prerl_jax.runtime.chips import GIB
from prerl_jax.trainer.engines import decode_layout
from prerl_jax.trainer.programs import Programs
from prerl_jax.trainer.setup import Setup

MOST = 3
"""Layouts that a search compiles; if none of them fits, it compiles so many more."""
NOT_SEARCHED = (
    "Chunks and rings are those of the config: the model of bytes does not tell them apart. The optimizer's moments "
    "change only where nothing fits otherwise."
)


@dataclasses.dataclass(frozen=True)
class Asked:
    """What the command line asks for.

    Attributes:
        topology: such as v5e:4x8; None for this machine.
        mean_prompt: tokens of a prompt on average; None: data.max_prompt_tokens.
        mean_response: tokens of a response on average; None: a third of sampling.max_new_tokens.
        evaluated: problems of an evaluation; None: sampling.prompts_per_step.
        json: a file for the numbers.
        dump: a folder for the programs' texts.
        search: whether to look for a better layout.

    Raises ValueError for numbers below 1.
    """

    topology: str | None = None
    mean_prompt: int | None = None
    mean_response: int | None = None
    evaluated: int | None = None
    json: Path | None = None
    dump: Path | None = None
    search: bool = False

    def __post_init__(self) -> None:
        for name in ("mean_prompt", "mean_response", "evaluated"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ValueError(f"--{name.replace('_', '-')} {value}: it must be at least 1.")

    def lengths(self, config: TrainConfig) -> Lengths:
        """The assumed lengths. Raises ValueError for a mean above the most."""
        most = Lengths(config.data.max_prompt_tokens, config.sampling.max_new_tokens)
        prompt = self.mean_prompt or most.prompt
        response = self.mean_response or -(-most.response // 3)
        if prompt > most.prompt or response > most.response:
            raise ValueError(
                f"the assumed means are {prompt} tokens of a prompt and {response} of a response; the config allows "
                f"at most data.max_prompt_tokens={most.prompt} and sampling.max_new_tokens={most.response}."
            )
        return Lengths(prompt, response)


@dataclasses.dataclass(frozen=True)
class Plan:
    """What is known of a run on a slice.

    Attributes:
        setup: the run.
        place: the devices.
        rates: of a device; None where they are not known.
        rows: a row for each program.
        run: the seconds; None where they are not known.
    """

    setup: Setup
    place: Slice
    rates: Rates | None
    rows: tuple[Row, ...]
    run: Run | None

    @property
    def fits(self) -> bool | None:
        """Whether every program fits a device; None where its memory is not known and the compiler refuses none."""
        if self.place.usable is None:
            return False if any(row.refused for row in self.rows) else None
        return all(row.fits(self.place.usable) for row in self.rows)


def plan(config: TrainConfig, asked: Asked, say: Callable[[str], None] = print) -> bool | None:
    """Compiles a run's programs for a slice and prints the plan. Returns whether it fits; None if that is not known.

    Args:
        config: the run.
        asked: for which devices, with which lengths, and what is written to files.
        say: prints a text.

    Raises ValueError or OSError about the topology, the mesh, the config or the model.
    """
    asked.lengths(config)
    place = _place(asked, say)
    found = _searched(config, place, asked, say) if asked.search else _planned(config, place, asked, say)
    if asked.json is not None:
        asked.json.write_text(json.dumps(as_json(found, asked.lengths(config)), indent=1) + "\n")
    return found.fits


def _planned(config: TrainConfig, place: Slice, asked: Asked, say: Callable[[str], None]) -> Plan:
    """Makes and prints the plan of one config."""
    lengths, evaluated = asked.lengths(config), asked.evaluated or config.sampling.prompts_per_step
    setup = abstract_setup(config, place.devices, evaluated)
    programs = Programs(setup)
    rates = Rates.of(place.chip) if place.chip else None
    for text in (heading(place, rates), _described(setup), f"decoding: {decode_layout(setup)}."):
        say("\n".join(wrapped(text)))
    rows = []
    for program in _progress(compile_programs(programs, lengths)):
        rows.append(row_of(program))
        if asked.dump is not None:
            _dump(asked.dump, program)
    say("\n" + table(rows, rates, place.usable) + "\n")
    run = None if rates is None else run_at_bound(programs, rows, rates, lengths, place.chips)
    lines = [] if run is None else run_lines(run, lengths)
    lines += [part for line in verdict(setup, place, rows) for part in wrapped(line)]
    say("\n".join(lines))
    return Plan(setup, place, rates, tuple(rows), run)


def _searched(config: TrainConfig, place: Slice, asked: Asked, say: Callable[[str], None]) -> Plan:
    """Ranks layouts by the model of bytes, makes the plans of the best, and proposes the fastest that fits."""
    if place.chip is None:
        raise ValueError("--search needs a chip whose numbers are known: give --topology, such as v5e:4x8.")
    evaluated = asked.evaluated or config.sampling.prompts_per_step
    candidates = ranked(config, place, Rates.of(place.chip), asked.lengths(config), evaluated)
    best = distinct(candidates, 2 * MOST)
    say(f"{len(candidates)} layouts fit by the model of bytes. {NOT_SEARCHED}")
    plans: list[Plan] = []
    for few in (best[:MOST], best[MOST:]):
        plans += _compiled(few, len(plans), place, asked, say)
        hours = {n: made.run.hours for n, made in enumerate(plans) if made.fits and made.run is not None}
        if hours:
            chosen = min(hours, key=lambda n: hours[n])
            changes = f"--set {' '.join(best[chosen].changes)}" if best[chosen].changes else "no change"
            say(f"\nproposal: number {chosen + 1}, the fastest that fits: {changes}")
            return plans[chosen]
        say(f"\nnone of the best {len(plans)} of {len(candidates)} layouts fits when it is compiled.")
    say("proposal: none. Choose a layout that the model of bytes ranks lower, or take a larger slice.")
    return plans[0]


def _compiled(
    candidates: Sequence[Candidate], before: int, place: Slice, asked: Asked, say: Callable[[str], None]
) -> Iterator[Plan]:
    """The plans of a search's candidates, of which this many were compiled before."""
    for number, candidate in enumerate(candidates, before + 1):
        changes = " ".join(candidate.changes) or "the config as it is"
        size = f"{candidate.peak / GIB:.1f} GiB a device, {candidate.seconds:.3g} s a step by the model of bytes"
        say(f"\nnumber {number}: {changes}: {size}\n")
        dump = None if asked.dump is None else asked.dump / str(number)
        yield _planned(candidate.config, place, dataclasses.replace(asked, dump=dump), say)


def _place(asked: Asked, say: Callable[[str], None]) -> Slice:
    """The devices of a topology; those of this machine where none is asked for, or where its compiler is missing and
    there is no search."""
    if asked.topology is None:
        return local_slice()
    try:
        with captured_stderr():
            return slice_named(asked.topology)
    except NoCompiler as error:
        if asked.search:
            raise
        say(f"{error}\nWithout it, this is the plan for this machine, not for {asked.topology}:")
        return local_slice()


def _described(setup: Setup) -> str:
    """The model, the mesh and the sizes of a step."""
    config, mesh = setup.config, setup.mesh
    shape = " x ".join(f"{name} {size}" for name, size in mesh.shape.items())
    sampling = config.sampling
    return (
        f"{config.name}: {config.model.path} on the mesh {shape}; a step samples {sampling.prompts_per_step} x "
        f"{sampling.group_size} responses of at most {sampling.max_new_tokens} tokens to prompts of at most "
        f"{config.data.max_prompt_tokens}; microbatches={config.microbatches}, remat={config.model.remat}."
    )


def _progress(programs: Iterable[Program]) -> Iterator[Program]:
    """Says on standard error what has been compiled, since a program can take minutes."""
    start = time.monotonic()
    for program in programs:
        print(f"compiled {program.name} in {time.monotonic() - start:.0f} s", file=sys.stderr, flush=True)
        yield program
        start = time.monotonic()


def _dump(folder: Path, program: Program) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    name = program.name.replace("/", "_").replace(" ", "_")
    text = program.compiled if isinstance(program.compiled, str) else program.compiled.as_text()
    (folder / f"{name}.hlo").write_text(text or "")


def as_json(found: Plan, lengths: Lengths) -> dict[str, object]:
    """The numbers of the plan: bytes, FLOPs and seconds, of one device and one run of each program."""
    place, rates, run = found.place, found.rates, found.run

    def numbers(row: Row) -> dict[str, object]:
        of_row = dataclasses.asdict(row)
        if place.usable is not None:
            of_row["fits"] = row.fits(place.usable)
        if rates is not None:
            of_row["seconds"] = None if row.work is None else bounds(row.work, rates)
        return of_row

    of_run = {} if run is None else {"hours": run.hours, "chip_hours": run.chip_hours}
    return {
        "topology": place.name,
        "chips": place.chips,
        "devices": len(place.devices),
        "device": (dataclasses.asdict(rates) if rates else {}) | {"usable": place.usable},
        "mesh": dict(found.setup.mesh.shape),
        "programs": [numbers(row) for row in found.rows],
        "run": None if run is None else dataclasses.asdict(run) | of_run,
        "assumed": dataclasses.asdict(lengths),
        "jax": jax.__version__,
    }
