"""What all floors share: errors, durable writes, statistics, text, sampling, tracking."""
