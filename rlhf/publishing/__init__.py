"""What leaves and enters the registry: folders of models with their cards, and lineage down to label events."""
