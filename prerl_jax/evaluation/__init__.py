"""Evaluation: sampling, verifying and measuring a model on problems."""
