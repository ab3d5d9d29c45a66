"""Orders candidate user turns by groundedness in the answer. Imports nothing of selfplay or filters."""
