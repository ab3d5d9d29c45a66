"""Language models that judge turns by the rubric, for `selfplay judge` and `selfplay rank --judge`.

A run's own judging is in `selfplay.judging`.
"""
