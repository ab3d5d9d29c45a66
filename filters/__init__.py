"""Labels candidate user turns by readable rules. Imports nothing of selfplay or rerank."""
