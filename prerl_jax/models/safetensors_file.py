"""The safetensors format: a u64 length, a JSON header of that length, then the tensors' bytes.

Tensors are read as memory-mapped numpy views (bfloat16 included), so that a shard reads only its own pages. They are
written as a stream, so that at most one leaf is in memory. The format: https://huggingface.co/docs/safetensors.
"""

from __future__ import annotations

import functools
import json
import math
import operator
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np

from prerl_jax.models.layout import Stored

DTYPES: dict[str, np.dtype] = {"F32": jnp.dtype("float32"), "F16": jnp.dtype("float16"), "BF16": jnp.dtype("bfloat16")}


def read_file(path: Path) -> dict[str, Stored]:
    """{name: tensor} of one file. Raises ValueError with the path where it is truncated, corrupt, or not of floats."""
    size = path.stat().st_size
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        if size < 8 or length > size - 8:
            raise ValueError(f"{path} is truncated or no safetensors file: {size} bytes, a header of {length}.")
        try:
            header = json.loads(file.read(length))
            header.pop("__metadata__", None)
            spans = {
                name: (entry["dtype"], tuple(entry["shape"]), *map(operator.index, entry["data_offsets"]))
                for name, entry in header.items()
            }
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise ValueError(f"{path} is corrupt: its header is no safetensors header ({error!r}).") from error
    end = max((stop for *_, stop in spans.values()), default=0)
    if 8 + length + end != size:
        raise ValueError(f"{path} is truncated or corrupt: its header says {8 + length + end} bytes, it has {size}.")
    data = np.memmap(path, np.uint8, mode="r", offset=8 + length) if end else np.empty(0, np.uint8)
    return {name: _stored(path, data, name, *span) for name, span in spans.items()}


def _stored(
    path: Path, data: np.ndarray, name: str, code: str, shape: tuple[int, ...], start: int, stop: int
) -> Stored:
    if code not in DTYPES:
        raise ValueError(f"{path}: tensor {name!r} is stored as {code}; the decoder reads {', '.join(DTYPES)}.")
    dtype = DTYPES[code]
    if start < 0 or stop - start != math.prod(shape) * dtype.itemsize:
        raise ValueError(f"{path} is corrupt: {name!r} of {code} {shape} spans bytes {start} to {stop}.")
    return Stored(shape, dtype, functools.partial(_view, data, dtype, shape, start, stop))


def _view(data, dtype, shape, start, stop) -> np.ndarray:
    return data[start:stop].view(dtype).reshape(shape)


def write_file(
    path: Path, shapes: Mapping[str, tuple[int, ...]], dtype: np.dtype, arrays: Iterator[np.ndarray]
) -> None:
    """Writes one file.

    Args:
      path: the file.
      shapes: {name: shape} of the tensors.
      dtype: one of DTYPES.
      arrays: gives the tensors in the order of `shapes`. Only as many as `shapes` has are taken, so the next file can
        take the rest.
    """
    code = {value: key for key, value in DTYPES.items()}[dtype]
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    start = 0
    for name, shape in shapes.items():
        stop = start + math.prod(shape) * dtype.itemsize
        header[name] = {"dtype": code, "shape": list(shape), "data_offsets": [start, stop]}
        start = stop
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)  # tensors aligned to 8 bytes
    with path.open("wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        for shape, array in zip(shapes.values(), arrays, strict=False):  # the next file takes the rest
            if array.shape != shape:
                raise ValueError(f"{path}: expected a tensor of shape {shape}, got {array.shape}.")
            file.write(np.ascontiguousarray(array, dtype).view(np.uint8).data)
