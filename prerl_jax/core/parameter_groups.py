"""How far two gradients agree within each kind of parameter: embeddings, attention's projections, MLP, norms.

cos_G = <a_G, b_G> / (|a_G| |b_G|)         G: the leaves whose path matches, through all layers
"""

from __future__ import annotations

import jax
import jax.numpy as jnp

from prerl_jax.core.types import Array, Params

Groups = tuple[tuple[str, str], ...]
"""(name, text) pairs, tried in order: whether the text is in a leaf's path, written as "^.layers.attention.q$". A group
may have several."""

DECODER_GROUPS: Groups = (
    ("norm", "norm"),
    ("embedding", "^.embed$"),
    ("embedding", "^.embed."),
    ("unembedding", "^.unembed$"),
    ("unembedding", "^.unembed."),
    ("attention_q", ".attention.q"),
    ("attention_k", ".attention.k"),
    ("attention_v", ".attention.v"),
    ("attention_o", ".attention.o"),
    ("mlp", ".mlp."),
)
"""Of the decoders that come with the package, biases with their matrices; a tied embedding is "embedding"."""


def cosine_by_group(a: Params, b: Params, groups: Groups = DECODER_GROUPS) -> dict[str, Array]:
    """{group: cosine f32[]} of two gradients of one tree, in the order of `groups`.

    A group without a leaf is left out, leaves of no group are in "other", and a cosine with a zero gradient is NaN.
    """
    sums: dict[str, Array] = {name: jnp.zeros(3) for name, _ in (*groups, ("other", ""))}
    there = set()

    def add(path, x, y):
        where = f"^.{jax.tree_util.keystr(path, simple=True, separator='.')}$"
        name = next((name for name, text in groups if text in where), "other")
        there.add(name)
        sums[name] += jnp.stack([jnp.vdot(x, y), jnp.vdot(x, x), jnp.vdot(y, y)])

    jax.tree_util.tree_map_with_path(add, a, b)
    return {name: xy / (jnp.sqrt(xx) * jnp.sqrt(yy)) for name, (xy, xx, yy) in sums.items() if name in there}
