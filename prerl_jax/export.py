"""`python -m prerl_jax.export WORKDIR OUT`: the Hugging Face folder of any step of a run."""

from __future__ import annotations

import argparse
import dataclasses
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

import jax

from prerl_jax.config.io import load_config
from prerl_jax.models.decoder import Decoder
from prerl_jax.models.hf import read_config, save_hf
from prerl_jax.models.tokenizer import load_tokenizer
from prerl_jax.runtime.checkpoints import restore_params
from prerl_jax.runtime.step_files import CheckpointError
from prerl_jax.trainer.stop_tokens import stop_tokens


def export(
    workdir: str | Path, out: str | Path, step: int | None = None, dtype: str | None = None, overwrite: bool = False
) -> int:
    """Writes a step of a run as a folder that transformers loads (config, weights, tokenizer).

    Its config and generation config name every token that ended a response in the run.

    Args:
      workdir: the folder of the run.
      out: the output folder.
      step: the step; None for the newest checkpoint.
      dtype: the dtype of the weights; None for that of the run's base model.
      overwrite: replace the model in `out`, after the new one is complete.

    Returns:
      The step that was written.

    Raises:
      FileNotFoundError: the workdir has no config.
      ValueError: it has no checkpoint, or none of this step; the message lists its steps.
      CheckpointError: the checkpoint is damaged.
      FileExistsError: `out` is a file or a folder that is not empty, and may not be replaced.
    """
    workdir, out = Path(workdir).expanduser().absolute(), Path(out).expanduser().absolute()
    if not (workdir / "config.py").is_file():
        raise FileNotFoundError(f"{workdir} is not the workdir of a run: it has no config.py")
    replaces = out.exists() and not (out.is_dir() and not any(out.iterdir()))
    if replaces and not (overwrite and (out / "config.json").is_file()):
        remedy = (
            "it is no model folder: remove it yourself" if overwrite else "pass --overwrite to replace a model there"
        )
        raise FileExistsError(f"{out} exists and is not an empty folder; name another one; {remedy}")
    config = load_config(workdir / "config.py")
    spec, tokenizer = config.model, load_tokenizer(config.model.path)
    architecture = read_config(spec.path)
    ends = stop_tokens(config, architecture, tokenizer).ids or architecture.eos_token_ids
    model = Decoder(dataclasses.replace(architecture, eos_token_ids=ends), compute_dtype=spec.compute_dtype)
    restored = restore_params(str(workdir / "checkpoints"), model.abstract_params(), step)
    out.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{out.name}.", dir=out.parent) as scratch:
        new, old = Path(scratch) / "new", Path(scratch) / "old"
        save_hf(new, model, restored.state, tokenizer, dtype=dtype)
        if replaces:
            out.replace(old)
        new.replace(out)
    return restored.step


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command line; returns the exit status."""
    parser = argparse.ArgumentParser(prog="python -m prerl_jax.export", description=__doc__)
    parser.add_argument("workdir", metavar="WORKDIR")
    parser.add_argument("out", metavar="OUT")
    parser.add_argument("--step", type=int, help="default: the newest checkpoint")
    parser.add_argument("--dtype", choices=("float32", "bfloat16", "float16"), help="default: the base model's")
    parser.add_argument("--overwrite", action="store_true", help="replace a model that is in OUT")
    options = parser.parse_args(arguments)
    # Host memory holds any model, and a trainer that runs on this machine keeps its accelerator.
    jax.config.update("jax_platforms", "cpu")
    try:
        step = export(**vars(options))
    except (OSError, ValueError, CheckpointError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    print(f"wrote step {step} of {options.workdir} to {options.out}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
