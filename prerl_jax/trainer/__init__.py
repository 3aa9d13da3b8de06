"""The trainer: a run from its config to its last step."""
