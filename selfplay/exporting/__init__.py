"""Writes results in the forms that trainers read, and as a dataset folder with its card."""
