"""How rules, scores and calibration are learned from judged turns. Needs scikit-learn."""
