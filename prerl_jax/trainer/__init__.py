"""The trainer: a config put together, its compiled programs, evaluation, and the loop that calls the rooms."""
