"""Code that has its form only because of XLA on CPUs (jax 0.10). On other platforms nothing here changes a number.

XLA:CPU differs from XLA for GPUs and TPUs in four ways that matter here:

  1. Its product of two matrices is slow where an operand would have to be read transposed: see `weight_gradient`.
  2. It drops `optimization_barrier` before it lays out memory and before it schedules. A condition that it cannot
     foresee takes the barrier's place: see `read_first` and `after`.
  3. It fills the buffers of loops with zeros ahead of everything else: see `after`.
  4. It computes in place only where an array keeps its shape. Logits are therefore matrices [tokens, V] throughout
     the fused loss, never [B, T, V]: see `as_matrix`.

The tricks of the decoder's layers are in `models/xla_cpu.py`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax

from prerl_jax.core.types import Array


def as_matrix(x: Array) -> Array:
    """[..., D] -> [N, D]. Where XLA:CPU sees logits change their shape, it holds them twice instead of once."""
    return x.reshape(-1, x.shape[-1])


def weight_gradient(x: Array, d_y: Array, dtype: jnp.dtype | None = None) -> Array:
    """The gradient x^T d_y [D, E] of weights that were applied to inputs x.

    On CPUs the smaller operand is transposed beforehand. By itself, XLA:CPU has the product read x as it is, which its
    fast kernels do not do: for tokens by 512 features and tokens by 128 that takes twice as long, and for 344 x 128 by
    344 x 151,936 it takes 1.3 times as long.

    Args:
      x: [N, D], the inputs.
      d_y: [N, E], the cotangents of the outputs.
      dtype: dtype of the result; None for that of the operands.
    """

    def product(left: Array, right: Array) -> Array:
        return jnp.matmul(left, right, preferred_element_type=dtype)

    def turned_first(x: Array, d_y: Array) -> Array:
        turn = jax.lax.optimization_barrier
        if x.shape[1] <= d_y.shape[1]:
            return product(turn(x.T), d_y)
        return turn(product(turn(d_y.T), x)).T

    return jax.lax.platform_dependent(x, d_y, cpu=turned_first, default=lambda x, d_y: product(x.T, d_y))


def read_first(value: Array, never: Array) -> Array:
    """`value`, once `never` has been computed. `never` bool[...] must be False everywhere.

    Everything that is computed from the result is then computed after `never`, so XLA may reuse the memory that `never`
    was computed from. In this way a chunk's logits and their cotangents share one buffer. XLA:CPU cannot foresee that
    `never` is False.
    """
    return jnp.where(never, 0.0, value)


def after(values: Any, function: Callable, *args: Any) -> Any:
    """`function(*args)`, computed only once the arrays of `values` are there.

    Otherwise XLA:CPU begins both computations at once, and the buffers of both are held together. The call stands in
    the branch of a condition that always holds, because a norm is not negative, and that XLA:CPU cannot foresee.
    """

    def never(*args: Any) -> Any:
        return jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), jax.eval_shape(function, *args))

    function = jax.jit(function)  # traced once, for its shapes and for the branch
    return jax.lax.cond(optax.tree.norm(values) < 0, never, function, *args)
