"""What a layer keeps for its backward pass, by the name of the policy. The rest is computed again."""

import jax

from prerl_jax.models import attention

REMAT = {
    "none": None,
    "dots": jax.checkpoint_policies.dots_with_no_batch_dims_saveable,
    "attention": jax.checkpoint_policies.save_only_these_names(attention.NAME),
    "full": jax.checkpoint_policies.nothing_saveable,
}
"""Everything; the results of its projections; its input and the output of attention; or only its input."""
