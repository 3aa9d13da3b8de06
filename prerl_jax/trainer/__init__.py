"""The trainer: sets a run up, runs its phases, and resumes it."""
