"""SearchConfig: what a search tries to make better, and how. Imports no torch and no Optuna."""

from dataclasses import dataclass, field
from enum import StrEnum

from sft.core.config import Section, at_least, no_password
from sft.core.errors import ConfigProblem
from sft.core.urls import without_password

_DATABASES = ("sqlite:///", "postgresql://", "postgresql+psycopg://")


class Objective(StrEnum):
    """What a search can make better, measured on validation data; `rlhf/search/objectives.py` says how."""

    SFT_LOSS = "sft_loss"
    """Validation loss of the SFT model, nats per token: down. A trial ends after SFT."""
    REWARD_ACCURACY = "reward_accuracy"
    """Accuracy of the reward model on validation comparisons: up. A trial ends after the reward model."""
    WIN_RATE = "win_rate"
    """Win rate against the SFT model by the judge, a reward model that PPO does not train on: up."""
    HELD_OUT_REWARD = "held_out_reward"
    """Mean gain over the SFT model by the judge's scores: up."""
    KL = "kl"
    """To the SFT model, nats per answer: down."""
    WORST_BIAS = "worst_bias"
    """Largest effect of a bias check as a share of its limit, 1.0 at the limit: down."""


PRUNED_BY = {
    Objective.SFT_LOSS: "eval_loss",
    Objective.REWARD_ACCURACY: "eval_accuracy",
    Objective.WIN_RATE: "eval/win_rate",
    Objective.HELD_OUT_REWARD: "eval/win_rate",
}
"""Objective -> the metric of the ledger that shows on the way how a trial will do."""


class Sampler(StrEnum):
    """How the next settings are chosen; the names are Optuna's."""

    TPE = "tpe"
    """Learns from few trials, by one objective or several."""
    NSGAII = "nsgaii"
    """For several objectives and hundreds of trials."""
    RANDOM = "random"


class Pruner(StrEnum):
    """Which trials are ended early; the names are Optuna's."""

    AUTO = "auto"
    """`median` for one objective that is looked at on the way, else `none`."""
    NONE = "none"
    MEDIAN = "median"
    """Those whose best look so far is worse than the median of the others at the same step."""


@dataclass(kw_only=True)
class SearchConfig(Section):
    """A search for good settings: `rlhf run -m hydra/sweeper=optuna ppo.kl_coef='interval(0.01,0.3)' ...`."""

    objectives: list[str] = field(default_factory=lambda: [Objective.WIN_RATE.value])
    """What to make better: `sft_loss`, `reward_accuracy`, `win_rate`, `held_out_reward`, `kl`, `worst_bias`. With
    several there is no best trial but a Pareto front."""
    trials: int = 20
    """Settings to try, pruned and failed ones among them."""
    parallel: int = 1
    """Trials that Hydra's launcher gets at once."""
    sampler: Sampler = Sampler.TPE
    """`tpe`, `nsgaii` or `random`."""
    startup_trials: int = 6
    """Trials with random settings before `tpe` learns from them, and that finish before any is pruned."""
    pruner: Pruner = Pruner.AUTO
    """`auto`, `none` or `median`."""
    enqueue_defaults: bool = True
    """Try the settings that the configuration has without the search first."""
    enqueue: list[str] = field(default_factory=list)
    """Settings to try early, each a text such as "ppo.kl_coef=0.1 ppo.learning_rate=1e-5"."""
    study: str | None = None
    """Name of the study; null: made from the experiment and the settings searched, so that the same command carries
    on with the same study."""
    storage: str | None = None
    """`sqlite:///FILE` or `postgresql://USER@HOST/NAME`; null: study.sqlite in the search's folder."""
    trial: int | None = None
    """Number of a trial; the search itself sets it. A trial sees no test data."""

    @property
    def is_trial(self) -> bool:
        """Whether this run is one of a search, so that test data are sealed and no alias moves."""
        return self.trial is not None

    @property
    def watched(self) -> str | None:
        """The metric by which trials are pruned; None: none is."""
        if self.pruner is Pruner.NONE or len(self.objectives) != 1:
            return None
        return PRUNED_BY.get(Objective(self.objectives[0]))

    @property
    def needs_policy(self) -> bool:
        """Whether a trial goes on to PPO."""
        return not set(self.objectives) <= {Objective.SFT_LOSS, Objective.REWARD_ACCURACY}

    @property
    def needs_reward(self) -> bool:
        """Whether a trial goes on to the reward model."""
        return self.needs_policy or Objective.REWARD_ACCURACY in self.objectives

    def problems(self) -> list[ConfigProblem]:
        """Return every broken rule of this section."""
        found = at_least(1, trials=self.trials, parallel=self.parallel, startup_trials=self.startup_trials)
        known = [objective.value for objective in Objective]
        if not self.objectives or not set(self.objectives) <= set(known):
            rule = "must name what to make better"
            found.append(ConfigProblem("objectives", self.objectives, rule, f"use some of {', '.join(known)}"))
        elif len(set(self.objectives)) < len(self.objectives):
            found.append(ConfigProblem("objectives", self.objectives, "names one twice", "name each once"))
        elif self.pruner is Pruner.MEDIAN and self.watched is None:
            looked_at = ", ".join(objective for objective in PRUNED_BY)
            rule = f"can prune by one objective that is looked at on the way: {looked_at}"
            found.append(ConfigProblem("pruner", self.pruner, rule, "use search.pruner=none"))
        if self.study is not None and (self.study in ("", ".", "..") or "/" in self.study):
            rule = "is no name of a folder"
            found.append(ConfigProblem("study", self.study, rule, "use e.g. search.study=kl-and-epochs"))
        if self.storage is not None and not self.storage.startswith(_DATABASES):
            rule = "is not the URL of a SQLite or PostgreSQL database"
            remedy = "use sqlite:///FILE or postgresql://USER@HOST/NAME"
            found.append(ConfigProblem("storage", without_password(self.storage), rule, remedy))
        return found + no_password(storage=self.storage)
