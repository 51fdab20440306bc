"""The PPO loop: roll out, score, shape, estimate, update; look, select, save.

Letters: B batch, R response tokens.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from safetensors.torch import save as safetensors_bytes

from rlhf.config import ModelSharing, PPOConfig, Selection, start_problems
from rlhf.ppo import doctor
from rlhf.ppo.doctor import Severity, Symptom, UpdateSigns
from rlhf.ppo.looks import Looks
from rlhf.ppo.metrics import finite, histograms, history_row, rollout_metrics, rollout_signs, update_metrics
from rlhf.ppo.models import PPOModels, SeparateModels
from rlhf.ppo.overoptimisation import examine_course, examine_look
from rlhf.ppo.phases import Stopwatch, model_flops, phase_metrics
from rlhf.ppo.rewards import Rewards, same_tokens
from rlhf.ppo.rollout import Rollout, RolloutSettings, prompt_indices, roll_out
from rlhf.ppo.schedules import learning_rate_factor
from rlhf.ppo.selection import Look, observe_kl, observe_look, should_stop
from rlhf.ppo.shaping import shape_rewards
from rlhf.ppo.sharding import divide, division_problems
from rlhf.ppo.state import HistoryRow, PPOState, fresh_state, keep_weights, put_weights, restore, save_checkpoint
from rlhf.ppo.targets import Targets, make_targets
from rlhf.ppo.update import Optimisers, UpdateStatistics, all_finite, make_optimisers, update
from sft.config import RuntimeConfig
from sft.core.checkpoint import CheckpointStore, Saving
from sft.core.compilation import missing_for_compilation
from sft.core.config import raise_problems
from sft.core.distributed import first_given, from_rank_0, gather_json, wait_for_all
from sft.core.durable import write_bytes
from sft.core.errors import DataError
from sft.core.generation import read_answers
from sft.core.interruption import Interruption
from sft.core.recomputation import use_gradient_checkpointing
from sft.core.text import Conversation, TokenLimits, encode_prompt
from sft.core.tracking import Tracker
from sft.core.world import ALONE, World, check_world
from sft.model import load_tokenizer, torch_device

Gold = Callable[[Sequence[Conversation], Sequence[str]], list[float]]
"""The true utility of answers, where it is known. It is logged and never selects anything."""


@dataclass(frozen=True)
class PPOResult:
    """What PPO leaves behind: policy and critic folders, numbers, and one row of numbers per iteration."""

    checkpoint: Path
    critic: Path
    metrics: dict[str, float]
    steps: int
    iterations: list[HistoryRow]


class PPOInputs(NamedTuple):
    """What PPO starts from: folders of models, and prompts."""

    sft: Path
    """The model that the reference stays, and that the policy starts as unless `start` is given."""
    rewards: Sequence[Path]
    """The stage's own reward model first (the critic starts as it), then further members of the ensemble."""
    prompts: Sequence[Conversation]
    """Training prompts."""
    validation: Sequence[Conversation] = ()
    """Prompts for the looks."""
    judge: Path | None = None
    """A reward model that PPO does not train on, for the looks."""
    start: Path | None = None
    """The model that the policy starts as, of the same tokens; not with `models: shared`."""


def train_ppo(
    config: PPOConfig,
    inputs: PPOInputs,
    *,
    limits: TokenLimits,
    runtime: RuntimeConfig,
    seed: int,
    out_dir: Path,
    tracker: Tracker,
    saving: Saving | None = None,
    gold: Gold | None = None,
    world: World = ALONE,
) -> PPOResult:
    """Train a policy against a reward with a KL penalty to the SFT model.

    Args:
        config: see PPOConfig.
        inputs: models and prompts.
        limits: longest prompt in tokens.
        runtime: device, dtype, threads.
        seed: of sampling, prompt order and minibatches.
        out_dir: afterwards holds `policy/` and `critic/`.
        tracker: where the numbers go.
        saving: where checkpoints lie; a run with the same fingerprint carries on from the newest. None: no checkpoints.
        gold: true utility, logged beside the proxy; selects nothing.
        world: the processes that make this call together, connected (`Peers.together`), with the same arguments but
            for tracker and gold. Rank 0 alone writes; all return the same.

    Raises:
        ConfigError: the settings do not fit the number of processes, or shared models the start.
        DataError: no prompts, a start of other tokens, or a fatal symptom (see `doctor`), such as losses that are no
            numbers.
        Interrupted: a signal came; the last finished iteration was saved.
    """
    if not inputs.prompts:
        raise DataError("there are no training prompts for PPO; give data.prompts_path or more data")
    check_world(world, runtime)
    raise_problems(division_problems(config, runtime, world))
    torch.set_num_threads(runtime.threads)
    torch.manual_seed(seed)
    run = _Run(
        config,
        inputs,
        limits=limits,
        runtime=runtime,
        seed=seed,
        out_dir=out_dir,
        tracker=tracker,
        gold=gold,
        world=world,
    )
    with Interruption() as interruption:
        run.begin(saving)
        while run.state.done < config.iterations and run.iterate():
            saved = run.save_if_due()
            requested = first_given(gather_json(world, interruption.requested))  # also one that came while saving
            if requested is not None:
                if not saved:
                    run.save()
                interruption.requested = requested
                interruption.raise_if_requested(f"iteration {run.state.done}")
    return run.finish()


class _Run:
    """One PPO run in memory."""

    def __init__(
        self,
        config: PPOConfig,
        inputs: PPOInputs,
        *,
        limits: TokenLimits,
        runtime: RuntimeConfig,
        seed: int,
        out_dir: Path,
        tracker: Tracker,
        gold: Gold | None,
        world: World,
    ) -> None:
        self.config, self.inputs, self.runtime, self.seed, self.out_dir = config, inputs, runtime, seed, out_dir
        self.tracker, self.gold, self.world = tracker, gold, world
        self.device = torch_device(runtime)
        self.models = _load_models(config, inputs, runtime=runtime, device=self.device, seed=seed)
        self.division = divide(self.models, world, runtime.strategy)
        tokenizer = self.models.tokenizer
        self.rewards = Rewards.load(
            config,
            inputs.rewards,
            main=self.models.reward_model(inputs.rewards[0], limits.prompt),
            tokenizer=tokenizer,
            device=self.device,
            dtype=runtime.dtype,
            max_prompt_tokens=limits.prompt,
        )
        self.optimisers: Optimisers = make_optimisers(self.models, config)
        self.prompt_ids = [encode_prompt(tokenizer, prompt, max_tokens=limits.prompt) for prompt in inputs.prompts]
        self.settings = RolloutSettings(
            config.response_length, config.temperature, config.micro_batch_tokens, config.generation_batch_size, seed
        )
        self.looks = self._make_looks(limits) if config.eval_steps is not None else None
        self.state: PPOState = fresh_state(config)
        self.store: CheckpointStore | None = None
        self.dumps = out_dir

    def _make_looks(self, limits: TokenLimits) -> Looks:
        assert self.inputs.judge is not None, "looks need a judge"
        prompts = self.inputs.validation[: self.config.eval_prompts]
        return Looks(self.inputs.judge, self.models, prompts, self.settings, limits.prompt)

    def begin(self, saving: Saving | None) -> None:
        """Carry on from the newest checkpoint, or start."""
        tokenizer = self.models.tokenizer
        self._tell(doctor.examine_tokens(pad_id=tokenizer.pad_token_id, eos_id=tokenizer.eos_token_id))
        missing = missing_for_compilation(self.device) if self.config.compile else []
        if missing:
            self.tracker.note(f"ppo.compile: runs without compilation, {' and '.join(missing)} missing; install it")
        if saving is not None:
            self.dumps = saving.folder  # outlives a stage that failed, as its other files do not
            self.store = CheckpointStore(
                saving.folder, fingerprint=saving.fingerprint, device=self.device, allow=saving.allow
            )
            found = self.store.latest()
            for message in self.store.refused:
                self.tracker.note(message)
            if found is not None:
                self.state = restore(self.store.read(found), self.models, self.optimisers)
                self.tracker.note(f"carries on after iteration {self.state.done} of {self.config.iterations}")
        if len(set(gather_json(self.world, self.state.done))) > 1:
            raise DataError("processes found different checkpoints; give all of them the same registry.root")
        if self.looks is not None and not self.state.start_scores:
            with self.division.weights_gathered():
                self.state.start_scores = from_rank_0(self.world, self.looks.scores().tolist())
        self.tracker.start(self.config.iterations, "iteration")
        if self.state.done:
            self.tracker.log(self.state.done, {})

    def iterate(self) -> bool:
        """Make one iteration; return False where the run should stop."""
        config, state, iteration = self.config, self.state, self.state.done
        watch = Stopwatch(self.device)
        rollout = self._roll_out(iteration, watch)
        state.moments = state.moments.updated(rollout.scores_B)
        targets = make_targets(rollout, config, kl_coef=state.kl.coef, moments=state.moments)
        metrics = rollout_metrics(rollout, targets, kl_coef=state.kl.coef)
        metrics |= self._gold(iteration, rollout)
        if state.first_entropy is None:
            state.first_entropy = metrics["objective/entropy"]
        self._examine(rollout, targets, metrics, iteration)
        kl = metrics["objective/kl"]
        state.history.append(history_row(iteration, metrics))
        self._tell(examine_course(state.history))
        self.tracker.histograms(histograms(rollout, targets))
        state.selection = observe_kl(state.selection, iteration, kl, select=config.select, max_kl=config.max_kl)
        if config.select is Selection.KL and state.selection.best_iteration == iteration:
            state.best = keep_weights(self.models)
        if config.max_kl is not None and kl > config.max_kl:
            state.metrics = finite(metrics)
            self.tracker.log(iteration + 1, metrics)
            self.tracker.alert("PPO: KL limit", f"stopped at KL {kl:.1f} nats > ppo.max_kl={config.max_kl}")
            return False
        factor = learning_rate_factor(
            iteration, config.iterations, kind=config.lr_scheduler_type, warmup_iterations=config.warmup_iterations
        )
        self.optimisers.set_learning_rates(config, factor)
        with watch("train"):
            updated = self._update(rollout, targets, iteration)
        self._tell(doctor.examine_weights(finite=all_finite(self.models)))
        state.kl = state.kl.updated(kl, config.batch_size)
        state.first_ratio_deviation = max(state.first_ratio_deviation, updated.first_ratio_deviation)
        state.steps += config.num_ppo_epochs * config.num_mini_batches
        state.done += 1
        metrics |= update_metrics(updated, config, iteration=iteration, factor=factor)
        goes_on = self._look(metrics)
        state.metrics = finite(metrics)
        self.tracker.log(state.done, metrics | self._phases(watch, rollout))
        return goes_on

    def _chosen(self, iteration: int) -> list[int]:
        return prompt_indices(
            iteration, batch_size=self.config.batch_size, count=len(self.inputs.prompts), seed=self.seed
        )

    def _roll_out(self, iteration: int, watch: Stopwatch) -> Rollout:
        chosen = self._chosen(iteration)
        rows = self.world.share(len(chosen))
        with self.division.weights_gathered():
            rollout = roll_out(
                self.models,
                self.rewards,
                [self.inputs.prompts[chosen[row]] for row in rows],
                [self.prompt_ids[chosen[row]] for row in rows],
                self.settings,
                iteration=iteration,
                rows=rows,
                watch=watch,
            )
        return self.division.gather(rollout, len(chosen), pad_id=self.models.tokenizer.pad_token_id)

    def _gold(self, iteration: int, rollout: Rollout) -> dict[str, float]:
        if self.gold is None:
            return {}
        texts = [answer.text for answer in read_answers(self.models.tokenizer, rollout.responses)]
        prompts = [self.inputs.prompts[i] for i in self._chosen(iteration)]
        return {"objective/gold": float(np.mean(self.gold(prompts, texts)))}

    def _examine(self, rollout: Rollout, targets: Targets, metrics: dict[str, float], iteration: int) -> None:
        config = self.config
        assert self.state.first_entropy is not None
        learns = iteration >= config.critic_warmup_iterations
        signs = rollout_signs(
            rollout, metrics, iteration=iteration, policy_learns=learns, first_entropy=self.state.first_entropy
        )
        self._tell(doctor.examine_rollout(signs))
        kl_rewards_BR = shape_rewards(
            torch.zeros_like(targets.scores_B),
            rollout.logprobs_BR,
            rollout.ref_logprobs_BR,
            rollout.responses.mask_BR,
            kl_coef=self.state.kl.coef,
            kl_estimator=config.kl_estimator,
        )
        eos_id = self.models.tokenizer.eos_token_id
        self._tell(
            doctor.examine_placement(
                targets.rewards_BR, kl_rewards_BR, targets.scores_B, rollout.responses, rollout.ended_B, eos_id=eos_id
            )
        )

    def _tell(self, found: Sequence[Symptom]) -> None:
        """Tell new symptoms; raise the fatal ones."""
        told = doctor.tell(self.state.symptoms, found)
        self.state.symptoms = told.counts
        for symptom in told.new:
            if symptom.severity is Severity.WARNING:
                self.tracker.note(str(symptom))
                continue
            fatal = symptom.severity is Severity.FATAL
            self.tracker.alert(f"PPO: {symptom.name}", str(symptom), "ERROR" if fatal else "WARN")
            if fatal:
                raise DataError(f"PPO stopped: {symptom}")

    def _update(self, rollout: Rollout, targets: Targets, iteration: int) -> UpdateStatistics:
        def examine(signs: UpdateSigns, rows: torch.Tensor) -> None:
            try:
                self._tell(doctor.examine_update(signs))
            except DataError as error:
                folder = self._dump(rollout, targets, rows, iteration)
                raise DataError(f"{error}; the minibatch is in {folder}") from None

        return update(
            self.models,
            self.optimisers,
            rollout,
            targets,
            self.config,
            seed=self.seed,
            iteration=iteration,
            examine=examine,
            division=self.division,
        )

    def _dump(self, rollout: Rollout, targets: Targets, rows: torch.Tensor, iteration: int) -> Path:
        """Write the minibatch that must not become a step, for a look at what is wrong with it."""
        path = self.dumps / f"diverged-iteration-{iteration + 1}.safetensors"
        part = rollout.rows(rows)
        tensors = {f"prompts.{name}": value for name, value in part.prompts._asdict().items()}
        tensors |= {f"responses.{name}": value for name, value in part.responses._asdict().items()}
        tensors |= {name: value for name, value in part._asdict().items() if isinstance(value, torch.Tensor)}
        tensors |= {f"targets.{name}": value[rows] for name, value in targets._asdict().items()}
        if self.world.rank == 0:
            write_bytes(path, safetensors_bytes({name: value.contiguous().cpu() for name, value in tensors.items()}))
        return path

    def _look(self, metrics: dict[str, float]) -> bool:
        """Look at the win rate where one is due; return False where patience has ended."""
        config, state = self.config, self.state
        due = config.eval_steps is not None and state.done % config.eval_steps == 0
        if self.looks is None or not due:
            return True
        with self.division.weights_gathered():
            look = Look(*from_rank_0(self.world, self.looks.look(state.start_scores, state.done)))
        metrics |= {"eval/win_rate": look.win_rate, "eval/win_rate_low": look.low, "eval/win_rate_high": look.high}
        self._tell(examine_look(state.history, look, state.selection.best_win_rate))
        state.selection = observe_look(state.selection, look, select=config.select)
        if config.select is Selection.WIN_RATE and state.selection.best_iteration == state.done:
            state.best = keep_weights(self.models)
        if should_stop(state.selection, config.early_stopping_patience):
            self.tracker.note(
                f"stopped after iteration {state.done}: no better win rate in {config.early_stopping_patience} looks "
                "(ppo.early_stopping_patience)"
            )
            return False
        return True

    def _phases(self, watch: Stopwatch, rollout: Rollout) -> dict[str, float]:
        lengths_B = rollout.lengths()
        answer_tokens = int(rollout.responses.mask_BR.sum())
        size = sum(p.numel() for p in self.models.policy_parameters().values())
        flops = model_flops(
            parameters=size,
            tokens=int(lengths_B.sum()),
            answer_tokens=answer_tokens,
            passes=self.config.num_ppo_epochs,
            one_pass=self.models.one_pass,
        )
        return phase_metrics(
            watch,
            answers=len(lengths_B),
            answer_tokens=answer_tokens,
            tokens=int(lengths_B.sum()),
            widest=int(lengths_B.max()),
            flops=flops,
        )

    def save_if_due(self) -> bool:
        """Write a checkpoint every `save_steps` iterations and after the last one; return whether it was due."""
        done = self.state.done
        due = done % self.config.save_steps == 0 or done == self.config.iterations
        if due:
            self.save()
        return due

    def save(self) -> None:
        """Write a checkpoint, if a place for them was given."""
        if self.store is not None:
            save_checkpoint(self.store, self.models, self.optimisers, self.state, world=self.world)

    def finish(self) -> PPOResult:
        """Put the selected weights in place and write policy and critic."""
        state, config = self.state, self.config
        if state.best is not None:
            chosen = state.selection
            self.tracker.note(
                f"kept the policy after iteration {chosen.best_iteration} ({config.select}: {chosen.best_value:.3g})"
            )
        self._write_models()
        metrics = state.metrics | {
            "first_ratio_deviation": state.first_ratio_deviation,
            "iterations": len(state.history),
        }
        return PPOResult(self.out_dir / "policy", self.out_dir / "critic", metrics, state.steps, state.history)

    def _write_models(self) -> None:
        """Write the selected or last weights; sharded ones through models that are whole."""
        models = self.models
        weights = keep_weights(models) if self.state.best is None and self.division.shards else self.state.best
        if self.world.rank == 0:
            if self.division.shards:
                cpu = torch.device("cpu")
                models = _load_models(self.config, self.inputs, runtime=self.runtime, device=cpu, seed=self.seed)
            if weights is not None:
                put_weights(models, weights)
            models.save_policy(self.out_dir / "policy")
            models.save_critic(self.out_dir / "critic")
        wait_for_all(self.world)


def _load_models(
    config: PPOConfig, inputs: PPOInputs, *, runtime: RuntimeConfig, device: torch.device, seed: int
) -> PPOModels:
    if config.models is ModelSharing.SHARED:
        raise_problems(start_problems(config.models) if inputs.start is not None else [])
        from rlhf.ppo.adapters import SharedModels  # peft takes 100 MB

        return SharedModels.load(
            inputs.sft, inputs.rewards[0], config=config, device=device, dtype=runtime.dtype, seed=seed
        )
    tokenizer = load_tokenizer(inputs.sft)
    if inputs.start is not None and not same_tokens(tokenizer, load_tokenizer(inputs.start)):
        raise DataError(
            f"{inputs.start} has other tokens than the reference {inputs.sft}, so no KL is defined between them; "
            "start from a policy that was trained from this SFT model"
        )
    critic = inputs.rewards[0] if same_tokens(tokenizer, load_tokenizer(inputs.rewards[0])) else None
    models = SeparateModels.load(inputs.sft, critic, device=device, dtype=runtime.dtype, start=inputs.start)
    if config.gradient_checkpointing:
        for model in (models.policy, models.critic):
            use_gradient_checkpointing(model)
    return models.compiled() if config.compile and not missing_for_compilation(device) else models
