"""Settings of models, data and supervised fine-tuning. Imports no torch."""

from dataclasses import dataclass, field
from enum import StrEnum

from sft.core.config import Section, at_least, between, positive
from sft.core.errors import ConfigProblem


class ModelKind(StrEnum):
    """Where the base model comes from."""

    TINY = "tiny"
    """A small Llama with random weights and a tokenizer trained on the data."""
    PRETRAINED = "pretrained"
    """A local folder or a hub id, `model.path`."""


class Dtype(StrEnum):
    """Number format of the computation."""

    FLOAT32 = "float32"
    BFLOAT16 = "bfloat16"
    """Mixed precision: what is trained keeps float32 weights, which small updates need; what is frozen has bfloat16."""


@dataclass(kw_only=True)
class ModelConfig(Section):
    """The base model."""

    kind: ModelKind = ModelKind.TINY
    """`tiny` or `pretrained`."""
    path: str | None = None
    """`pretrained`: a local folder or hub id, safetensors only."""
    pad_token: str | None = None
    """An existing token to pad with, for tokenizers whose pad is missing or equals EOS."""
    vocab_size: int = 1024
    """`tiny`: tokens of the trained tokenizer, at most."""
    hidden_size: int = 128
    """`tiny`: width."""
    intermediate_size: int = 384
    """`tiny`: width of the feed-forward layers."""
    num_hidden_layers: int = 4
    """`tiny`: depth."""
    num_attention_heads: int = 4
    """`tiny`: heads."""
    max_position_embeddings: int = 512
    """`tiny`: longest prompt + answer, in tokens."""

    def problems(self) -> list[ConfigProblem]:
        """Return every broken rule of this section."""
        found = at_least(300, vocab_size=self.vocab_size)
        found += positive(
            hidden_size=self.hidden_size,
            intermediate_size=self.intermediate_size,
            num_hidden_layers=self.num_hidden_layers,
            num_attention_heads=self.num_attention_heads,
            max_position_embeddings=self.max_position_embeddings,
        )
        if self.num_attention_heads > 0 and self.hidden_size % (2 * self.num_attention_heads):
            rule = f"must be a multiple of 2 * num_attention_heads={2 * self.num_attention_heads} (rotary positions)"
            found.append(ConfigProblem("hidden_size", self.hidden_size, rule, "change one of the two"))
        if self.kind is ModelKind.PRETRAINED and not self.path:
            found.append(
                ConfigProblem("path", self.path, "is required by model.kind=pretrained", "give a folder or a hub id")
            )
        return found


class DataSource(StrEnum):
    """Where prompts, answers and preferences come from."""

    SIMULATED = "simulated"
    """The embedded world with a known gold preference."""
    FILES = "files"
    """Files of the user."""


class LabelFormat(StrEnum):
    """File format of preferences."""

    AUTO = "auto"
    HH = "hh"
    """Anthropic HH: `chosen`, `rejected` transcripts."""
    TRL = "trl"
    """TRL preference: `prompt`, `chosen`, `rejected`, texts or message lists; the prompt may be implicit."""
    PAIRWISE = "pairwise"
    """One judgement a row: `prompt, response_a, response_b, label`, optionally `annotator`; JSONL or CSV."""
    KTO = "kto"
    """TRL unpaired: `prompt, completion, label`; adjacent rows of one prompt are compared."""
    SUMMARIES = "summaries"
    """OpenAI summarize-from-feedback comparisons: `info, summaries, choice`."""
    WEBGPT = "webgpt"
    """WebGPT comparisons: `question, answer_0, score_0, answer_1, score_1`."""
    ULTRAFEEDBACK = "ultrafeedback"
    """UltraFeedback: `instruction, completions` with ratings."""
    ULTRAFEEDBACK_BINARIZED = "ultrafeedback_binarized"
    """UltraFeedback made binary: `prompt, chosen, rejected` and a score of each."""
    ARENA = "arena"
    """LMSYS arena, both generations: `model_a, model_b, winner, conversation_a, conversation_b`."""
    ARENA_VOTES = "arena_votes"
    """FastChat's log of votes: `type, models, states, tstamp`."""
    ARENA_ONEHOT = "arena_onehot"
    """Arena as published on Kaggle: `winner_model_a, winner_model_b, winner_tie`."""
    MT_BENCH = "mt_bench"
    """MT-bench human judgements: the arena's columns, and the `turn` that was judged."""
    HELPSTEER2 = "helpsteer2"
    """HelpSteer2 ratings: `prompt, response, helpfulness`; adjacent rows of one prompt are a pair."""
    HELPSTEER2_PREFERENCE = "helpsteer2_preference"
    """HelpSteer2 preference: `prompt, response_1, response_2, preference_strength`."""
    HELPSTEER3 = "helpsteer3"
    """HelpSteer3: `context, response1, response2, overall_preference, individual_preference`."""
    SHP = "shp"
    """Stanford human preferences: `history, human_ref_A, human_ref_B, labels`."""
    ALPACA = "alpaca"
    """AlpacaFarm and AlpacaEval: `instruction, output_1, output_2, preference`."""
    PANDALM = "pandalm"
    """PandaLM test set: `instruction, response1, response2, annotator1` to `annotator3`."""
    QA_FEEDBACK = "qa_feedback"
    """qa-feedback: `question`, `prediction 1` to `prediction 4`, and six preferences."""
    OASST = "oasst"
    """OpenAssistant: one conversation tree a row, with ranked replies."""
    ARGILLA = "argilla"
    """Argilla export, nested or flattened."""
    LABEL_STUDIO = "label_studio"
    """Label Studio's JSON export of `Pairwise` tasks."""
    PRODIGY = "prodigy"
    """Prodigy's JSON lines of a choice or compare recipe: `options, accept, answer`."""


@dataclass(kw_only=True)
class DataConfig(Section):
    """Prompts, answers, preferences and how they are split."""

    source: DataSource = DataSource.SIMULATED
    """`simulated` or `files`."""
    path: str | None = None
    """`files`: the file that serves wherever no more special path is given."""
    sft_path: str | None = None
    """`files`: demonstrations (`prompt, completion` or `messages`), or preferences, whose chosen answers serve."""
    comparisons_path: str | None = None
    """`files`: preferences."""
    labels: str | None = None
    """`files`: a registered export of labels in their place (`NAME`, `NAME:VERSION`, `NAME@ALIAS`), made with
    `rlhf labels export --format csv`."""
    prompts_path: str | None = None
    """`files`: prompts for PPO and evaluation."""
    format: LabelFormat = LabelFormat.AUTO
    """Format of the preferences."""
    validation_fraction: float = 0.1
    """Share of prompts that select checkpoints and temperatures."""
    test_fraction: float = 0.15
    """Share of prompts that nothing is selected on."""
    max_prompt_tokens: int = 128
    """Longer prompts keep their last tokens; the number shortened is reported."""
    max_answer_tokens: int = 64
    """Demonstrations and comparisons with longer answers are left out; the number is reported."""

    def problems(self) -> list[ConfigProblem]:
        """Return every broken rule of this section."""
        found = between(0.01, 0.5, validation_fraction=self.validation_fraction, test_fraction=self.test_fraction)
        found += positive(max_prompt_tokens=self.max_prompt_tokens, max_answer_tokens=self.max_answer_tokens)
        has_files = self.path or (self.sft_path and self.comparisons_path)
        if self.source is DataSource.FILES and not has_files and self.labels is None:
            rule = (
                "is required by data.source=files unless data.sft_path and data.comparisons_path are both given, "
                "or data.labels"
            )
            found.append(ConfigProblem("path", self.path, rule, "give a file, e.g. data.path=preferences.jsonl"))
        return found + (self._problems_of_labels() if self.labels is not None else [])

    def _problems_of_labels(self) -> list[ConfigProblem]:
        found = []
        if self.source is DataSource.SIMULATED:
            rule = "is not read with data.source=simulated"
            found.append(ConfigProblem("labels", self.labels, rule, "add data=files"))
        if self.comparisons_path is not None:
            rule = "takes the place of data.comparisons_path, and both are given"
            found.append(ConfigProblem("labels", self.labels, rule, "leave one of the two out"))
        if self.format is not LabelFormat.AUTO and self.path is None and self.sft_path is None:
            rule = "is not read: data.labels names an export, whose format is known"
            found.append(ConfigProblem("format", self.format.value, rule, "use data=files and no data.format"))
        return found


class Device(StrEnum):
    """Where tensors live."""

    AUTO = "auto"
    """CUDA where there is one, else the CPU."""
    CPU = "cpu"
    CUDA = "cuda"


class Strategy(StrEnum):
    """How processes that train together divide the work of PPO."""

    DDP = "ddp"
    """Data parallel: the rows of a batch are divided."""
    FSDP = "fsdp"
    """Fully sharded (FSDP2): the rows, and the weights and optimizer states of policy and critic."""


@dataclass(kw_only=True)
class RuntimeConfig(Section):
    """The machine."""

    device: Device = Device.AUTO
    """`auto`, `cpu` or `cuda`."""
    dtype: Dtype = Dtype.FLOAT32
    """`float32`, or `bfloat16` for mixed precision."""
    threads: int = 2
    """CPU threads of torch, of each process; part of "same machine, same bits"."""
    world_size: int | None = None
    """Processes that must take part, anything else is refused; null: as many as torchrun starts, or one without it."""
    strategy: Strategy = Strategy.DDP
    """`ddp`: every process holds all of policy and critic; `fsdp`: each holds a part. Matters to several processes."""

    def problems(self) -> list[ConfigProblem]:
        """Return every broken rule of this section."""
        return positive(threads=self.threads, world_size=self.world_size)


class Schedule(StrEnum):
    """How the learning rate falls."""

    COSINE = "cosine"
    LINEAR = "linear"
    CONSTANT = "constant"


@dataclass(kw_only=True)
class TrainerConfig(Section):
    """What both supervised stages set; names as in TRL's `SFTConfig` and `RewardConfig`."""

    from_: str | None = field(default=None, metadata={"key": "from"})
    """A registered model (`NAME`, `NAME:VERSION`, `NAME@ALIAS`) or folder that takes this stage's place."""
    learning_rate: float = 2e-5
    num_train_epochs: float = 1.0
    per_device_train_batch_size: int = 16
    gradient_accumulation_steps: int = 1
    lr_scheduler_type: Schedule = Schedule.COSINE
    """`cosine`, `linear` or `constant`."""
    warmup_steps: int = 0
    weight_decay: float = 0.0
    max_grad_norm: float = 1.0
    eval_steps: int = 50
    """Steps between two looks at the validation loss."""
    early_stopping_patience: int = 3
    """Looks without a better validation loss before training stops."""
    save_steps: int | None = None
    """Steps between two checkpoints, which an interrupted run carries on from; null: one at each look. One takes three
    to four times the bytes of the weights that train; the newest two stay until the stage is done."""

    def problems(self) -> list[ConfigProblem]:
        """Return every broken rule of this section."""
        found = positive(
            learning_rate=self.learning_rate,
            num_train_epochs=self.num_train_epochs,
            per_device_train_batch_size=self.per_device_train_batch_size,
            gradient_accumulation_steps=self.gradient_accumulation_steps,
            max_grad_norm=self.max_grad_norm,
            eval_steps=self.eval_steps,
            early_stopping_patience=self.early_stopping_patience,
            save_steps=self.save_steps,
        )
        return found + at_least(0, warmup_steps=self.warmup_steps, weight_decay=self.weight_decay)


@dataclass(kw_only=True)
class SFTConfig(TrainerConfig):
    """Supervised fine-tuning; the loss counts the answer and its EOS, not the prompt."""

    num_train_epochs: float = 3.0
