"""A synthetic assistant world with a known gold preference, and annotators who see it through noise."""

from rlhf.simulation.annotators import Annotator, make_annotators, write_label_file
from rlhf.simulation.gold import gold_utility
from rlhf.simulation.people import GROUPS
from rlhf.simulation.world import make_demonstrations, make_pairs, make_requests

__all__ = [
    "GROUPS",
    "Annotator",
    "gold_utility",
    "make_annotators",
    "make_demonstrations",
    "make_pairs",
    "make_requests",
    "write_label_file",
]
