"""`python -m prerl_jax.launch`: trains as a config says, on a CPU, on a GPU, or as one process of a TPU slice.

Compiled programs are kept on disk for the next start. `runtime/compilation.py` says where, and how to turn that off.
"""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

from prerl_jax.config.overrides import add_config_arguments, config_of


def parser() -> argparse.ArgumentParser:
    """The command line."""
    p = argparse.ArgumentParser(
        prog="python -m prerl_jax.launch",
        description="Train a language model with RL in pre-train space, P(y), and in post-train space, P(y|x). "
        "The same command in the same workdir resumes a run that was stopped.",
    )
    add_config_arguments(p)
    p.add_argument("--workdir", type=Path, help="folder for everything that the run writes; runs/NAME by default")
    p.add_argument("--dry-run", action="store_true", help="print the config and the shardings, and stop")
    p.add_argument(
        "--devices", type=int, metavar="N", help="with --dry-run: plan for N devices instead of those of this machine"
    )
    p.add_argument(
        "--init-from",
        metavar="WORKDIR[@STEP]",
        help="start from the parameters and optimizer moments of another run's checkpoint, the last one by default",
    )
    p.add_argument(
        "--allow-config-change", action="store_true", help="resume although the config differs from the workdir's"
    )
    p.add_argument("--profile", type=int, metavar="N", help="write a profile of steps N to N+2 into WORKDIR/profile")
    return p


def main(argv: list[str] | None = None) -> int:
    """Runs the command line and returns the exit status. An error that the user can fix is printed in one line."""
    # transformers advises to install PyTorch, which nothing here needs.
    os.environ.setdefault("TRANSFORMERS_NO_ADVISORY_WARNINGS", "1")
    args = parser().parse_args(argv)
    from prerl_jax.runtime.compilation import enable_cache
    from prerl_jax.runtime.distributed import OtherProcessError, StartUpError, initialize
    from prerl_jax.runtime.memory import keep_freed_memory

    try:
        config = config_of(args)
        workdir = args.workdir or Path("runs") / config.name
        if args.dry_run:  # before the start-up of several processes: a dry run plans any mesh on any machine
            from prerl_jax.trainer.dry_run import dry_run

            dry_run(config, devices=args.devices)
            return 0
        if args.devices is not None:
            raise ValueError("--devices is for --dry-run; a run uses the machine's devices.")
        enable_cache()  # before anything compiles
        keep_freed_memory()  # before JAX starts its threads
        initialize()  # before anything touches a device
        from prerl_jax.runtime.metrics import MetricsError
        from prerl_jax.runtime.step_files import CheckpointError
        from prerl_jax.trainer.start import run
        from prerl_jax.verify import VerifierError
    except (ValueError, OSError, ImportError, StartUpError) as error:
        return _fail(error)
    try:
        more = {"allow_config_change": args.allow_config_change, "profile": args.profile}
        run(config, workdir, init_from=args.init_from, **more)
    except (
        ValueError,
        OSError,
        ImportError,
        CheckpointError,
        MetricsError,
        OtherProcessError,
        VerifierError,
    ) as error:
        return _fail(error)
    return 0


def _fail(error: Exception) -> int:
    print(f"error: {error}", file=sys.stderr)
    return 1


if __name__ == "__main__":
    sys.exit(main())
