"""Searches for good settings: Optuna behind Hydra's `-m`, on validation data alone."""
