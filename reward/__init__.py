"""First floor: comparisons in, calibrated reward model out."""
