"""Gradient alignment: how far the gradients of log P(y) and log P(y|x) agree, and both spaces' token statistics."""
