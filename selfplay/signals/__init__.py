"""Signals that need a model: cosines, hidden states and likelihoods, measured for filters and rerank."""
