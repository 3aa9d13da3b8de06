"""What compiled programs cost on a device, from the files that `tpu_compile.py --dump FOLDER` writes.

    python benchmarks/hlo_cost.py FILE ... [--most 20] [--by hbm]

For each file: FLOPs, GiB through HBM and GiB sent to other chips, with loops counted as often as they run; its dearest
instructions; and its collectives. `prerl_jax.plan.count` counts them.
"""

from __future__ import annotations

import argparse
import operator
import pathlib

from prerl_jax.plan.count import Count, count

MIB = 2**20


def described(found: Count, by: str, most: int) -> list[str]:
    """The lines that are printed for a program."""
    total = found.total
    lines = [
        f"{total.flops / 1e12:,.4g} TFLOP, {total.hbm / MIB:,.0f} MiB through HBM, {total.sent / MIB:,.0f} MiB sent"
    ]
    lines += [f"loop {name} counts once: no bound of it could be read" for name in found.unbounded]
    for line in found.dearest(operator.attrgetter(by), most):
        lines.append(
            f"{line.total.hbm / MIB:12,.1f} MiB {line.total.flops / 1e9:12,.1f} GFLOP  {line.times} x {line.name}, "
            f"{line.opcode}, {line.result[:60]}, {line.op_name[-60:]}, {line.source}"
        )
    for exchange, times in found.collectives()[:most]:
        arrays = ", ".join(map(str, exchange.arrays))
        sent = f"{exchange.sent * times / MIB:12,.1f} MiB sent"
        lines.append(f"{sent}  {times} x {exchange.kind} over {exchange.group}, {arrays[:60]}, {exchange.source}")
    return lines


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("files", nargs="+", type=pathlib.Path, metavar="FILE", help="optimised HLO, as text")
    parser.add_argument("--most", type=int, default=20, help="lines for each list")
    parser.add_argument("--by", default="hbm", choices=("flops", "hbm", "sent", "wide"), help="what is dear")
    arguments = parser.parse_args()
    for file in arguments.files:
        try:
            found = count(file.read_text())
        except (OSError, ValueError) as error:
            parser.exit(2, f"{file}: {error}\n")
        print("\n".join([str(file), *described(found, arguments.by, arguments.most)]))


if __name__ == "__main__":
    main()
