"""Prompts at the user header, cut from the model's own chat template."""
