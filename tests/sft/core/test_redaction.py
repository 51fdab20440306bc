from pathlib import Path

import pytest

from sft.core.redaction import REDACTED, looks_secret, redact, redact_text

CANARY = "c4n4ry5ecret"


@pytest.mark.parametrize("key", ["password", "hub.token", "HF_TOKEN", "api_key", "wandb.api-key", "client_secret"])
def test_secret_keys(key: str):
    assert looks_secret(key)


@pytest.mark.parametrize(
    "key", ["max_tokens", "pad_token", "model.pad_token", "eos_token_id", "tokenizer", "max_prompt_tokens", "seed"]
)
def test_harmless_keys(key: str):
    assert not looks_secret(key)


def test_redaction_reaches_nested_values_urls_and_overrides():
    config = {
        "seed": 0,
        "model": {"pad_token": "<pad>", "token": CANARY, "max_tokens": 5},
        "registry": {"url": f"postgresql://rlhf:{CANARY}@db.example/registry"},
        "overrides": [
            f"+hub.token={CANARY}",
            "ppo.kl_coef=0.1",
            ("nested", f"https://x.example/?api_key={CANARY}&a=1"),
        ],
        "password": None,
        "path": Path("/data/x"),
    }
    assert redact(config) == {
        "seed": 0,
        "model": {"pad_token": "<pad>", "token": REDACTED, "max_tokens": 5},
        "registry": {"url": f"postgresql://{REDACTED}@db.example/registry"},
        "overrides": [
            f"+hub.token={REDACTED}",
            "ppo.kl_coef=0.1",
            ["nested", f"https://x.example/?api_key={REDACTED}&a=1"],
        ],
        "password": None,
        "path": "/data/x",
    }
    assert redact_text("https://hub.example/a@b") == "https://hub.example/a@b"  # an @ in a path is no login
