"""What a layer keeps for its backward pass, by the name of the policy. The rest is computed again."""

import jax

from prerl_jax.models import attention

LAYER_INPUT = "layer_input"
"""The name of a layer's input."""
REMAT = {
    "none": None,
    "dots": jax.checkpoint_policies.dots_with_no_batch_dims_saveable,
    "attention": jax.checkpoint_policies.save_only_these_names(attention.NAME),
    "full": jax.checkpoint_policies.nothing_saveable,
    "offload": jax.checkpoint_policies.save_and_offload_only_these_names(
        names_which_can_be_saved=[],
        names_which_can_be_offloaded=[LAYER_INPUT],
        offload_src="device",
        offload_dst="pinned_host",
    ),
}
"""Everything; the results of its projections; its input and the output of attention; only its input; only its input, in
the host's memory, from which the backward pass reads it."""
