"""`python -m prerl_jax.launch`: runs a config, on a laptop, on a GPU, or as one of the processes of a TPU slice.

Compiled programs are kept on disk for the next start: where, and how to turn it off, is in `runtime/compilation.py`.
"""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

from prerl_jax.config.io import load_config
from prerl_jax.config.overrides import apply_overrides


def parser() -> argparse.ArgumentParser:
    """The command line."""
    p = argparse.ArgumentParser(
        prog="python -m prerl_jax.launch",
        description="Train a language model with RL in pre-train space. Started again in the same workdir, it resumes.",
    )
    p.add_argument("--config", default="lab", help="config file, or the name of one that ships with the package (lab)")
    p.add_argument("--workdir", type=Path, help="where everything is written; runs/NAME by default")
    p.add_argument("--set", dest="overrides", action="append", default=[], metavar="a.b.0.c=value", nargs="+")
    p.add_argument("--dry-run", action="store_true", help="print the config and what it would take, and stop")
    p.add_argument("--devices", type=int, metavar="N", help="with --dry-run: as if there were so many devices")
    p.add_argument("--init-from", metavar="WORKDIR[@STEP]", help="begin with another run's parameters and moments")
    p.add_argument("--allow-config-change", action="store_true", help="resume under another config than the workdir's")
    p.add_argument("--profile", type=int, metavar="N", help="trace steps N to N+2 into WORKDIR/profile")
    return p


def main(argv: list[str] | None = None) -> int:
    """Runs the command line; returns the exit status. An error the user can mend is printed without a traceback."""
    os.environ.setdefault("TRANSFORMERS_NO_ADVISORY_WARNINGS", "1")  # to install PyTorch, which nothing needs
    args = parser().parse_args(argv)
    from prerl_jax.runtime.compilation import enable_cache
    from prerl_jax.runtime.distributed import OtherProcessError, StartUpError, initialize
    from prerl_jax.runtime.memory import keep_freed_memory

    try:
        config = apply_overrides(load_config(args.config), [text for group in args.overrides for text in group])
        workdir = args.workdir or Path("runs") / config.name
        if args.dry_run:  # of any mesh, on any machine: no other process is waited for
            from prerl_jax.trainer.dry_run import dry_run

            dry_run(config, devices=args.devices)
            return 0
        if args.devices is not None:
            raise ValueError("--devices is for --dry-run; a run takes the devices that are there.")
        enable_cache()  # before anything compiles
        keep_freed_memory()  # before JAX starts its threads
        initialize()  # before anything touches a device
        from prerl_jax.runtime.metrics import MetricsError
        from prerl_jax.runtime.step_files import CheckpointError
        from prerl_jax.trainer.start import run
    except (ValueError, OSError, ImportError, StartUpError) as error:
        return _fail(error)
    try:
        more = {"allow_config_change": args.allow_config_change, "profile": args.profile}
        run(config, workdir, init_from=args.init_from, **more)
    except (ValueError, OSError, ImportError, CheckpointError, MetricsError, OtherProcessError) as error:
        return _fail(error)
    return 0


def _fail(error: Exception) -> int:
    print(f"error: {error}", file=sys.stderr)
    return 1


if __name__ == "__main__":
    sys.exit(main())
