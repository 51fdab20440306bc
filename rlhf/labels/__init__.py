"""Human preferences: reading files of them, joining judgements, and numbers that say whether they can be trusted."""

from rlhf.labels.ingest import Ingested, ingest
from rlhf.labels.quality import (
    Aggregated,
    LabelRates,
    Preference,
    aggregate,
    judgements_per_annotator,
    krippendorff_alpha,
    label_rates,
)
from rlhf.labels.records import Choice, Judgement

__all__ = [
    "Aggregated",
    "Choice",
    "Ingested",
    "Judgement",
    "LabelRates",
    "Preference",
    "aggregate",
    "ingest",
    "judgements_per_annotator",
    "krippendorff_alpha",
    "label_rates",
]
