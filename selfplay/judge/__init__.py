"""Language models that judge turns by the rubric (`selfplay judge`). A run's own judging is in `selfplay.judging`."""
