"""`python -m prerl_jax.plan`: what a run needs of a slice, before a chip is rented."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from prerl_jax.config.overrides import add_config_arguments, config_of

STATUS = {True: 0, False: 2, None: 3}
"""The exit status, by whether the run fits."""
DESCRIPTION = """Compile every program of a run for a TPU slice, without a TPU, and print what each needs: memory,
arithmetic, traffic, and the time that these take at the chips' peaks; then the time of a step and of the run, and
whether it all fits. Of the model only config.json is read: no weights, no tokenizer, no data."""
EXAMPLES = """examples:
  python -m prerl_jax.plan --config dsrl_qwen3_4b_math --topology v5e:4x8
  python -m prerl_jax.plan --config mine.py --topology v6e:2x4 --set mesh.fsdp=8 microbatches=64
  python -m prerl_jax.plan --config mine.py --topology v5p:4x4x4 --mean-response 3000 --json plan.json
  python -m prerl_jax.plan --config mine.py                            for the devices of this machine

A topology is a chip (v2, v3, v4, v5e, v5p, v6e, tpu7x) and the slice's shape in chips. The compiler is libtpu:
pip install 'prerl_jax[tpu]'. Compiling takes seconds to minutes for each program, each time.
"""


def parser() -> argparse.ArgumentParser:
    """The command line."""
    p = argparse.ArgumentParser(
        prog="python -m prerl_jax.plan",
        description=DESCRIPTION,
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add_config_arguments(p)
    p.add_argument("--topology", metavar="CHIP:SHAPE", help="the slice, such as v5e:4x8; this machine by default")
    p.add_argument(
        "--mean-response",
        type=int,
        metavar="N",
        help="tokens of a response on average; by default a third of sampling.max_new_tokens",
    )
    p.add_argument(
        "--mean-prompt", type=int, metavar="N", help="tokens of a prompt on average; by default data.max_prompt_tokens"
    )
    p.add_argument(
        "--evaluated", type=int, metavar="N", help="problems of an evaluation; by default those of a training step"
    )
    p.add_argument(
        "--search",
        action="store_true",
        help="rank meshes, decode layouts, slots, microbatches and remat by a model of bytes, compile the best three "
        "(three more if none of them fits), and propose the fastest that fits",
    )
    p.add_argument("--json", type=Path, metavar="FILE", help="write the table's numbers into a file")
    p.add_argument("--dump", type=Path, metavar="FOLDER", help="write the text of each compiled program into a folder")
    return p


def main(argv: list[str] | None = None) -> int:
    """Runs the command line. Returns 0 if the run fits, 2 if it does not, 3 if that is not known, because the memory of
    the devices is not; and 1 for an error, printed in one line."""
    args = parser().parse_args(argv)
    from prerl_jax.plan.command import Asked, plan
    from prerl_jax.runtime.compilation import enable_cache

    try:
        config = config_of(args)
        if args.topology is None:  # programs for a slice cannot be read back without a TPU
            enable_cache()
        names = ("topology", "mean_prompt", "mean_response", "evaluated", "json", "dump", "search")
        asked = Asked(**{name: getattr(args, name) for name in names})
        return STATUS[plan(config, asked)]
    except (ValueError, OSError, ImportError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1


if __name__ == "__main__":
    sys.exit(main())
