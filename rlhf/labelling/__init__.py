"""Where the database of labels meets the registry: neither of the two rooms knows the other."""
