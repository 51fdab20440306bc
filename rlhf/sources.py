"""Where demonstrations, prompts and judgements come from: the simulated world, the user's files, registered labels.

Imports no torch, so that a run whose stages are all cached starts fast.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TypeVar

import numpy as np
import numpy.typing as npt

from rlhf.config import ExperimentConfig, SimulationConfig
from rlhf.labelling.datasets import training_dataset
from rlhf.labels.exporting.csv_file import read_csv
from rlhf.labels.exporting.export_rows import CSV_FILE
from rlhf.labels.importing.ingest import Ingested, ingest
from rlhf.labels.trust.quality import Preference, aggregate
from rlhf.registry import Artifact, Registry
from rlhf.simulation import (
    gold_utility,
    make_annotators,
    make_demonstrations,
    make_pairs,
    make_requests,
    write_label_file,
)
from sft.config import DataSource, LabelFormat
from sft.core.durable import write_jsonl
from sft.core.errors import DataError
from sft.core.rows import BadRow, Row, read_rows
from sft.core.text import Conversation, prompt_key
from sft.data import Example, read_examples, read_prompts
from sft.split import Splits, split_by_prompt

T = TypeVar("T")
PROBE_PAIRS = 800
"""Simulated answer pairs that the bias checks look at beside the labelled ones."""


@dataclass(frozen=True)
class Sources:
    """The data of one experiment; every part is read once, when it is first asked for.

    Attributes:
        config: of the experiment.
        folder: where a simulated label file and quarantine files are written.
        collected: the frozen labels of answers of the run's own models; they come before all others.
    """

    config: ExperimentConfig
    folder: Path
    collected: Artifact | None = None

    def __post_init__(self) -> None:
        """Look for the registered labels before anything is computed: raises what `training_dataset` raises."""
        _ = self.dataset

    @cached_property
    def dataset(self) -> Artifact | None:
        """The registered export that the judgements come from, its files verified; None: they come from a file."""
        if self.collected is not None or self.config.data.labels is None:
            return self.collected
        kept = self.config.registry
        return training_dataset(Registry(Path(kept.root), url=kept.url, create=False), self.config.data.labels)

    @property
    def demonstrations_dataset(self) -> Artifact | None:
        """The registered export whose chosen answers are the demonstrations; None: they come from elsewhere."""
        data = self.config.data
        return None if self.is_simulated or data.sft_path or data.path else self.dataset

    @property
    def is_simulated(self) -> bool:
        """Whether the data are simulated, so that a gold utility is known."""
        return self.config.data.source is DataSource.SIMULATED

    @cached_property
    def demonstrations(self) -> Splits[Example]:
        """Demonstrations by split of their prompt."""
        return self._split(self._all_demonstrations(), lambda example: example.prompt)

    @cached_property
    def prompts(self) -> Splits[Conversation]:
        """Different prompts by split, in order of appearance."""
        unique = {prompt_key(prompt): prompt for prompt in self._all_prompts()}
        return self._split(list(unique.values()), lambda prompt: prompt)

    @cached_property
    def label_file(self) -> Path:
        """The file that the judgements come from; simulated annotators write theirs first."""
        if self.dataset is not None:
            return self.dataset.path / CSV_FILE
        if not self.is_simulated:
            return self._file(self.config.data.comparisons_path)
        path = self.folder / "simulated_labels.jsonl"
        write_simulated_labels(path, self.requests, self.config.simulation, seed=self.config.seed)
        return path

    @cached_property
    def ingested(self) -> Ingested:
        """All judgements, read by the same code whether people or simulated annotators wrote the file."""
        if self.dataset is None:
            return self._ingest(self.label_file, self.quarantine)
        judgements = read_csv(self.label_file)
        return Ingested(LabelFormat.PAIRWISE, judgements, len(judgements), quarantined=0, duplicates=0, reasons={})

    @property
    def quarantine(self) -> Path:
        """Where the unusable rows of the label file stand, if there are any."""
        return self.folder / "quarantine.jsonl"

    def split_preferences(self, preferences: Sequence[Preference]) -> Splits[Preference]:
        """Return preferences by split of their prompt."""
        return self._split(preferences, lambda preference: preference.prompt)

    def gold(self, pairs: Sequence[tuple[Conversation, str]]) -> npt.NDArray[np.float64]:
        """Return the gold utility of simulated prompts with answers."""
        assert self.is_simulated, "real data have no gold utility"
        return np.array([gold_utility(prompt[-1].content, answer) for prompt, answer in pairs])

    @cached_property
    def probe_pairs(self) -> list[tuple[Conversation, str, str]]:
        """Fresh answer pairs to held-out simulated requests, the better one first; real data have none to add."""
        if not self.is_simulated:
            return []
        pairs = make_pairs(self.prompts.held_out, PROBE_PAIRS, seed=self.config.seed + 1)
        better_first = self.gold([(prompt, first) for prompt, first, _ in pairs]) >= self.gold(
            [(prompt, second) for prompt, _, second in pairs]
        )
        return [
            (prompt, first, second) if in_order else (prompt, second, first)
            for (prompt, first, second), in_order in zip(pairs, better_first, strict=True)
        ]

    @cached_property
    def requests(self) -> list[Conversation]:
        """All simulated requests."""
        return make_requests(self.config.simulation.prompts, seed=self.config.seed)

    def _split(self, items: Sequence[T], prompt: Callable[[T], Conversation]) -> Splits[T]:
        data = self.config.data
        return split_by_prompt(
            items,
            prompt,
            validation_fraction=data.validation_fraction,
            test_fraction=data.test_fraction,
            seal_test=self.config.search.is_trial,
        )

    def _all_demonstrations(self) -> list[Example]:
        if self.is_simulated:
            return make_demonstrations(self.requests, self.config.simulation.demonstrations, seed=self.config.seed)
        path = self._file(self.config.data.sft_path)
        if not self.config.labels.asks_people and path == self.label_file:
            return chosen_answers(self.ingested)
        if not _holds_demonstrations(path):
            return chosen_answers(self._ingest(path, self.folder / "quarantine_sft.jsonl"))
        examples, bad = read_examples(path)
        self._check_share(path, len(examples), bad, self.folder / "quarantine_sft.jsonl")
        return examples

    def _all_prompts(self) -> list[Conversation]:
        if self.is_simulated:
            return self.requests
        if self.config.data.prompts_path is None and self.config.labels.asks_people:
            return [example.prompt for example in self._all_demonstrations()]
        if self.config.data.prompts_path is None:
            return [judgement.prompt for judgement in self.ingested.judgements]
        path = Path(self.config.data.prompts_path)
        prompts, bad = read_prompts(path)
        self._check_share(path, len(prompts), bad, self.folder / "quarantine_prompts.jsonl")
        return prompts

    def _file(self, special: str | None) -> Path:
        path = special or self.config.data.path
        if path is not None:
            return Path(path)
        assert self.dataset is not None, "checked by DataConfig"
        return self.label_file

    def _ingest(self, path: Path, quarantine: Path) -> Ingested:
        return ingest(
            path,
            format=self.config.data.format,
            max_quarantine_fraction=self.config.labels.max_quarantine_fraction,
            quarantine_path=quarantine,
        )

    def _check_share(self, path: Path, good: int, bad: Sequence[BadRow], quarantine: Path) -> None:
        if bad:
            write_jsonl(quarantine, [{"line": row.line, "reason": row.reason, "text": row.text} for row in bad])
        limit = self.config.labels.max_quarantine_fraction
        if not good or len(bad) > limit * (good + len(bad)):
            first = "; ".join(f"line {row.line}: {row.reason}" for row in bad[:3]) or "the file has no rows"
            raise DataError(
                f"{path}: {len(bad)} of {good + len(bad)} rows cannot be used (labels.max_quarantine_fraction="
                f"{limit}); {first}; all are in {quarantine}; repair the file or raise the limit"
            )


def write_simulated_labels(
    path: Path, requests: Sequence[Conversation], config: SimulationConfig, *, seed: int
) -> None:
    """Let simulated annotators compare answers to the requests and write what they say to a label file."""
    annotators = make_annotators(
        config.annotators,
        seed=seed,
        bias=config.planted_bias,
        biased_against=config.planted_group,
        biased=config.annotators if config.biased_annotators is None else config.biased_annotators,
    )
    pairs = make_pairs(list(requests), config.pairs, seed=seed)
    write_label_file(path, pairs, annotators, repeat_fraction=config.repeat_fraction, seed=seed)


def chosen_answers(ingested: Ingested) -> list[Example]:
    """Return the preferred answer of every decided pair as a demonstration."""
    return [Example(preference.prompt, preference.chosen) for preference in aggregate(ingested.judgements).preferences]


def _holds_demonstrations(path: Path) -> bool:
    first = next((row for row in read_rows(path) if isinstance(row, Row)), None)
    return first is not None and "chosen" not in first.value and "response_a" not in first.value
