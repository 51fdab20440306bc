"""Ground floor: text in, fine-tuned model out. Knows nothing of rewards."""
