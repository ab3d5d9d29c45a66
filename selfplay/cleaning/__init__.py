"""What `selfplay clean` does: judge the user turns of whole conversations, find what is there twice, mend or drop."""
