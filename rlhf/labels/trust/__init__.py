"""Numbers that say whether labels can be trusted. Pure functions of judgements."""
