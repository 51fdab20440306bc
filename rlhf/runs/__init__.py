"""A run's folder: who writes it, what it says of itself, and how runs are listed and compared from that alone."""

from rlhf.runs.record import Asked, RunRecord, StageRecord, State

__all__ = ["Asked", "RunRecord", "StageRecord", "State"]
