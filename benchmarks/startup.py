"""Seconds from the command to the line of the first step, with an empty and with a filled compilation cache.

Also how many of our programs a whole run of the lab compiles.

    python benchmarks/startup.py [--quick] [--repetitions 3] [--config lab]

Every start is a new process, `python -m prerl_jax.launch`, which is ended when it has printed the line of its first
step. The first start has an empty cache folder, the second one the folder that the first has filled. The time includes
imports, reading the model, the evaluation before training and the alignment of the first step. The programs of the run
are read from JAX's log. A program counts if its name is that of a function of the package; one that is compiled for
several shapes counts once for each.
"""

from __future__ import annotations

import argparse
import os
import re
import statistics
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

from timing import Row, report

import prerl_jax

PACKAGE = Path(prerl_jax.__file__).parent
TARGET, PROGRAMS = "<= 0.4", "<= 8"


def command(config: str, workdir: str, *overrides: str) -> list[str]:
    return [sys.executable, "-m", "prerl_jax.launch", "--config", config, "--workdir", workdir, "--set", *overrides]


def environment(cache: str, **more: str) -> dict[str, str]:
    path = os.pathsep.join([str(PACKAGE.parent), os.environ.get("PYTHONPATH", "")])
    return {**os.environ, "JAX_COMPILATION_CACHE_DIR": cache, "PYTHONPATH": path, **more}


def first_step(config: str, cache: str) -> float:
    """Seconds until the line of the first step. The process is then ended."""
    with tempfile.TemporaryDirectory() as folder:
        start = time.perf_counter()
        arguments = command(config, folder + "/run", f"name='{config}'")
        process = subprocess.Popen(arguments, env=environment(cache), stdout=subprocess.PIPE, text=True)
        try:
            for line in process.stdout:
                if re.match(r"step +1/", line):
                    return time.perf_counter() - start
        finally:
            process.kill()
            process.wait()
    raise RuntimeError(f"`{' '.join(arguments)}` ended before its first step.")


def compiled(config: str, *overrides: str) -> Counter[str]:
    """The names of our programs that a whole run compiles, and how often each is compiled."""
    with tempfile.TemporaryDirectory() as folder:
        arguments = command(config, folder + "/run", f"name='{config}'", *overrides)
        done = subprocess.run(
            arguments, env=environment(folder + "/cache", JAX_LOG_COMPILES="1"), capture_output=True, text=True
        )
    if done.returncode:
        raise RuntimeError(f"`{' '.join(arguments)}` failed:\n{done.stderr[-2000:]}")
    names = re.findall(r"Finished XLA compilation of jit\((\S+)\) in", done.stderr)
    source = "\n".join(path.read_text("utf-8") for path in PACKAGE.rglob("*.py"))
    defined = {*re.findall(r"def (\w+)\(", source), *re.findall(r'__name__ = "(\w+)"', source), "<lambda>"}
    return Counter(name for name in names if name in defined)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n\n")[0])
    parser.add_argument("--quick", action="store_true", help="one start of each kind and a run of two steps")
    parser.add_argument("--repetitions", type=int, default=3)
    parser.add_argument("--config", default="lab")
    args = parser.parse_args()
    cold, warm = [], []
    for _ in range(1 if args.quick else args.repetitions):
        with tempfile.TemporaryDirectory() as cache:
            cold.append(first_step(args.config, cache))
            warm.append(first_step(args.config, cache))
    overrides = ["phases=dsrl(warmup=1, total=2)", "alignment.every=1"] if args.quick else []
    programs = compiled(args.config, *overrides)
    seconds = statistics.median(cold), statistics.median(warm)
    names = ", ".join(f"{name} x {count}" if count > 1 else name for name, count in programs.items())
    report(
        [
            Row(
                f"startup/{args.config}/warm_over_cold",
                seconds[1] / seconds[0],
                TARGET,
                f"first step after {seconds[0]:.1f} s cold, {seconds[1]:.1f} s warm",
            ),
            Row(f"startup/{args.config}/programs", float(programs.total()), PROGRAMS, names),
        ]
    )


if __name__ == "__main__":
    main()
