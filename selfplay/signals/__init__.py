"""Signals that need a model: embedding cosines and likelihoods, measured for filters and rerank."""
