from pathlib import Path

import pytest

from sft.core.redaction import REDACTED, looks_secret, redact, redact_text

CANARY = "c4n4ry5ecret"


@pytest.mark.parametrize(
    "key",
    [
        "password",
        "hub.token",
        "HF_TOKEN",
        "api_key",
        "wandb.api-key",
        "client_secret",
        "clientSecret",
        "hub.accessToken",
        "PGPASSWORD",
        "sslpassword",
        "passphrase",
        "headers.Authorization",
    ],
)
def test_secret_keys(key: str):
    assert looks_secret(key)


@pytest.mark.parametrize(
    "key",
    [
        "max_tokens",
        "pad_token",
        "model.pad_token",
        "eos_token_id",
        "tokenizer",
        "max_prompt_tokens",
        "seed",
        "padToken",
        "pass",
        "author",
    ],
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


@pytest.mark.parametrize(
    "text",
    [
        f"postgresql://ann:a/{CANARY}@host/registry",  # SQLAlchemy takes such a password
        f"cannot reach https://ann:{CANARY}@host:5432/x: timed out",
        f"https://{CANARY}@host/x",
        f"https://host/x#access_token={CANARY}&a=1",
        f"https://host/x?a=1;token={CANARY}",
        f"https://host/x?passwd={CANARY}",
        f"https://host/x?X-Amz-Credential={CANARY}",
        f"host=db password={CANARY} dbname=x",
        f"DSN: host=db password='{CANARY} {CANARY}' dbname=x",
        f"export WANDB_API_KEY={CANARY}; rlhf run",
        f"rlhf run --token={CANARY}",
        f"401 for Authorization: Bearer {CANARY}",
        f"hub={{token: {CANARY}, name: x}}",
        f"{{'api_key': '{CANARY}', 'seed': 1}}",
        f'[{{"a": 1, "HF_TOKEN": "{CANARY}"}}]',
    ],
)
def test_a_secret_inside_a_text_is_found(text: str):
    assert CANARY not in redact_text(text)
    assert REDACTED in redact_text(text)


@pytest.mark.parametrize(
    "text",
    [
        "model.pad_token=<pad>",
        "the pad token: 5, and max_tokens=7",
        "ppo.kl_coef=0.1,seed=1",
        "http://localhost:8080/x?page=2&key_word=a",
        "unknown token: '<|im_end|>'; set tokenizer.eos_token",
        "https://host/a?b=1, then mail ann@example.org",
        "see //host:80/x",
    ],
)
def test_other_texts_stay_as_they_are(text: str):
    assert redact_text(text) == text
