"""Engines: one file each, one protocol (`base.Engine`)."""
