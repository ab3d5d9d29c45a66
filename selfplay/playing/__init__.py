"""Dialogues played from first prompts: the assistant answers, a user turn is sampled and chosen, and so on."""
