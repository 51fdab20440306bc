"""Canaries over every output of a whole run: secrets nowhere, texts of the data not in what W&B gets."""

import json
import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from commands import Done, rlhf
from micro import MICRO

from rlhf.simulation import make_requests
from rlhf.sources import write_simulated_labels

KEY = "c4a9" * 10
"""A key of W&B has 40 signs."""
SECRETS = {"WANDB_API_KEY": KEY, "HF_TOKEN": "hf_C4n4ryToken", "PGPASSWORD": "C4n4ryDatabase", "MY_SECRET": "C4n4ryOwn"}
PROMPT, ANSWER, PERSON = "c4n4ryprompt", "c4n4ryanswer", "c4n4ry.person@example.org"
"""Of the data: a word of every prompt, one of every answer, an annotator."""


def hits(folder: Path, *canaries: str) -> list[tuple[str, str]]:
    """Return every file below a folder that holds a canary, in its bytes or in its name."""
    files = [path for path in folder.rglob("*") if path.is_file() and not path.is_symlink()]
    content = [(path, path.read_bytes() + str(path.relative_to(folder)).encode()) for path in files]
    return [(str(path), canary) for path, found in content for canary in canaries if canary.encode() in found]


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("canaries")
    made = folder / "made.jsonl"
    from rlhf.config import SimulationConfig

    write_simulated_labels(made, make_requests(120, seed=0), SimulationConfig(prompts=120, pairs=200), seed=0)
    rows = [json.loads(line) for line in made.read_text().splitlines()]
    made.unlink()
    for row in rows:
        row["prompt"][0]["content"] += f" {PROMPT}"
        row |= {side: f"{row[side]} {ANSWER}" for side in ("response_a", "response_b")}
        row["annotator"] = PERSON
    (folder / "labels.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return folder


@pytest.fixture(scope="module")
def environment(place: Path) -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        for name, value in SECRETS.items():
            patch.setenv(name, value)
        patch.setenv("HOME", str(place / "home"))
        (place / "home").mkdir()
        yield


@pytest.fixture(scope="module")
def finished(place: Path, environment: None) -> Done:
    """A whole run of these labels, with W&B offline."""
    words = [word for word in MICRO if not word.startswith("wandb")]
    words += ["wandb=offline", "data=files", "data.path=labels.jsonl", "reward.judge_fraction=0.3", "bias=gender"]
    done = rlhf("run", *words, "registry.root=registry", "hydra.run.dir=run", cwd=place)
    assert done.returncode == 0, done.stderr
    return done


def test_no_secret_reaches_any_output(place: Path, finished: Done) -> None:
    looked_at = {path.name for path in place.rglob("*")}
    assert {"hydra.yaml", "overrides.yaml", "rlhf.log", "run.json", "wandb.json", "metrics.jsonl"} <= looked_at
    assert {"registry.db", "report.html", "debug.log", "debug-internal.log"} <= looked_at
    assert len(list(place.glob("run/wandb/offline-run-*/*.wandb"))) >= 8
    assert hits(place, *SECRETS.values()) == []


def test_no_text_of_the_data_is_among_what_wandb_gets(place: Path, finished: Done) -> None:
    texts = (PROMPT, ANSWER, PERSON)
    assert hits(place / "run" / "wandb", *texts) == []
    assert not any(
        text in (place / "run" / name).read_text() for text in texts for name in ("wandb.json", "metrics.jsonl")
    )
    assert {canary for _, canary in hits(place / "registry", *texts)} == set(texts)  # they were there to be found
    for said in (finished.stdout, finished.stderr):
        assert not any(text in said for text in texts)


@pytest.mark.parametrize(
    "word",
    [
        "registry.url=postgresql://rlhf:C4n4ryTyped@db.example/registry",
        "labels.database_url=postgresql://rlhf:C4n4ryTyped@db.example/labels",
        "registry.url='postgresql://db.example/registry?password=C4n4ryTyped'",
        "+hydra.job.env_set.TOKEN=C4n4ryTyped",
        "wandb.project=${oc.env:MY_SECRET}",
        "wandb.api_key=C4n4ryTyped",
        "+hub.token=C4n4ryTyped",
    ],
)
def test_a_secret_on_the_command_line_is_refused_and_not_repeated(place: Path, environment: None, word: str) -> None:
    done = rlhf("run", "experiment=quickstart", word, "hydra.run.dir=refused", cwd=place)
    assert done.returncode == 2
    assert "C4n4ry" not in done.stdout + done.stderr
    assert not (place / "refused").exists()
    assert os.environ["MY_SECRET"] == SECRETS["MY_SECRET"]
