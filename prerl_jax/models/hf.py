"""Model checkpoints: read from a Hugging Face folder or a .gguf file, written as a Hugging Face folder.

Reading goes leaf by leaf from memory-mapped files into arrays that already have their sharding. Writing gathers leaf by
leaf. Neither ever holds the whole model on one device, and neither needs PyTorch.
"""

from __future__ import annotations

import dataclasses
import itertools
import json
import os
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import Mesh

from prerl_jax.core.types import Params
from prerl_jax.models import gguf, layout, safetensors_file
from prerl_jax.models.decoder import Decoder
from prerl_jax.models.hf_config import config_json, parse_config
from prerl_jax.models.layers import DecoderConfig
from prerl_jax.models.layout import Stored
from prerl_jax.models.location import resolve
from prerl_jax.models.partitioning import DEFAULT_RULES, Rules

SINGLE, INDEX = "model.safetensors", "model.safetensors.index.json"
MAX_FILE_BYTES = 4_000_000_000
"""A larger checkpoint is written in several files with an index."""


def read_config(path: str | Path) -> DecoderConfig:
    """The architecture of a Hugging Face folder or a .gguf file. No weights are read.

    Args:
      path: the folder or file, `package:NAME/file`, or OWNER/NAME of the hub.

    Raises FileNotFoundError where there is no model, ValueError for an architecture that the decoder does not support.
    """
    path = resolve(path)
    if path.suffix == ".gguf":
        return gguf.open_checkpoint(path)[0]
    if not (path / "config.json").is_file():
        raise FileNotFoundError(f"{path} is no model: it is neither a folder with a config.json nor a .gguf file.")
    generation = path / "generation_config.json"
    try:
        return parse_config(_read_json(path / "config.json"), _read_json(generation) if generation.is_file() else None)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error


def load_model(
    path: str | Path,
    *,
    mesh: Mesh | None = None,
    dtype: Any = jnp.float32,
    compute_dtype: Any = "float32",
    remat: str = "none",
    rules: Rules = DEFAULT_RULES,
) -> tuple[Decoder, Params]:
    """Reads a checkpoint.

    The decoder's `config.dtype` is the dtype of the stored tensors, whatever config.json says, so `save_hf` writes them
    back unchanged.

    Args:
      path: a Hugging Face folder (one safetensors file, or several with an index), a .gguf file, or
        `package:NAME/file`.
      mesh: devices to shard over, made by `prerl_jax.make_mesh`; None for the default device. `jax.make_mesh` gives
        Explicit axes by default, which are refused.
      dtype: dtype of the parameters; training needs float32.
      compute_dtype: see `Decoder`.
      remat: see `Decoder`.
      rules: see `Decoder`.

    Returns:
      (the decoder, its parameters, sharded over `mesh` by `rules` as they are read).

    Raises:
      FileNotFoundError: there is no such checkpoint.
      ValueError: the decoder does not support the architecture; a tensor is missing, unexpected or of the wrong shape;
        a file is damaged; the mesh has Explicit axes, or does not divide a dimension.
    """
    path = resolve(path, weights=True)
    if path.suffix == ".gguf":
        (config, stored), convention = gguf.open_checkpoint(path), "gguf"
    else:
        config, convention = read_config(path), "hf"
        stored = _drop_redundant(_open_folder(path), config.tied, path)
        stored_dtype = jnp.result_type(*(tensor.dtype for tensor in stored.values())) if stored else config.dtype
        config = dataclasses.replace(config, dtype=str(stored_dtype))
    model = Decoder(config, compute_dtype=compute_dtype, remat=remat, mesh=mesh, rules=rules)
    return model, layout.load(model.abstract_params(dtype), stored, convention, path)


def _read_json(path: Path) -> dict[str, Any]:
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{path} is not valid JSON: {error}") from error
    if not isinstance(value, dict):
        raise ValueError(f"{path} should hold a JSON object, it holds a {type(value).__name__}.")
    return value


def _open_folder(path: Path) -> dict[str, Stored]:
    """All tensors of a folder's safetensors file or files."""
    if (path / SINGLE).is_file():
        return safetensors_file.read_file(path / SINGLE)
    if not (path / INDEX).is_file():
        raise FileNotFoundError(f"{path} has neither {SINGLE} nor {INDEX}; other weight formats are not read.")
    files = _read_json(path / INDEX).get("weight_map")
    if not isinstance(files, dict) or not all(isinstance(file, str) for file in files.values()):
        raise ValueError(f"{path / INDEX} has no weight_map of tensor names to file names: {str(files)[:80]}.")
    stored: dict[str, Stored] = {}
    for file in sorted(set(files.values())):
        if not (path / file).is_file():
            raise FileNotFoundError(f"{path / INDEX} names {file!r}, which is not in the folder.")
        stored |= safetensors_file.read_file(path / file)
    lost = [name for name in files if name not in stored]
    if lost:
        raise ValueError(f"{path}: {INDEX} promises the tensor {lost[0]!r} in {files[lost[0]]!r}, which lacks it.")
    return stored


def _drop_redundant(stored: dict[str, Stored], tied: bool, path: Path) -> dict[str, Stored]:
    """The tensors without rotary buffers, and without the copy of a tied embedding that some checkpoints store."""
    kept = {name: tensor for name, tensor in stored.items() if not name.endswith("rotary_emb.inv_freq")}
    embed, head = (layout.LEAVES[(key,)].hf for key in ("embed", "unembed"))
    if tied and head in kept and embed in kept:
        ours, theirs = kept[embed], kept.pop(head)
        rows = range(0, ours.shape[0], 4096)
        same = ours.shape == theirs.shape and all(
            np.array_equal(ours.read()[i : i + 4096], theirs.read()[i : i + 4096]) for i in rows
        )
        if not same:
            raise ValueError(
                f"{path}: config.json says tie_word_embeddings = true, but {head!r} differs from {embed!r}. Set "
                f"tie_word_embeddings to false to use both."
            )
    return kept


def save_hf(path: str | Path, model: Decoder, params: Params, tokenizer: Any = None, dtype: Any = None) -> None:
    """Writes a folder that transformers loads: config, generation config, weights, and the tokenizer if given.

    The folder is written under another name and then renamed, so it appears whole or not at all. Every process must
    call this function; process 0 writes.

    Args:
      path: the folder to make; it may exist if it is empty.
      model: its config is written.
      params: the model's whole parameter tree, sharded or not.
      tokenizer: any object with `save_pretrained`; None writes no tokenizer.
      dtype: float32, bfloat16 or float16; None for `model.config.dtype`, the dtype that the checkpoint was stored in.

    Raises:
      FileExistsError: the folder is not empty.
      ValueError: the params do not fit the model, or no Hugging Face config expresses the model.
    """
    path = Path(path).expanduser().absolute()
    dtype = jnp.dtype(model.config.dtype if dtype is None else dtype)
    if dtype not in safetensors_file.DTYPES.values():
        raise ValueError(f"save_hf writes {[str(d) for d in safetensors_file.DTYPES.values()]}, not {dtype}.")
    raw, generation = config_json(dataclasses.replace(model.config, dtype=str(dtype)))
    leaves = _checked_leaves(model, params)
    require_empty(path)
    if jax.process_index() == 0:
        partial = path.with_name(f".{path.name}.partial-{os.getpid()}")
        try:
            partial.mkdir(parents=True)
            _write_json(partial / "config.json", raw)
            _write_json(partial / "generation_config.json", generation)
            if tokenizer is not None:
                _write_tokenizer(partial, tokenizer)
            _write_weights(partial, leaves, dtype)
            partial.replace(path)
        except BaseException:
            shutil.rmtree(partial, ignore_errors=True)
            raise
    else:
        for leaf in leaves.values():
            _gather(leaf)
    if jax.process_count() > 1:
        multihost_utils.sync_global_devices("save_hf")


def require_empty(path: Path) -> None:
    """Raises FileExistsError where `save_hf` would overwrite something."""
    if path.exists() and (not path.is_dir() or any(path.iterdir())):
        raise FileExistsError(f"{path} exists and is not empty; give another folder or remove it first.")


def _checked_leaves(model: Decoder, params: Params) -> dict[layout.Path, Any]:
    leaves, expected = layout.flatten(params), layout.flatten(model.abstract_params())
    if {p: x.shape for p, x in leaves.items()} != {p: x.shape for p, x in expected.items()}:
        wrong = [p for p in expected | leaves if p not in leaves or p not in expected]
        wrong += [p for p in expected if p in leaves and leaves[p].shape != expected[p].shape]
        raise ValueError(f"params do not fit the model's config at {', '.join('.'.join(p) for p in wrong)}.")
    return leaves


def _gather(leaf: Any) -> np.ndarray:
    """The whole leaf on this host. It is a collective operation where other processes hold parts of the leaf."""
    if isinstance(leaf, jax.Array) and not leaf.is_fully_addressable:
        return np.asarray(multihost_utils.process_allgather(leaf, tiled=True))
    return np.asarray(leaf)


def _write_json(path: Path, value: dict[str, Any]) -> None:
    path.write_text(json.dumps(value, indent=2, sort_keys=True) + "\n", encoding="utf-8")


def _write_tokenizer(folder: Path, tokenizer: Any) -> None:
    """Writes the tokenizer's files, with a class name that both transformers 4 and 5 know."""
    tokenizer.save_pretrained(str(folder))
    file = folder / "tokenizer_config.json"
    if file.is_file() and _read_json(file).get("tokenizer_class") == "TokenizersBackend":
        _write_json(file, _read_json(file) | {"tokenizer_class": "PreTrainedTokenizerFast"})


def _write_weights(folder: Path, leaves: Mapping[layout.Path, Any], dtype: np.dtype) -> None:
    """Writes the leaves into files of at most MAX_FILE_BYTES; a larger tensor has a file of its own."""
    files: list[dict[str, tuple[int, ...]]] = [{}]
    total = size = 0
    for name, shape in layout.file_shapes(leaves, "hf").items():
        nbytes = int(np.prod(shape)) * dtype.itemsize
        if files[-1] and size + nbytes > MAX_FILE_BYTES:
            files.append({})
            size = 0
        files[-1][name] = shape
        size, total = size + nbytes, total + nbytes
    count = len(files)
    titles = [SINGLE] if count == 1 else [f"model-{i:05}-of-{count:05}.safetensors" for i in range(1, count + 1)]
    arrays: Iterator[np.ndarray] = itertools.chain.from_iterable(
        layout.tensors(path, _gather(leaf)) for path, leaf in leaves.items()
    )
    for title, shapes in zip(titles, files, strict=True):
        safetensors_file.write_file(folder / title, shapes, dtype, arrays)
    if count > 1:
        weight_map = {name: title for title, shapes in zip(titles, files, strict=True) for name in shapes}
        _write_json(folder / INDEX, {"metadata": {"total_size": total}, "weight_map": weight_map})
