"""What a compiled program needs of a device: memory by what it is, arithmetic, traffic, and the times that these take.

A bound is the time that one resource alone would take at its peak: the arithmetic, the memory's bandwidth, the links
between chips, the link to the host. A program takes at least the longest of them.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping

import jax

from prerl_jax.plan.count import Cost, count
from prerl_jax.plan.program import Program
from prerl_jax.runtime.chips import GIB, Chip

UNITS = {"": 1, "K": 2**10, "M": 2**20, "G": GIB, "T": 2**40}
KERNEL = "attend_filled"
"""The name of the kernel in `models.filled`. What it reads depends on how full the cache is."""
REST = "temporaries and results"


@dataclasses.dataclass(frozen=True)
class Rates:
    """What a device can do at most: FLOP/s, and bytes a second of memory, of links to other chips, and to the host."""

    flops: float
    bandwidth: float
    links: float
    host: float

    @classmethod
    def of(cls, chip: Chip) -> Rates:
        """The rates of one device of a chip: its part of the chip."""
        whole = (chip.flops, chip.bandwidth, chip.links, chip.host)
        return cls(*(number / chip.devices for number in whole))


def bounds(work: Cost, rates: Rates) -> dict[str, float]:
    """Seconds that each resource of a device takes at its peak: compute, memory, links, host."""
    return {
        "compute": work.flops / rates.flops,
        "memory": work.hbm / rates.bandwidth,
        "links": work.sent / rates.links,
        "host": work.host / rates.host,
    }


@dataclasses.dataclass(frozen=True)
class Row:
    """One program in the plan.

    Attributes:
        name: the program.
        phases: who runs it, see `Program.phases`.
        role: its part in a run, see `Program.role`.
        columns: of the ring, for a chunk of decoding.
        tokens: the most that it draws for each slot, all of which are counted in `work`; 0 where it draws none.
        peak: bytes of a device's memory at the most; at least so many where the program does not fit.
        parts: what the peak is made of, in bytes.
        work: what it does on a device; None where it was not compiled.
        refused: what the compiler said where the program does not fit; else "".
        warnings: arrays that the partitioner could split only by copying them whole.
        unbounded: loops that count once, because how often they run could not be read.
    """

    name: str
    phases: tuple[str, ...]
    role: str
    columns: int
    tokens: int
    peak: float
    parts: Mapping[str, float]
    work: Cost | None
    refused: str = ""
    warnings: int = 0
    unbounded: int = 0

    def free(self, usable: float) -> float:
        """The share of the usable memory that stays free; negative where it does not fit."""
        return 1 - self.peak / usable

    def fits(self, usable: float) -> bool:
        """Whether a device has room for it, beside what the run holds."""
        return not self.refused and self.peak <= usable

    def seconds(self, rates: Rates) -> float | None:
        """The bound: the longest of its times. None where the program was not compiled."""
        return None if self.work is None else max(bounds(self.work, rates).values())


def row_of(program: Program) -> Row:
    """The row of a program: its memory, and the work that is counted in its text."""
    shared = (program.name, program.phases, program.role, program.columns, program.tokens)
    compiled, beside = program.compiled, program.beside
    if isinstance(compiled, str):
        return Row(*shared, needed(compiled) + beside, dict(program.held), None, refused=compiled.splitlines()[0])
    peak = peak_bytes(compiled) + beside
    rest = max(0, peak - sum(program.held.values()))
    work, unbounded = counted(compiled.as_text() or "", program.attention, program.tokens)
    copied = program.said.lower().count("involuntary")
    return Row(*shared, peak, {**program.held, REST: rest}, work, warnings=copied, unbounded=unbounded)


def counted(text: str, attention: Cost, tokens: int = 0) -> tuple[Cost, int]:
    """The work of a program, in which all runs of the kernel of decoding together do `attention`; and how many of its
    loops count once, because how often they run could not be read.

    A program that decodes a chunk of `tokens` or the tail to its end counts as the chunk.
    """
    found = count(text, {KERNEL: Cost(hbm=1.0)}, tokens)
    runs = sum(line.times for line in found.lines if line.name.startswith(KERNEL))
    work = found.total + attention + Cost(hbm=-runs) if runs else found.total
    return work, len(found.unbounded)


def peak_bytes(compiled: jax.stages.Compiled) -> int:
    """The most bytes of a device's memory that a program uses at once, its inputs and results included.

    The compiler's peak counts the host's memory, too: what the program has there throughout is taken off.

    Raises ValueError where the compiler does not say it.
    """
    memory = compiled.memory_analysis()
    if memory is None:
        raise ValueError("the compiler does not say how much memory a program needs.")
    on_host = memory.host_argument_size_in_bytes + memory.host_output_size_in_bytes - memory.host_alias_size_in_bytes
    return max(0, memory.peak_memory_in_bytes - on_host - memory.host_temp_size_in_bytes) or (
        memory.argument_size_in_bytes
        + memory.output_size_in_bytes
        - memory.alias_size_in_bytes
        + memory.temp_size_in_bytes
    )


def needed(refusal: str) -> float:
    """The bytes that a program needs, from what XLA says where it does not fit; 0 where it does not say."""
    found = re.search(r"Used ([\d.]+)([KMGT]?) of", refusal) or re.search(
        r"required for HLO temporaries \(([\d.]+)([KMGT]?)\)", refusal
    )
    return float(found[1]) * UNITS[found[2]] if found else 0.0
