"""The `evaluate` verb: how good filter and ranking are on judged turns they were not learned from."""
