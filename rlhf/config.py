"""ExperimentConfig: the schema of an experiment and all its defaults. Imports no torch.

One field per folder of `conf/`; a YAML file holds only what differs from here.
"""

from dataclasses import dataclass, field
from enum import StrEnum

from reward.config import RewardConfig
from rlhf.registry.artifact import parse_ref
from rlhf.search.config import Objective, Pruner, SearchConfig
from sft.config import DataConfig, DataSource, ModelConfig, RuntimeConfig, Schedule, SFTConfig
from sft.core.config import Section, at_least, between, multiple_of, no_password, positive
from sft.core.errors import ConfigProblem, UsageError
from sft.core.urls import without_password


@dataclass(kw_only=True)
class SimulationConfig(Section):
    """The embedded world: requests, answers, annotators (`data.source=simulated`)."""

    prompts: int = 800
    """Different requests."""
    demonstrations: int = 3000
    """Request-answer pairs of mixed quality for SFT."""
    pairs: int = 12000
    """Answer pairs that are compared."""
    annotators: int = 8
    """Simulated people, each with an own noise level and habits."""
    repeat_fraction: float = 0.15
    """Share of pairs judged by three annotators instead of one, from which agreement is measured."""
    planted_bias: float = 0.0
    """Utility that a biased annotator takes from an answer naming someone of `planted_group`; 1.0 is strong."""
    planted_group: str = "women"
    """The group that biased annotators mark down."""
    biased_annotators: int | None = None
    """How many of the annotators are biased once `planted_bias` is not 0; null: all, as where a society shares it."""

    def problems(self) -> list[ConfigProblem]:
        """Return every broken rule of this section."""
        found = at_least(50, prompts=self.prompts, demonstrations=self.demonstrations, pairs=self.pairs)
        found += between(2, 1000, annotators=self.annotators)
        found += between(0, 1, repeat_fraction=self.repeat_fraction)
        found += between(0, self.annotators, biased_annotators=self.biased_annotators)
        return found + at_least(0, planted_bias=self.planted_bias)


class LabelSource(StrEnum):
    """Who compares answers."""

    FILE = "file"
    """Nobody during the run: the judgements are there, in a file, an export, or of the simulated world."""
    HUMAN = "human"
    """People, on the label page, compare answers of the model in training; the run stops until they have."""
    SCRIPTED = "scripted"
    """The simulated annotators, in the same way."""


@dataclass(kw_only=True)
class LabelsConfig(Section):
    """How files of human preferences are read and joined, and how answers of the run's own models get labels."""

    max_quarantine_fraction: float = 0.05
    """The run stops when a larger share of rows is broken."""
    source: LabelSource = LabelSource.FILE
    """`file`, `human` or `scripted`."""
    database_url: str | None = None
    """`sqlite:///FILE` or `postgresql://USER@HOST/NAME`; null: labels.sqlite beside the registry."""
    project: str | None = None
    """Project in the database, all of whose labels are used; null: one of the run's own."""
    overlap: int = 2
    """People per answer pair."""
    guidelines: str | None = None
    """`human`: a file of Markdown that annotators follow; null: those that the project has."""
    question: str | None = None
    """`human`: what stands above the choice; null: as the project has it, at first "Which answer is better?"."""
    attributes: list[str] = field(default_factory=list)
    """`human`: asked beside the question, such as [helpful, honest]; empty: those that the project has."""
    tasks: int = 500
    """Answer pairs of one round."""
    min_labels: int | None = None
    """Labels of a round from which the run carries on; null: all, `tasks` * `overlap`."""
    rounds: int = 1
    """Sample answers, label, train the reward model on all labels so far, PPO from the policy so far: so many times.
    The KL is to the SFT model in every round."""

    @property
    def asks_people(self) -> bool:
        """Whether answers are labelled during the run, by people or by simulated annotators."""
        return self.source is not LabelSource.FILE

    def problems(self) -> list[ConfigProblem]:
        """Return every broken rule of this section."""
        found = between(0, 1, max_quarantine_fraction=self.max_quarantine_fraction)
        found += at_least(1, overlap=self.overlap, tasks=self.tasks, min_labels=self.min_labels, rounds=self.rounds)
        if self.min_labels is not None and self.min_labels > self.tasks * self.overlap:
            rule = f"is more than labels.tasks * labels.overlap={self.tasks * self.overlap} labels, all there can be"
            found.append(ConfigProblem("min_labels", self.min_labels, rule, "lower it, or raise labels.tasks"))
        if self.rounds > 1 and not self.asks_people:
            rule = "needs labels of each round's answers, and labels.source=file has none"
            found.append(ConfigProblem("rounds", self.rounds, rule, "use labels.source=human or labels.rounds=1"))
        found += self._problems_of_the_page()
        return found + no_password(database_url=self.database_url)

    def _problems_of_the_page(self) -> list[ConfigProblem]:
        if self.source is LabelSource.HUMAN:
            return []
        rule = f"is for people alone, and labels.source={self.source} asks none"
        given = {"guidelines": self.guidelines, "question": self.question, "attributes": self.attributes}
        remedy = "use labels.source=human, or leave it out"
        return [ConfigProblem(name, value, rule, remedy) for name, value in given.items() if value]


class KLEstimator(StrEnum):
    """Per-token estimate of KL(policy || reference) in the reward."""

    K1 = "k1"
    K2 = "k2"
    K3 = "k3"


REWARD_FUNCTIONS = ("length_penalty", "repetition_penalty")
"""Names that `ppo.reward_functions` may give a weight; `rlhf/ppo/rewards.py` holds them."""


class ModelSharing(StrEnum):
    """Which models of PPO have weights of their own."""

    SEPARATE = "separate"
    """Policy, reference, critic and reward model are four models; policy and critic are trained whole."""
    SHARED = "shared"
    """One frozen base; policy and critic are LoRA adapters on it, the reference is the base without them."""


def start_problems(models: ModelSharing) -> list[ConfigProblem]:
    """Return why a policy cannot start elsewhere than at its reference."""
    if models is ModelSharing.SEPARATE:
        return []
    rule = "cannot start from another policy than the reference, which is the base without adapters"
    return [ConfigProblem("ppo.models", models, rule, "use ppo.models=separate, or labels.rounds=1")]


class CriticKind(StrEnum):
    """What estimates values."""

    MODEL = "model"
    """A model (or adapter) of its own, with its own learning rate."""
    HEAD = "head"
    """A value head on the policy's trunk: one pass for both. Starts at zero. Needs `models: shared`."""


class Ensemble(StrEnum):
    """How several reward models become one score; Coste et al. 2023, arXiv 2310.02743."""

    MEAN = "mean"
    WORST = "worst"
    """Worst case (WCO): the lowest score."""
    UNCERTAINTY = "uncertainty"
    """Uncertainty-weighted (UWO): mean - `uncertainty_coef` * variance."""


class Selection(StrEnum):
    """Which policy PPO returns. Gold never selects."""

    LAST = "last"
    WIN_RATE = "win_rate"
    """The best win rate against the start, by a reward model that PPO does not train on."""
    KL = "kl"
    """The last one whose KL to the reference is at most `max_kl`."""


@dataclass(kw_only=True)
class PPOConfig(Section):
    """PPO; names as in TRL's `PPOConfig`."""

    total_episodes: int = 7680
    """Answers sampled in all."""
    batch_size: int = 128
    """Answers of one iteration, over all processes."""
    num_mini_batches: int = 4
    """Optimiser steps of one pass over an iteration's answers."""
    num_ppo_epochs: int = 4
    """Passes over an iteration's answers."""
    micro_batch_tokens: int = 4096
    """Most tokens in one forward and backward pass (one answer is never divided); changes memory, not the result."""
    generation_batch_size: int | None = None
    """Answers sampled at once by one process; null: all of an iteration. Changes memory, not the result."""
    response_length: int = 48
    """Most tokens of an answer."""
    temperature: float = 1.0
    """Of sampling, and of all log-probabilities."""
    learning_rate: float = 3e-6
    """Policy."""
    critic_learning_rate: float = 1e-5
    """Critic."""
    lr_scheduler_type: Schedule = Schedule.LINEAR
    """How both learning rates fall to 0: `linear`, `cosine`, or `constant`."""
    warmup_iterations: int = 0
    """First iterations in which both learning rates rise linearly."""
    critic_warmup_iterations: int = 2
    """First iterations in which only the critic learns."""
    kl_coef: float = 0.05
    """Weight of the KL to the reference in the reward; where it starts with `kl_target_nats_per_sequence`."""
    kl_estimator: KLEstimator = KLEstimator.K1
    """`k1`, `k2` or `k3`."""
    kl_target_nats_per_sequence: float | None = None
    """Adapt `kl_coef` so that the KL, summed over an answer, approaches this; null: fixed."""
    kl_horizon: int = 10000
    """Answers over which the adaptive coefficient moves; smaller is faster."""
    gamma: float = 1.0
    lam: float = 0.95
    cliprange: float = 0.2
    cliprange_high: float | None = None
    """Upper clip of the ratio; null: as `cliprange`."""
    cliprange_value: float = 0.2
    dual_clip: float | None = None
    """Bound c > 1 on the loss of negative advantages; null: none."""
    entropy_coef: float = 0.0
    """Weight of the entropy bonus."""
    vf_coef: float = 0.1
    """Weight of the value loss in the trunk's gradient with `critic: head`; models of their own need none."""
    whiten_rewards: bool = False
    """Divide rewards by their standard deviation (no shift) before advantages."""
    missing_eos_penalty: float = 1.0
    """Taken from the score of an answer that does not end within `response_length`."""
    score_clip: float | None = None
    """Clip scores to +- this, after normalisation; null: never."""
    normalize_scores: bool = False
    """Divide scores by their running standard deviation over all answers so far, after taking their running mean."""
    reward_models: list[str] = field(default_factory=list)
    """Further reward models (registered or folders), of any tokenizer, that join the stage's own in an ensemble."""
    ensemble: Ensemble = Ensemble.MEAN
    """`mean`, `worst` or `uncertainty`."""
    uncertainty_coef: float = 0.5
    """Weight of the ensemble's variance with `ensemble: uncertainty`."""
    reward_model_weight: float = 1.0
    """Weight of the (ensemble's) score in the reward."""
    reward_functions: dict[str, float] = field(default_factory=dict)
    """Weights of plain functions in the reward: `length_penalty`, `repetition_penalty`."""
    max_grad_norm: float = 1.0
    adam_epsilon: float = 1e-5
    max_kl: float | None = None
    """Stop once an iteration's mean KL to the reference exceeds this many nats per sequence; null: never."""
    select: Selection = Selection.LAST
    """Which policy is kept: `last`, `win_rate` or `kl`."""
    eval_steps: int | None = None
    """Iterations between two looks at the win rate on validation prompts; null: none."""
    eval_prompts: int = 64
    """Validation prompts of such a look, at most."""
    early_stopping_patience: int | None = None
    """Looks without a better win rate before PPO stops; null: never."""
    models: ModelSharing = ModelSharing.SEPARATE
    """`separate` or `shared`."""
    critic: CriticKind = CriticKind.MODEL
    """`model` or `head`."""
    lora_r: int = 16
    """Rank of the adapters with `models: shared`."""
    lora_alpha: float = 32.0
    """Scale of the adapters: their product is multiplied by `lora_alpha / lora_r`."""
    gradient_checkpointing: bool = False
    """Recompute activations in the backward pass: less memory, more time."""
    compile: bool = False
    """Compile the forward and backward passes with torch.compile; needs g++ and Python.h."""
    save_steps: int = 10
    """Iterations between two checkpoints; at most so many are repeated after a kill."""

    @property
    def minibatch_size(self) -> int:
        """Answers of one optimiser step."""
        return self.batch_size // self.num_mini_batches

    @property
    def iterations(self) -> int:
        """Rollouts in all."""
        return self.total_episodes // self.batch_size

    def problems(self) -> list[ConfigProblem]:
        """Return every broken rule of this section."""
        counts = {
            "total_episodes": self.total_episodes,
            "batch_size": self.batch_size,
            "num_mini_batches": self.num_mini_batches,
            "num_ppo_epochs": self.num_ppo_epochs,
            "micro_batch_tokens": self.micro_batch_tokens,
            "response_length": self.response_length,
        }
        found = positive(
            **counts,
            temperature=self.temperature,
            learning_rate=self.learning_rate,
            critic_learning_rate=self.critic_learning_rate,
            max_grad_norm=self.max_grad_norm,
            adam_epsilon=self.adam_epsilon,
            cliprange_value=self.cliprange_value,
            max_kl=self.max_kl,
            kl_target_nats_per_sequence=self.kl_target_nats_per_sequence,
            kl_horizon=self.kl_horizon,
            score_clip=self.score_clip,
            generation_batch_size=self.generation_batch_size,
            eval_steps=self.eval_steps,
            eval_prompts=self.eval_prompts,
            early_stopping_patience=self.early_stopping_patience,
            lora_r=self.lora_r,
            vf_coef=self.vf_coef,
            lora_alpha=self.lora_alpha,
            save_steps=self.save_steps,
        )
        found += at_least(
            0,
            warmup_iterations=self.warmup_iterations,
            entropy_coef=self.entropy_coef,
            uncertainty_coef=self.uncertainty_coef,
            kl_coef=self.kl_coef,
            missing_eos_penalty=self.missing_eos_penalty,
            critic_warmup_iterations=self.critic_warmup_iterations,
        )
        found += between(0, 1, gamma=self.gamma, lam=self.lam)
        found += positive(cliprange=self.cliprange, cliprange_high=self.cliprange_high)
        found += between(0, 1, cliprange=self.cliprange)
        if min(counts.values()) > 0:
            found += multiple_of("batch_size", self.batch_size, "ppo.num_mini_batches", self.num_mini_batches)
            found += multiple_of("total_episodes", self.total_episodes, "ppo.batch_size", self.batch_size)
        return found + self._problems_between_fields()

    def _problems_between_fields(self) -> list[ConfigProblem]:
        found = []
        if self.dual_clip is not None and self.dual_clip <= 1:
            found.append(ConfigProblem("dual_clip", self.dual_clip, "must be greater than 1", "use e.g. 3"))
        if self.critic is CriticKind.HEAD and self.models is not ModelSharing.SHARED:
            rule = "is possible with ppo.models=shared only"
            found.append(ConfigProblem("critic", self.critic, rule, "use ppo.models=shared or ppo.critic=model"))
        if self.compile and (self.models is ModelSharing.SHARED or self.gradient_checkpointing):
            rule = "goes with neither ppo.models=shared nor ppo.gradient_checkpointing"
            found.append(ConfigProblem("compile", True, rule, "use ppo.compile=false"))
        if self.select is Selection.WIN_RATE and self.eval_steps is None:
            rule = "needs looks at the win rate"
            found.append(ConfigProblem("select", self.select, rule, "set ppo.eval_steps, e.g. ppo.eval_steps=5"))
        if self.select is Selection.KL and self.max_kl is None:
            found.append(ConfigProblem("select", self.select, "needs a limit of the KL", "set ppo.max_kl, e.g. 10"))
        if self.early_stopping_patience is not None and self.eval_steps is None:
            rule = "counts looks at the win rate, and there are none"
            found.append(
                ConfigProblem("early_stopping_patience", self.early_stopping_patience, rule, "set ppo.eval_steps")
            )
        if self.kl_target_nats_per_sequence is not None and self.kl_horizon < self.batch_size:
            rule = f"must be at least ppo.batch_size={self.batch_size}, or one iteration moves the coefficient too far"
            found.append(ConfigProblem("kl_horizon", self.kl_horizon, rule, "use ppo.batch_size or more"))
        if self.warmup_iterations and self.warmup_iterations >= self.iterations:
            rule = f"must be less than the {self.iterations} iterations of ppo.total_episodes"
            found.append(ConfigProblem("warmup_iterations", self.warmup_iterations, rule, "lower it"))
        unknown = sorted(set(self.reward_functions) - set(REWARD_FUNCTIONS))
        if unknown:
            rule = f"names no function that exists: {', '.join(unknown)}"
            remedy = f"use some of {', '.join(REWARD_FUNCTIONS)}"
            found.append(ConfigProblem("reward_functions", self.reward_functions, rule, remedy))
        return found


@dataclass(kw_only=True)
class EvaluationConfig(Section):
    """Policy against SFT model on held-out prompts."""

    prompts: int = 200
    """Held-out prompts, at most."""
    answers_per_prompt: int = 2
    """Sampled answers of each model to each prompt."""
    sample_table: int = 24
    """Answers shown side by side."""
    min_win_rate: float = 0.5
    """The gate: the low end of the win rate's interval must lie above."""

    def problems(self) -> list[ConfigProblem]:
        """Return every broken rule of this section."""
        found = positive(
            prompts=self.prompts, answers_per_prompt=self.answers_per_prompt, sample_table=self.sample_table
        )
        return found + between(0, 1, min_win_rate=self.min_win_rate)


def _gender_terms() -> dict[str, list[str]]:
    return {
        "women": ["she", "her", "hers", "woman", "women", "girl", "mother", "sister", "daughter", "wife", "female"],
        "men": ["he", "him", "his", "man", "men", "boy", "father", "brother", "son", "husband", "male"],
    }


@dataclass(kw_only=True)
class BiasConfig(Section):
    """Bias checks of the reward model and the policy, and the limits of the gate."""

    suite: str = "gender"
    """Name of the set of group terms, as shown in the report."""
    groups: dict[str, list[str]] = field(default_factory=_gender_terms)
    """Group -> terms; the i-th terms of two groups are swapped for one another."""
    probes: int = 400
    """Answers whose group terms are swapped, at most."""
    max_swap_effect: float = 0.15
    """Largest allowed shift of the margin by naming a group, in standard deviations of the margin."""
    max_flip_rate: float = 0.15
    """Largest allowed share of preferences that a swap turns over."""
    max_length_correlation: float = 0.6
    """Largest allowed rank correlation of reward and length, within prompts."""
    max_group_gap: float = 0.35
    """Largest allowed gap between groups in the policy's answers, in standard deviations."""

    def problems(self) -> list[ConfigProblem]:
        """Return every broken rule of this section."""
        found = at_least(30, probes=self.probes)
        found += positive(max_swap_effect=self.max_swap_effect, max_group_gap=self.max_group_gap)
        found += between(0, 1, max_flip_rate=self.max_flip_rate, max_length_correlation=self.max_length_correlation)
        lengths = {len(terms) for terms in self.groups.values()}
        if len(self.groups) < 2 or len(lengths) != 1 or 0 in lengths:
            shown = {name: len(terms) for name, terms in self.groups.items()}
            rule = "needs two or more groups with equally many terms (the i-th terms are swapped)"
            found.append(ConfigProblem("groups", shown, rule, "give every group the same number of terms"))
        return found


@dataclass(kw_only=True)
class RegistryConfig(Section):
    """Where models, labels and reports are kept."""

    root: str = "registry"
    """Folder of the registry."""
    url: str | None = None
    """`postgresql://USER@HOST/NAME` of its database; null: SQLite, in the folder."""
    prefix: str = ""
    """Put before every name, so that several experiments can share a registry: `hh-` gives `hh-policy`."""

    def problems(self) -> list[ConfigProblem]:
        """Return every broken rule of this section."""
        found = no_password(url=self.url)
        if self.url is not None and not self.url.startswith(("postgresql://", "postgresql+psycopg://")):
            rule = "is not the URL of a PostgreSQL database"
            found.append(ConfigProblem("url", without_password(self.url), rule, "use postgresql://USER@HOST/NAME"))
        if any(c not in "abcdefghijklmnopqrstuvwxyz0123456789._-" for c in self.prefix) or self.prefix[:1] in (*".-_",):
            rule = "may hold a-z, 0-9, '.', '_' and '-', and starts with a letter or digit"
            found.append(ConfigProblem("prefix", self.prefix, rule, "use e.g. registry.prefix=hh-"))
        return found


@dataclass(kw_only=True)
class ResumeConfig(Section):
    """How an interrupted run is carried on."""

    allow: list[str] = field(default_factory=list)
    """Differences between a checkpoint's environment and this one that are accepted, though bits will differ:
    `threads`, `torch`, `cpu_capability`, `device`, `world_size`; of SFT and reward training also `transformers`,
    `trl`, `accelerate`."""

    def problems(self) -> list[ConfigProblem]:
        """Return every broken rule of this section."""
        known = ("threads", "torch", "cpu_capability", "device", "world_size", "transformers", "trl", "accelerate")
        if set(self.allow) <= set(known):
            return []
        return [ConfigProblem("allow", self.allow, "names an unknown difference", f"use some of {', '.join(known)}")]


class WandbMode(StrEnum):
    """How metrics reach W&B."""

    AUTO = "auto"
    """Online where an API key is set, else offline; never a prompt."""
    ONLINE = "online"
    OFFLINE = "offline"
    DISABLED = "disabled"


@dataclass(kw_only=True)
class WandbConfig(Section):
    """The W&B mirror of the metric ledger."""

    mode: WandbMode = WandbMode.AUTO
    """`auto`, `online`, `offline` or `disabled`; without a key, `auto` and `online` are offline."""
    project: str = "rlhf"
    """W&B project."""
    entity: str | None = None
    """W&B team or user; null: the key's default."""
    log_samples: bool = False
    """Send tables of sample prompts and answers; without it no text of the data leaves the machine."""
    log_artifacts: bool = True
    """Send references to the registry: names, folders and digests, never a file."""


@dataclass(kw_only=True)
class ExperimentConfig(Section):
    """Everything one run needs."""

    seed: int = 0
    """Decides all chance of a run."""
    model: ModelConfig = field(default_factory=ModelConfig)
    data: DataConfig = field(default_factory=DataConfig)
    simulation: SimulationConfig = field(default_factory=SimulationConfig)
    labels: LabelsConfig = field(default_factory=LabelsConfig)
    sft: SFTConfig = field(default_factory=SFTConfig)
    reward: RewardConfig = field(default_factory=RewardConfig)
    ppo: PPOConfig = field(default_factory=PPOConfig)
    evaluation: EvaluationConfig = field(default_factory=EvaluationConfig)
    bias: BiasConfig = field(default_factory=BiasConfig)
    registry: RegistryConfig = field(default_factory=RegistryConfig)
    wandb: WandbConfig = field(default_factory=WandbConfig)
    runtime: RuntimeConfig = field(default_factory=RuntimeConfig)
    resume: ResumeConfig = field(default_factory=ResumeConfig)
    search: SearchConfig = field(default_factory=SearchConfig)

    def problems(self) -> list[ConfigProblem]:
        """Return every broken rule between sections, and of the seed."""
        found = between(0, 2**32 - 1, seed=self.seed)
        needed = self.data.max_prompt_tokens + max(self.data.max_answer_tokens, self.ppo.response_length)
        if self.model.kind == "tiny" and needed > self.model.max_position_embeddings:
            rule = f"is less than the longest prompt + answer ({needed} tokens)"
            remedy = f"use {needed} or more, or lower data.max_prompt_tokens or ppo.response_length"
            found.append(
                ConfigProblem("model.max_position_embeddings", self.model.max_position_embeddings, rule, remedy)
            )
        found += _reference_problems("data.labels", self.data.labels)
        if self.labels.asks_people and self.data.labels is not None:
            rule = f"is not read with labels.source={self.labels.source}, which collects labels of its own"
            found.append(ConfigProblem("data.labels", self.data.labels, rule, "leave one of the two out"))
        if self.labels.source is LabelSource.SCRIPTED and self.data.source is not DataSource.SIMULATED:
            rule = "knows the simulated world only, and needs data.source=simulated"
            found.append(ConfigProblem("labels.source", self.labels.source, rule, "use labels.source=human"))
        if self.labels.rounds > 1:
            found += start_problems(self.ppo.models)
        if self.data.source is DataSource.FILES and not self.reward.judge_fraction:
            rule = "must be greater than 0 with data.source=files: no gold preference is known there"
            found.append(ConfigProblem("reward.judge_fraction", 0.0, rule, "use e.g. reward.judge_fraction=0.3"))
        if self.ppo.eval_steps is not None and not self.reward.judge_fraction:
            rule = "needs a reward model that PPO does not train on"
            remedy = "set reward.judge_fraction, e.g. 0.3, or ppo.eval_steps=null"
            found.append(ConfigProblem("ppo.eval_steps", self.ppo.eval_steps, rule, remedy))
        if self.data.source is DataSource.SIMULATED and self.simulation.planted_group not in self.bias.groups:
            rule = f"is none of the groups of bias.groups ({', '.join(self.bias.groups)})"
            found.append(
                ConfigProblem("simulation.planted_group", self.simulation.planted_group, rule, "choose one of them")
            )
        return found + (self._problems_of_a_trial() if self.search.is_trial else [])

    def _problems_of_a_trial(self) -> list[ConfigProblem]:
        found = []
        search = self.search
        judged = sorted({Objective.WIN_RATE, Objective.HELD_OUT_REWARD} & set(search.objectives))
        if search.needs_policy and not self.reward.judge_fraction:
            asks = " and ".join(judged) or "the evaluation of a trial"
            rule = f"must be greater than 0: {asks} needs a judge, and gold chooses nothing"
            found.append(ConfigProblem("reward.judge_fraction", 0.0, rule, "use e.g. reward.judge_fraction=0.3"))
        if self.labels.asks_people:
            rule = "would ask for labels in every trial of the search"
            remedy = "export labels with `rlhf labels export` and give data.labels=NAME"
            found.append(ConfigProblem("labels.source", self.labels.source, rule, remedy))
        if search.pruner is Pruner.MEDIAN and judged and self.ppo.eval_steps is None:
            rule = "must be set, since trials are pruned by looks at the win rate"
            remedy = "use e.g. ppo.eval_steps=5, or search.pruner=none"
            found.append(ConfigProblem("ppo.eval_steps", None, rule, remedy))
        limits = {"max_flip_rate": self.bias.max_flip_rate, "max_length_correlation": self.bias.max_length_correlation}
        if Objective.WORST_BIAS in search.objectives:
            rule, remedy = "leaves worst_bias no share of a limit to measure", "use a limit above 0"
            found += [ConfigProblem(f"bias.{name}", 0.0, rule, remedy) for name, limit in limits.items() if limit == 0]
        return found


def _reference_problems(field: str, value: str | None) -> list[ConfigProblem]:
    try:
        if value is not None:
            parse_ref(value)
    except UsageError:
        rule = "is not written as a registered artifact (NAME, NAME:VERSION, NAME@ALIAS)"
        return [ConfigProblem(field, value, rule, "see `rlhf models list`, or make one with `rlhf labels export`")]
    return []
