"""The text tier: what a turn says of itself and of its conversation, measured column by column without a model."""
