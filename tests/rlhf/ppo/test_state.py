import dataclasses
import json
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from rlhf.config import PPOConfig
from rlhf.ppo.kl import KLController
from rlhf.ppo.models import SeparateModels
from rlhf.ppo.scores import RunningMoments
from rlhf.ppo.selection import SelectionState
from rlhf.ppo.state import PPOState, fresh_state, keep_weights, put_weights, restore, save_checkpoint
from rlhf.ppo.update import Optimisers, make_optimisers
from sft.config import Dtype
from sft.core.checkpoint import CheckpointStore, LoadedCheckpoint
from sft.core.errors import DataError
from sft.core.world import ALONE

CONFIG = PPOConfig()
number = st.floats(allow_nan=False, allow_infinity=False)
count = st.integers(0, 10**9)
perhaps = st.none() | number
name = st.text(max_size=8)


@given(
    st.builds(
        PPOState,
        done=count,
        kl=st.builds(KLController, coef=number, target_nats_per_sequence=perhaps, horizon=count),
        moments=st.builds(RunningMoments, count, number, number),
        selection=st.builds(SelectionState, st.none() | count, perhaps, perhaps, count),
        symptoms=st.dictionaries(name, count, max_size=3),
        first_entropy=perhaps,
        first_ratio_deviation=number,
        steps=count,
        metrics=st.dictionaries(name, number, max_size=3),
        history=st.lists(st.dictionaries(name, perhaps, max_size=3), max_size=3),
        start_scores=st.lists(number, max_size=3),
        best=st.none(),
    )
)
def test_the_state_comes_back_from_json_exactly(state: PPOState):
    stored = json.loads(json.dumps(state.as_json(), allow_nan=False))
    assert stored == state.as_json()
    assert PPOState.from_json(stored, None) == state


def test_json_holds_every_field_but_the_weights():
    fields = {field.name for field in dataclasses.fields(PPOState)}
    assert fields - fresh_state(CONFIG).as_json().keys() == {"best"}


def test_the_first_state_has_the_configured_kl_controller():
    config = PPOConfig(kl_coef=0.3, kl_target_nats_per_sequence=4.0, kl_horizon=500)
    assert fresh_state(config) == PPOState(0, KLController(0.3, 4.0, 500))


@pytest.fixture
def load(sft_folder: Path, reward_folder: Path):
    def loaded() -> SeparateModels:
        return SeparateModels.load(sft_folder, reward_folder, device=torch.device("cpu"), dtype=Dtype.FLOAT32)

    return loaded


def step(models: SeparateModels, optimisers: Optimisers, seed: int) -> None:
    """Take one optimiser step of both, on made-up gradients."""
    generator = torch.Generator().manual_seed(seed)
    for parameters in (models.policy_parameters(), models.critic_parameters()):
        for value in parameters.values():
            value.grad = torch.randn(value.shape, generator=generator)
    optimisers.policy.step()
    optimisers.critic.step()


def same(first: SeparateModels, second: SeparateModels) -> bool:
    a, b = keep_weights(first), keep_weights(second)
    return all(torch.equal(a[group][key], b[group][key]) for group in a for key in a[group])


def test_kept_weights_are_copies_that_can_be_put_back(load):
    models, untouched = load(), load()
    kept = keep_weights(models)
    step(models, make_optimisers(models, CONFIG), 0)
    assert not same(models, untouched)
    put_weights(models, kept)
    assert same(models, untouched)
    assert kept.keys() == {"policy", "critic"}


def test_a_restored_run_takes_the_same_next_step(load, tmp_path):
    """Different moments and step counts of both optimisers would each give other weights."""
    models = load()
    optimisers = make_optimisers(models, CONFIG)
    for seed in range(3):
        step(models, optimisers, seed)
    state = PPOState(
        done=3,
        kl=KLController(0.1, 2.0, 50),
        moments=RunningMoments(8, 0.5, 2.0),
        selection=SelectionState(1, 0.6, 0.7, 2),
        symptoms={"first_ratio": 2},
        first_entropy=0.1,
        first_ratio_deviation=0.2,
        steps=12,
        metrics={"kl": 0.3},
        history=[{"kl": 0.3, "gold": None}],
        start_scores=[0.4],
        best=keep_weights(load()),
    )
    store = CheckpointStore(tmp_path, fingerprint="f")
    save_checkpoint(store, models, optimisers, state, world=ALONE)
    found = store.latest()
    assert found is not None

    others = load()
    other_optimisers = make_optimisers(others, CONFIG)
    back = restore(store.read(found), others, other_optimisers)
    assert dataclasses.replace(back, best=None) == dataclasses.replace(state, best=None)
    assert back.best is not None
    put_weights(fresh := load(), back.best)
    assert same(fresh, load())
    assert same(others, models)
    step(models, optimisers, 9)
    step(others, other_optimisers, 9)
    assert same(others, models)


def test_without_selected_weights_none_come_back(load, tmp_path):
    models = load()
    optimisers = make_optimisers(models, CONFIG)
    store = CheckpointStore(tmp_path, fingerprint="f")
    save_checkpoint(store, models, optimisers, fresh_state(CONFIG), world=ALONE)
    found = store.latest()
    assert found is not None
    assert restore(store.read(found), models, optimisers) == fresh_state(CONFIG)


HEAD = "score.weight"


@pytest.mark.parametrize(
    "change",
    [
        lambda weights: weights.pop(HEAD),
        lambda weights: weights.update(other=torch.zeros(1)),
        lambda weights: weights.update({HEAD: torch.zeros(1)}),
        lambda weights: weights.update({HEAD: weights[HEAD].double()}),
    ],
    ids=["missing", "unknown", "other shape", "other dtype"],
)
def test_weights_of_other_models_are_refused_before_any_is_copied(load, change):
    models, untouched = load(), load()
    step(models, make_optimisers(models, CONFIG), 0)
    weights = keep_weights(models)
    change(weights["critic"])
    loaded = LoadedCheckpoint(1, weights, {})
    with pytest.raises(DataError, match=r"the critic of the checkpoint is not .* differs in (score\.weight|other); "):
        restore(loaded, untouched, make_optimisers(untouched, CONFIG))
    assert same(untouched, load())
