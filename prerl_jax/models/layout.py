"""How the parameter tree maps to the tensors of a checkpoint file, in both directions.

A file has one tensor for each layer. Its linear weights are [out, in], with heads and head_dim in one axis. The
parameter tree stacks the layers, and has heads and head_dim as two axes. An entry of LEAVES gives, for one leaf, the
tensor's name, and the leaf's axes (without the layer axis) that make up each axis of the tensor. Nothing is renamed or
reshaped anywhere else.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from prerl_jax.core.types import Params

Path = tuple[str, ...]


class Leaf(NamedTuple):
    """The tensors of one leaf.

    Attributes:
      hf: the tensors' name in Hugging Face files, with `{}` for the layer's number.
      gguf: their name in GGUF files.
      axes: for each axis of a tensor, the axes of the leaf (without the layer axis) that it is made of.
    """

    hf: str
    gguf: str
    axes: tuple[tuple[int, ...], ...]

    def file_shape(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        """The shape of the tensor of a leaf with this shape (without the layer axis)."""
        return tuple(math.prod(shape[a] for a in group) for group in self.axes)

    def from_file(self, tensor: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
        """The tensor in the leaf's layout, of this shape: a view, if the tensor is contiguous."""
        order = sum(self.axes, ())
        return tensor.reshape([shape[a] for a in order]).transpose(np.argsort(order))

    def to_file(self, leaf: np.ndarray) -> np.ndarray:
        """The inverse of `from_file`."""
        return leaf.transpose(sum(self.axes, ())).reshape(self.file_shape(leaf.shape))


class Stored(NamedTuple):
    """A tensor in a file.

    Attributes:
      shape: its shape.
      dtype: its dtype.
      read: reads the tensor. Nothing is read before.
    """

    shape: tuple[int, ...]
    dtype: np.dtype
    read: Callable[[], np.ndarray]


def _layer(hf: str, gguf: str, axes) -> Leaf:
    return Leaf(f"model.layers.{{}}.{hf}", f"blk.{{}}.{gguf}", axes)


_PLAIN, _TABLE, _LINEAR = ((0,),), ((0,), (1,)), ((1,), (0,))
_INTO_HEADS, _OUT_OF_HEADS, _HEADS = ((1, 2), (0,)), ((2,), (0, 1)), ((0, 1),)

LEAVES: dict[Path, Leaf] = {
    ("embed",): Leaf("model.embed_tokens.weight", "token_embd.weight", _TABLE),
    ("final_norm",): Leaf("model.norm.weight", "output_norm.weight", _PLAIN),
    ("unembed",): Leaf("lm_head.weight", "output.weight", _LINEAR),
    ("layers", "attention_norm"): _layer("input_layernorm.weight", "attn_norm.weight", _PLAIN),
    ("layers", "mlp_norm"): _layer("post_attention_layernorm.weight", "ffn_norm.weight", _PLAIN),
    ("layers", "attention", "q"): _layer("self_attn.q_proj.weight", "attn_q.weight", _INTO_HEADS),
    ("layers", "attention", "k"): _layer("self_attn.k_proj.weight", "attn_k.weight", _INTO_HEADS),
    ("layers", "attention", "v"): _layer("self_attn.v_proj.weight", "attn_v.weight", _INTO_HEADS),
    ("layers", "attention", "o"): _layer("self_attn.o_proj.weight", "attn_output.weight", _OUT_OF_HEADS),
    ("layers", "attention", "q_bias"): _layer("self_attn.q_proj.bias", "attn_q.bias", _HEADS),
    ("layers", "attention", "k_bias"): _layer("self_attn.k_proj.bias", "attn_k.bias", _HEADS),
    ("layers", "attention", "v_bias"): _layer("self_attn.v_proj.bias", "attn_v.bias", _HEADS),
    ("layers", "attention", "o_bias"): _layer("self_attn.o_proj.bias", "attn_output.bias", _PLAIN),
    ("layers", "attention", "q_norm"): _layer("self_attn.q_norm.weight", "attn_q_norm.weight", _PLAIN),
    ("layers", "attention", "k_norm"): _layer("self_attn.k_norm.weight", "attn_k_norm.weight", _PLAIN),
    ("layers", "mlp", "gate"): _layer("mlp.gate_proj.weight", "ffn_gate.weight", _LINEAR),
    ("layers", "mlp", "up"): _layer("mlp.up_proj.weight", "ffn_up.weight", _LINEAR),
    ("layers", "mlp", "down"): _layer("mlp.down_proj.weight", "ffn_down.weight", _LINEAR),
    ("layers", "mlp", "gate_bias"): _layer("mlp.gate_proj.bias", "ffn_gate.bias", _PLAIN),
    ("layers", "mlp", "up_bias"): _layer("mlp.up_proj.bias", "ffn_up.bias", _PLAIN),
    ("layers", "mlp", "down_bias"): _layer("mlp.down_proj.bias", "ffn_down.bias", _PLAIN),
}


def flatten(tree: Any) -> dict[Path, Any]:
    """{path: leaf} of a nested dict."""
    return {tuple(k.key for k in path): leaf for path, leaf in jax.tree_util.tree_flatten_with_path(tree)[0]}


def _names(path: Path, shape: tuple[int, ...], template: str) -> list[str]:
    return [template.format(i) for i in range(shape[0])] if path[0] == "layers" else [template]


def _own_shape(path: Path, shape: tuple[int, ...]) -> tuple[int, ...]:
    """The shape without the layer axis."""
    return shape[1:] if path[0] == "layers" else shape


def file_shapes(leaves: Mapping[Path, Any], convention: str) -> dict[str, tuple[int, ...]]:
    """{tensor name: shape} of a flattened tree, in the order of `tensors`; `convention` is "hf" or "gguf"."""
    return {
        name: LEAVES[path].file_shape(_own_shape(path, leaf.shape))
        for path, leaf in leaves.items()
        for name in _names(path, leaf.shape, getattr(LEAVES[path], convention))
    }


def tensors(path: Path, leaf: np.ndarray) -> Iterator[np.ndarray]:
    """The tensors of one leaf in the file's layout, one for each layer."""
    for own in leaf if path[0] == "layers" else leaf[None]:
        yield LEAVES[path].to_file(own)


def check(expected: Mapping[str, tuple[int, ...]], stored: Mapping[str, Stored], source: Any) -> None:
    """Raises ValueError that names a missing tensor, an unexpected one, or one of the wrong shape."""
    for problem, names in (
        ("lacks the tensor", [name for name in expected if name not in stored]),
        ("has an unexpected tensor", [name for name in stored if name not in expected]),
    ):
        if names:
            more = f" and {len(names) - 1} more like it" if len(names) > 1 else ""
            shape = expected.get(names[0]) or stored[names[0]].shape
            raise ValueError(f"{source} {problem} {names[0]!r} of shape {shape}{more}; does config.json fit it?")
    for name, shape in expected.items():
        if stored[name].shape != shape:
            raise ValueError(f"{source}: {name!r} should have shape {shape}, it has {stored[name].shape}.")


def load(abstract: Params, stored: Mapping[str, Stored], convention: str, source: Any) -> Params:
    """Reads the tensors into device arrays. Each process reads only the parts of its own devices.

    Args:
      abstract: the tree of ShapeDtypeStruct, with or without shardings.
      stored: {tensor name: tensor}.
      convention: "hf" or "gguf".
      source: the checkpoint's path, for error messages.

    Raises ValueError as `check` does.
    """
    check(file_shapes(flatten(abstract), convention), stored, source)

    def leaf(path, spec):
        path = tuple(k.key for k in path)
        names = _names(path, spec.shape, getattr(LEAVES[path], convention))
        own_shape, dtype = _own_shape(path, spec.shape), jnp.dtype(spec.dtype)

        @functools.cache  # a quantised tensor is decoded once for all of a leaf's shards
        def own(layer: int) -> np.ndarray:
            return LEAVES[path].from_file(stored[names[layer]].read(), own_shape)

        def block(index: Any) -> np.ndarray:
            if path[0] != "layers":
                return np.ascontiguousarray(own(0)[index], dtype)
            layers = range(len(names))[index[0]]
            out = np.empty((len(layers), *own(0)[index[1:]].shape), dtype)
            for slot, layer in enumerate(layers):
                out[slot] = own(layer)[index[1:]]
            return out

        if spec.sharding is None:
            return jnp.asarray(block((slice(None),) * len(spec.shape)))
        return jax.make_array_from_callback(spec.shape, spec.sharding, block)

    return jax.tree_util.tree_map_with_path(leaf, abstract)
