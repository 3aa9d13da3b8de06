"""A step that changes nothing is reported with its reason."""

from prerl_jax.trainer.reporting import why_no_update

SKIPPED = {
    "train/skipped": 1.0,
    "train/update_norm": 0.0,
    "train/tokens": 0.0,
    "train/solved_groups": 0.25,
    "train/unsolved_groups": 0.75,
    "train/truncated": 0.5,
}


def test_an_update_says_nothing():
    assert why_no_update(SKIPPED | {"train/skipped": 0.0, "train/update_norm": 0.1}) is None


def test_a_step_with_one_of_two_updates_skipped_says_nothing():
    assert why_no_update(SKIPPED | {"train/update_norm": 0.1}) is None


def test_a_step_that_trains_the_critic_alone_says_nothing():
    assert why_no_update(SKIPPED | {"train/critic_update_norm": 0.1}) is None


def test_an_update_at_learning_rate_zero_says_nothing():
    assert why_no_update(SKIPPED | {"train/skipped": 0.0, "train/tokens": 9.0}) is None


def test_no_response_to_train_on():
    assert why_no_update(SKIPPED) == (
        "the phase trains on none of the responses "
        "(groups all right: 25%, groups all wrong: 75%, responses truncated: 50%)"
    )


def test_a_loss_that_is_not_finite():
    assert why_no_update(SKIPPED | {"train/tokens": 9.0}) == "the loss or its gradient is not finite"
