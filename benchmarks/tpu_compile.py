"""Compiles our programs ahead of time with the TPU compiler, without a TPU (`pip install libtpu`).

    python benchmarks/tpu_compile.py                      Qwen3-4B, 1,024 + 8,192 tokens, v5e:4x8; about 10 minutes
    python benchmarks/tpu_compile.py --tunix              ... and Tunix's GRPO step beside them (google-tunix)
    python benchmarks/tpu_compile.py --quick              a small model on a small slice; about a minute

The batch is the paper's: 128 prompts x 8 responses, in microbatches of one row a chip (32 on v5e:4x8). 128 rows are
sampled at once, because the cache leaves room for no more. `score` and the dual program have one microbatch and 8
groups. All rows count as full, so the FLOPs are the most that a step can need.

Reported for each program: seconds to compile; peak HBM on a device and how much of it is free; temporaries; FLOPs and
HBM bytes of a device and the bytes that it sends to others, with loops counted as often as they run (`prerl_jax.plan`;
`hlo_cost.py` lists the dearest operations of a program that `--dump` wrote); FLOPs over those of the matrix products
and causal attention that the remat policy needs; warnings of the partitioner (involuntary rematerialisation or
replication); the share of FLOPs in products of float32 matrices.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Iterator

os.environ.setdefault("JAX_PLATFORMS", "cpu")
os.environ |= {"TPU_SKIP_MDS_QUERY": "1", "TPU_STDERR_LOG_LEVEL": "1", "TPU_MIN_LOG_LEVEL": "1"}
os.environ.setdefault("ALLOW_MULTIPLE_LIBTPU_LOAD", "1")  # nothing runs on a TPU here, so no lock is needed

import jax
import libtpu
from jax.experimental import topologies
from jax.sharding import Mesh
from timing import Row, report
from tpu_programs import MODELS, Program, Shapes, programs

from prerl_jax.models.attention import choose
from prerl_jax.models.decoder import Decoder
from prerl_jax.models.layers import DecoderConfig
from prerl_jax.plan.count import Count, count
from prerl_jax.plan.native import captured_stderr
from prerl_jax.runtime.mesh import MeshSpec, make_mesh

HBM = {"v5e": 16, "v6e": 32, "v5p": 95, "v4": 32}
"""GiB a chip."""
WARNINGS = r"[Ii]nvoluntary full (?:re)?materiali[sz]ation|[Ii]nvoluntary replication|will be replicated"


@dataclasses.dataclass(frozen=True)
class Compiled:
    """What the compiler reports about a program."""

    seconds: float
    peak: int
    temporaries: int
    count: Count
    warnings: int


def compiled(program: Program, dump: str | None = None) -> Compiled:
    start = time.perf_counter()
    with captured_stderr() as said:
        executable = program.compile()
    seconds = time.perf_counter() - start
    text = executable.as_text()
    if dump:
        with open(os.path.join(dump, f"{program.name.replace('/', '_')}.hlo"), "w") as file:
            file.write(text)
    memory = executable.memory_analysis()
    return Compiled(
        seconds=seconds,
        peak=memory.peak_memory_in_bytes,
        temporaries=memory.temp_size_in_bytes,
        count=count(text),
        warnings=len(re.findall(WARNINGS, said[0])),
    )


def rows(program: Program, found: Compiled, hbm: float) -> list[Row]:
    name, cost = f"tpu_compile/{program.name}", found.count.total
    peak = found.peak + program.beside
    beside = f" with {program.beside / 2**20:,.0f} of the train state beside it" if program.beside else ""
    memory = f"peak {peak / 2**20:,.0f} MiB{beside}, temporaries {found.temporaries / 2**20:,.0f} MiB"
    work = f"{cost.flops / 1e12:,.4g} TFLOP against {program.flops / 1e12:,.4g}"
    traffic = f"{cost.hbm / 2**30:,.3g} GiB through HBM, {cost.sent / 2**30:,.3g} GiB between chips"
    traffic += "".join(f"; loop {loop} counts once: no bound of it could be read" for loop in found.count.unbounded)
    wide = "".join(f"largest: {line.op_name[-60:]}" for line in found.count.dearest(lambda cost: cost.wide, most=1))
    free = 1 - peak / (hbm * 2**30)
    ratio = cost.flops / program.flops if program.flops else None
    return [
        Row(f"{name}/free", free, ">= 0.25", f"{memory}; compiled in {found.seconds:.0f} s; {program.note}"),
        Row(f"{name}/flops", ratio, "<= 1.15", f"{work}; {traffic}"),
        Row(f"{name}/warnings", found.warnings, "<= 0"),
        Row(f"{name}/float32", cost.wide / max(cost.flops, 1), "<= 0.01", wide),
    ]


def tunix_rows(config: DecoderConfig, shapes: Shapes, arguments: argparse.Namespace) -> Iterator[Row]:
    """The rows: the peak of our RL step over that of Tunix's GRPO step with as many rows at once, at each depth."""
    for layers in arguments.tunix_layers or [config.num_layers]:
        at_depth = dataclasses.replace(config, num_layers=layers)
        name = f"tpu_compile/peak/tunix/{layers}_layers"
        theirs = tunix_step(at_depth, shapes, arguments)
        if "error" in theirs:
            yield Row(name, None, "<= 0.7", f"Tunix: {theirs['error']}")
            continue
        model, _ = decoder(at_depth, arguments)
        ours = compiled(next(p for p in programs(model, shapes) if p.name == "rl_step"))
        sizes = f"{ours.peak / 2**30:.2f} GiB in {ours.seconds:.0f} s, Tunix {theirs['peak'] / 2**30:.2f} GiB"
        how = f"in {theirs['seconds']:.0f} s" if "seconds" in theirs else "of temporaries alone: it does not fit"
        yield Row(name, ours.peak / theirs["peak"], "<= 0.7", f"{sizes} {how}")


def tunix_step(config: DecoderConfig, shapes: Shapes, arguments: argparse.Namespace) -> dict:
    """What `tunix_compile.py` prints. It runs in the Python that has Tunix, with the libtpu of this Python."""
    names = {"hidden_size": "embed_dim", "intermediate_size": "hidden_dim", "rms_norm_eps": "norm_eps"}
    names |= {"tied": "use_tied_embedding"}
    same = ("num_layers", "vocab_size", "num_heads", "head_dim", "num_kv_heads", "rope_theta")
    names |= dict(zip(same, same, strict=True))
    asked = {
        "topology": arguments.topology,
        "tensor": arguments.tensor,
        "rows": shapes.microbatch,
        "prompt": shapes.prompt,
        "response": shapes.response,
        "microbatches": shapes.rows // shapes.microbatch,
        "model": {theirs: getattr(config, ours) for ours, theirs in names.items()},
    }
    script = os.path.join(os.path.dirname(os.path.abspath(__file__)), "tunix_compile.py")
    command = [arguments.tunix_python or sys.executable, script, json.dumps(asked)]
    environment = os.environ | {"TPU_LIBRARY_PATH": libtpu.get_library_path()}
    quiet = {"env": environment, "capture_output": True, "text": True}
    try:
        done = subprocess.run(command, timeout=60 * arguments.tunix_minutes, check=False, **quiet)
    except subprocess.TimeoutExpired:
        return {"error": f"did not compile in {arguments.tunix_minutes:g} minutes"}
    last = done.stdout.strip().splitlines()[-1:] or [""]
    if done.returncode or not last[0].startswith("{"):
        return {"error": (done.stderr.strip().splitlines() or ["nothing was printed"])[-1]}
    found = json.loads(last[0])
    if "error" not in found:
        return found
    needed = re.search(r"memory required for HLO temporaries \(([\d.]+)G\)", found["error"])
    return {"peak": float(needed[1]) * 2**30} if needed else {"error": found["error"].splitlines()[0][:200]}


def decoder(config: DecoderConfig, arguments: argparse.Namespace) -> tuple[Decoder, Mesh]:
    """The model on the topology's mesh."""
    topology = topologies.get_topology_desc(platform="tpu", topology_name=arguments.topology)
    mesh = make_mesh(MeshSpec(data=1, fsdp=-1, tensor=arguments.tensor), topology.devices)
    how = {"compute_dtype": "bfloat16", "remat": arguments.remat, "attention": arguments.attention}
    return Decoder(config, **how, mesh=mesh), mesh


def named(found: list[Program], names: list[str] | None) -> list[Program]:
    """The programs with these names, or all; ends with a message if there is none of a name."""
    unknown = sorted(set(names or ()) - {program.name for program in found})
    if unknown:
        there = " ".join(program.name for program in found)
        sys.exit(f"--only: there is no program {', '.join(unknown)}. The programs of this model and its sizes: {there}")
    return [program for program in found if not names or program.name in names]


def options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--topology", default="v5e:4x8")
    parser.add_argument("--model", default="qwen3-4b", choices=sorted(MODELS))
    parser.add_argument("--tensor", type=int, default=1, help="size of the mesh's tensor axis; the rest is fsdp")
    parser.add_argument("--remat", default="full")
    parser.add_argument("--attention", default="auto")
    parser.add_argument("--layers", type=int, help="other than the model's, for a quick look")
    parser.add_argument("--only", nargs="*", help="names of programs")
    parser.add_argument("--dump", help="a folder for the optimised HLO")
    parser.add_argument("--tunix", action="store_true", help="compile Tunix's GRPO step too")
    parser.add_argument("--tunix-layers", type=int, nargs="*", help="depths to compare at; the model's by default")
    parser.add_argument("--tunix-minutes", type=float, default=30, help="after which it is given up")
    parser.add_argument("--tunix-python", help="the Python that has google-tunix, if not this one")
    parser.add_argument("--quick", action="store_true")
    arguments = parser.parse_args()
    if arguments.quick:
        arguments.topology, arguments.model, arguments.tensor = "v5e:2x4", "small", 2
    return arguments


def main() -> None:
    arguments = options()
    config = MODELS[arguments.model]
    if arguments.layers:
        config = dataclasses.replace(config, num_layers=arguments.layers)
    model, mesh = decoder(config, arguments)
    shapes = Shapes.small(mesh) if arguments.quick else Shapes.paper(mesh)
    asked = named(list(programs(model, shapes)), arguments.only)
    query = (shapes.microbatch, shapes.prompt + shapes.response, config.num_heads, config.head_dim)
    chosen = choose(arguments.attention, query, config.num_kv_heads, mesh, model.rules)
    print(f"{arguments.model}, {config.num_layers} layers, on {arguments.topology}, {dict(mesh.shape)}: {shapes}")
    print(f"remat {arguments.remat}, attention {chosen}, jax {jax.__version__}", flush=True)
    found = []
    hbm = HBM[arguments.topology.split(":")[0]]
    for program in asked:
        result = compiled(program, arguments.dump)
        found += rows(program, result, hbm)
        print(f"{program.name}: {result.seconds:.0f} s, {result.peak / 2**20:,.0f} MiB", flush=True)
    if arguments.tunix:
        found += tunix_rows(config, shapes, arguments)
    report(found)


if __name__ == "__main__":
    main()
