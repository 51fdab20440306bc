"""Top floor: PPO, labels, simulation, evaluation, bias checks, registry, and the pipeline that joins them."""
