"""Crash safety of SFT and reward training in figures: kills, signals, damaged files, power loss, and what it costs.

Uses the harness of the tests, needs no network and no other run. From the project's folder:

    OMP_NUM_THREADS=1 PYTHONPATH=tests python experiments/crash_safety/measure.py --kills 50 --signals 100 --flips 200

Children are forked from this process, which imports once and never trains until the costs are measured, in the end.
"""

import argparse
import json
import logging
import random
import shutil
import signal
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import small_training as small
from kills import FINGERPRINT, Job, Moment, Undisturbed, attempt, differences, kill_many, undisturbed
from power_loss import outcomes, record

from rlhf.simulation import make_demonstrations, make_requests
from sft.checkpoints import LIBRARIES, Checkpoints
from sft.config import Device, ModelConfig, RuntimeConfig, SFTConfig
from sft.core.checkpoint import CheckpointStore, Saving, environment
from sft.core.durable import write_json
from sft.core.statistics import proportion
from sft.core.text import TokenLimits
from sft.core.tracking import NullTracker
from sft.model import build_tiny
from sft.train import train_sft
from sft.trainer import Resumable

LIMITS = TokenLimits(prompt=32, answer=48)
RUNTIME = RuntimeConfig(device=Device.CPU, threads=1)
MODEL = ModelConfig(
    vocab_size=400,
    hidden_size=32,
    intermediate_size=64,
    num_hidden_layers=2,
    num_attention_heads=2,
    max_position_embeddings=128,
)
EVERY_CALL = ("stepping", "looking", "logging", "moving", "removing", "finishing", "writing tensors")
EVERY_THIRD = "syncing"
SEEDS = (0, 1, 2)
PARTS = ("sft", "reward", "calls", "signals", "damage", "power", "cost")


def shown(equal: int, n: int) -> dict[str, object]:
    """Return a share with n and its interval (Wilson, 95 %)."""
    return proportion([1.0] * equal + [0.0] * (n - equal)).as_dict()


def make_base(folder: Path, model: ModelConfig) -> Path:
    """Write a small language model with random weights."""
    examples = make_demonstrations(make_requests(60, seed=0), 200, seed=0)
    texts = [text for e in examples for text in (e.prompt[0].content, e.answer)]
    build_tiny(model, texts, seed=0, out_dir=folder)
    return folder


def random_kills(reference: Undisturbed, folder: Path, kills: int) -> dict[str, object]:
    """Kill runs at random moments, a third of the kills with each seed."""
    found = [kill_many(reference, folder / str(s), kills=-(-kills // len(SEEDS)), seed=s) for s in SEEDS]
    different = [told for each in found for told in each.different]
    runs = sum(each.runs for each in found)
    return {
        "seeds": list(SEEDS),
        "kills": sum(each.kills for each in found),
        "kills_that_left_a_half_written_checkpoint": sum(each.in_a_save for each in found),
        "runs_bit_identical": shown(runs - len(different), runs),
        "different": different,
        "undisturbed_s": reference.seconds,
    }


def named_kills(reference: Undisturbed, folder: Path) -> dict[str, object]:
    """Kill before each call of what a run does, one kill a run."""
    told: dict[str, object] = {}
    for place in (*EVERY_CALL, EVERY_THIRD):
        different, call, runs = [], 1, 0
        while True:
            job = Job(reference.job.train, folder / f"{place}-{call}")
            if attempt(job, moment=Moment(place, call)) == 0:
                break
            assert attempt(job) == 0, job.lines("error")
            runs += 1
            if differences(job, reference.job):
                different.append(call)
            shutil.rmtree(job.folder)
            call += 3 if place == EVERY_THIRD else 1
        told[place] = {"runs_bit_identical": shown(runs - len(different), runs), "different": different}
    return told


def signals(reference: Undisturbed, folder: Path, count: int) -> dict[str, object]:
    """Send a signal once before a random call of training; count exit codes, repeated steps and equal runs."""
    chance = random.Random(0)
    codes: dict[str, int] = {}
    equal = landed = repeated = 0
    numbers = (signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2, signal.SIGINT)
    steps = small.SFT_STEPS
    while landed < count:
        number = numbers[landed % len(numbers)]
        place, most = chance.choice((("stepping", steps), ("looking", 3), ("logging", steps), ("syncing", 24)))
        job = Job(reference.job.train, folder / str(landed))
        code = attempt(job, moment=Moment(place, chance.randint(1, most), number))
        codes[str(code)] = codes.get(str(code), 0) + 1
        landed += 1
        assert attempt(job) == 0, job.lines("error")
        logged = [int(line.split()[0]) for line in job.lines("ends")]
        repeated += len(logged) - len(set(logged))
        equal += differences(job, reference.job) == []
        shutil.rmtree(job.folder)
    return {
        "signals": landed,
        "exit_codes": codes,
        "steps_repeated": repeated,
        "runs_bit_identical": shown(equal, landed),
    }


def flip(path: Path, bit: int) -> None:
    """Turn one bit of a file."""
    content = bytearray(path.read_bytes())
    content[bit // 8] ^= 1 << bit % 8
    path.write_bytes(content)


def damage(reference: Undisturbed, folder: Path, flips: int) -> dict[str, object]:
    """Flip single bits of each file of the newest checkpoint, and delete each; count what is refused."""
    chance = random.Random(0)
    shutil.copytree(reference.job.checkpoints, folder)
    newest = folder / f"step-{reference.job.steps_saved()[-1]:08d}"
    before = reference.job.steps_saved()[-2]
    told: dict[str, object] = {}
    for path in sorted(newest.iterdir()):
        intact = path.read_bytes()

        def refused(act: Callable[[], None], path: Path = path, intact: bytes = intact) -> bool:
            act()
            store = CheckpointStore(folder, fingerprint=FINGERPRINT, libraries=LIBRARIES)
            found = store.latest()
            named = len(store.refused) == 1 and f"{newest}/" in store.refused[0]  # its file, or one that it speaks of
            path.write_bytes(intact)
            return found is not None and found.step == before and named

        bits = [chance.randrange(8 * len(intact)) for _ in range(flips)]
        hits = sum(refused(lambda bit=bit, path=path: flip(path, bit)) for bit in bits)
        told[path.name] = {"flips_refused": shown(hits, flips), "missing_refused": refused(path.unlink)}
    return told


def power_loss(folder: Path) -> dict[str, object]:
    """Let the power fail at every moment of a save, with many ways to lose what was not synced."""
    images = record(folder / "store")
    found = outcomes(images, folder / "disks")
    return {"moments": len(images), "disks": len(found), "newest_whole": {str(s): found.count(s) for s in set(found)}}


def cost(folder: Path) -> dict[str, object]:
    """Return what a checkpoint of the quickstart's model costs: bytes and seconds, beside the seconds of a step."""
    base = make_base(folder / "base", ModelConfig())
    requests = make_requests(300, seed=1)
    examples = make_demonstrations(requests, 330, seed=1)
    saves: list[float] = []
    steps: list[float] = []
    save, step = Checkpoints.save, Resumable.training_step

    def timed_save(*args: object) -> None:
        started = time.perf_counter()
        save(*args)  # type: ignore[arg-type]
        saves.append(time.perf_counter() - started)

    def timed_step(*args: object) -> object:
        started = time.perf_counter()
        loss = step(*args)  # type: ignore[arg-type]
        steps.append(time.perf_counter() - started)
        return loss

    Checkpoints.save, Resumable.training_step = timed_save, timed_step  # type: ignore[method-assign, assignment]
    config = SFTConfig(num_train_epochs=1.0, save_steps=1)
    train_sft(
        config,
        base=base,
        pad_token=None,
        train=examples[:300],
        validation=examples[300:],
        limits=LIMITS,
        runtime=RUNTIME,
        seed=0,
        out_dir=folder / "model",
        tracker=NullTracker(),
        saving=Saving(folder / "checkpoints", FINGERPRINT),
    )
    newest = max((folder / "checkpoints").glob("step-*"))
    return {
        "n": len(saves),
        "save_s": {"median": statistics.median(saves), "least": min(saves), "most": max(saves)},
        "step_s": {"median": statistics.median(steps), "least": min(steps), "most": max(steps)},
        "checkpoint_bytes": sum(path.stat().st_size for path in newest.iterdir()),
        "weights_bytes": (newest / "model.safetensors").stat().st_size,
    }


def main() -> None:
    """Measure what is asked for, and put it into results.json, beside what stands there."""
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--kills", type=int, default=50, help="per variant")
    options.add_argument("--signals", type=int, default=100)
    options.add_argument("--flips", type=int, default=200, help="per file")
    options.add_argument("--parts", nargs="+", choices=PARTS, default=PARTS)
    options.add_argument("--output", type=Path, default=Path(__file__).with_name("results.json"))
    given = options.parse_args()
    logging.disable(logging.WARNING)  # refusals are counted
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a job in the background begins with it ignored
    with tempfile.TemporaryDirectory(prefix="crash-safety-") as name:
        folder = Path(name)
        base = small.with_dropout(make_base(folder / "plain", MODEL), folder / "base")
        for part in given.parts:
            results = json.loads(given.output.read_text()) if given.output.exists() else {}
            results |= {"environment": environment(libraries=LIBRARIES)} | measure(part, base, folder / part, given)
            write_json(given.output, results)
            print(part, "done", flush=True)


def measure(part: str, base: Path, folder: Path, given: argparse.Namespace) -> dict[str, object]:
    """Return the figures of one part."""
    if part == "power":
        return {"power loss": power_loss(folder)}
    if part == "cost":
        return {"cost: the quickstart's model": cost(folder)}
    trains = {
        "SFT": small.sft(base, LIMITS, RUNTIME),
        "SFT that stops early": small.sft(base, LIMITS, RUNTIME, small.SFT_EARLY, small.WRONG),
        "reward model": small.reward(base, LIMITS, RUNTIME),
        "reward model, adapters": small.reward(base, LIMITS, RUNTIME, small.REWARD_ADAPTERS, small.TURNED),
    }
    names = {"sft": ("SFT", "SFT that stops early"), "reward": ("reward model", "reward model, adapters")}
    chosen = names.get(part, ("SFT that stops early",) if part == "damage" else ("SFT",))
    references = {name: undisturbed(trains[name], folder / f"undisturbed {name}") for name in chosen}
    if part in names:
        kills = {name: random_kills(each, folder / name, given.kills) for name, each in references.items()}
        return {f"random kills: {name}": found for name, found in kills.items()}
    (reference,) = references.values()
    if part == "calls":
        return {"kills before each call: SFT": named_kills(reference, folder / "named")}
    if part == "signals":
        return {"signals: SFT": signals(reference, folder / "signals", given.signals)}
    return {"damage: SFT that stops early": damage(reference, folder / "damaged", given.flips)}


if __name__ == "__main__":
    main()
