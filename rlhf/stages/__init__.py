"""How each stage of an experiment is wired: its inputs, its fingerprint, and the call that does the work."""
