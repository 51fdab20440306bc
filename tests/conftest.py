"""What all tests share, made once a session: tiny models (random weights, no training, no network), PostgreSQL.
Heavy libraries are imported inside the fixtures, so that tests of settings and texts stay fast.
"""

import gc
import signal
from collections.abc import Iterator
from itertools import count
from pathlib import Path

import postgres
import pytest

from sft.config import Device, ModelConfig, RuntimeConfig
from sft.core.text import TokenLimits

_NUMBERS = count(1)
CPU = RuntimeConfig(device=Device.CPU, threads=1)
LIMITS = TokenLimits(prompt=32, answer=48)
CALIBRATION = (0.3, 1.7)
"""Offset and temperature of the shared reward model."""


def pytest_collection_finish() -> None:
    """Let the garbage collector leave out the imported libraries: the trainers ask for whole collections."""
    gc.collect()
    gc.freeze()


@pytest.fixture(scope="session", autouse=True)
def ctrl_c_is_heard() -> None:
    """Listen to SIGINT as in a terminal, in children too: a job in the background begins with it ignored."""
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[str]:
    """Start a PostgreSQL server, or skip where there is none."""
    reason = postgres.missing()
    if reason is not None:
        pytest.skip(reason)
    with postgres.running() as url:
        yield url


@pytest.fixture
def postgresql_url(postgres_server: str) -> Iterator[str]:
    """Return the URL of an empty database."""
    with postgres.new_database(postgres_server, f"test_{next(_NUMBERS)}") as url:
        yield url


@pytest.fixture(scope="session")
def runtime() -> RuntimeConfig:
    """Return one CPU thread in float32: the same bits in every run."""
    return CPU


@pytest.fixture(scope="session")
def limits() -> TokenLimits:
    """Return token limits that the simulated texts fit in."""
    return LIMITS


@pytest.fixture(scope="session")
def requests():
    """Return 60 requests of the simulated world."""
    from rlhf.simulation import make_requests

    return make_requests(60, seed=0)


@pytest.fixture(scope="session")
def base_folder(tmp_path_factory: pytest.TempPathFactory, requests) -> Path:
    """Return a small Llama (width 32, 2 layers, 400 tokens) as `build_tiny` writes it."""
    from rlhf.simulation import make_demonstrations
    from sft.model import build_tiny

    config = ModelConfig(
        vocab_size=400,
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=2,
        max_position_embeddings=128,
    )
    texts = [text for e in make_demonstrations(requests, 200, seed=0) for text in (e.prompt[0].content, e.answer)]
    folder = tmp_path_factory.mktemp("models") / "base"
    build_tiny(config, texts, seed=0, out_dir=folder)
    return folder


@pytest.fixture(scope="session")
def sft_folder(base_folder: Path, requests) -> Path:
    """Return the base model with livelier weights, in place of a trained one.

    Weights five times as large make attention matter, so that a wrong mask or position shows in the fourth digit. The
    EOS is moved towards the usual hidden state, so that it is about one token in ten.
    """
    import torch

    from sft.config import Dtype
    from sft.core.text import encode_prompt
    from sft.model import load_causal_lm, load_tokenizer

    model = load_causal_lm(base_folder, device=torch.device("cpu"), dtype=Dtype.FLOAT32)
    tokenizer = load_tokenizer(base_folder)
    with torch.no_grad():
        for weight in model.parameters():
            if weight.dim() == 2:
                weight.mul_(5)
        embeddings = model.get_input_embeddings().weight
        embeddings[:, 0] += 0.5
        ids = torch.tensor([encode_prompt(tokenizer, request)[-6:] for request in requests])
        usual = model.base_model(input_ids=ids).last_hidden_state.mean(dim=(0, 1))
        embeddings[tokenizer.eos_token_id] += 4 * usual / usual.square().sum()
    folder = base_folder.with_name("sft")
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def reward_folder(sft_folder: Path) -> Path:
    """Return the SFT model with a fresh head and a calibration, in place of a trained reward model."""
    import torch

    from reward.calibration import Calibration
    from reward.model import new_scorer
    from sft.model import load_tokenizer

    tokenizer = load_tokenizer(sft_folder)
    model = new_scorer(sft_folder, seed=1, device=torch.device("cpu"))
    model.config.pad_token_id = tokenizer.pad_token_id
    folder = sft_folder.with_name("reward")
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    Calibration(*CALIBRATION).save(folder)
    return folder


@pytest.fixture(scope="session")
def tokenizer(sft_folder: Path):
    """Return the tokenizer of the shared models."""
    from sft.model import load_tokenizer

    return load_tokenizer(sft_folder)


@pytest.fixture(scope="session")
def policy(sft_folder: Path):
    """Return the shared language model, loaded once: do not train it."""
    import torch

    from sft.config import Dtype
    from sft.model import load_causal_lm

    return load_causal_lm(sft_folder, device=torch.device("cpu"), dtype=Dtype.FLOAT32).requires_grad_(False)


@pytest.fixture(scope="session")
def reward_model(reward_folder: Path):
    """Return the shared reward model, loaded once: do not train it."""
    import torch

    from reward.model import RewardModel
    from sft.config import Dtype

    return RewardModel.load(
        reward_folder, device=torch.device("cpu"), dtype=Dtype.FLOAT32, max_prompt_tokens=LIMITS.prompt
    )


@pytest.fixture(scope="session")
def absolute_models():
    """Return a language model and a scorer of GPT-2's kind, whose learned positions show a wrong position id.

    Llama's rotary positions are relative: it does not see a shift of all positions by the padding.
    """
    import torch
    from transformers import GPT2Config, GPT2ForSequenceClassification, GPT2LMHeadModel

    from sft.core.packing import use_packed_attention

    torch.manual_seed(0)
    config = GPT2Config(
        vocab_size=400,
        n_embd=16,
        n_layer=1,
        n_head=2,
        n_positions=128,
        num_labels=1,
        initializer_range=0.3,
        bos_token_id=None,
        eos_token_id=1,
        pad_token_id=0,
    )
    models = GPT2LMHeadModel(config), GPT2ForSequenceClassification(config)
    return tuple(use_packed_attention(model.eval().requires_grad_(False)) for model in models)
