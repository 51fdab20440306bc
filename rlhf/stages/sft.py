"""Stage `sft`: base model and demonstrations in, fine-tuned model out."""

from pathlib import Path
from typing import NamedTuple

from rlhf import schema
from rlhf.inputs import tokenizer_problems
from rlhf.model_folders import folder_problems
from rlhf.registry import CHECKPOINTS, Artifact
from rlhf.run import Built, Done, Run, digest_of
from sft.config import ModelKind
from sft.core.durable import folder_digest, json_digest, write_json
from sft.core.errors import ConfigError, DataError
from sft.core.tracking import Tracker

CHANGES_NOTHING = ("save_steps",)
"""Settings that leave the model's bits as they are."""
MODEL = "model"
"""Where in a workspace a model is made that is registered, beside the checkpoints, which are not."""


class Base(NamedTuple):
    """The model that SFT starts from."""

    path: Path
    artifact: Artifact


def run_base(run: Run) -> Base:
    """Build the tiny base model, or find the pretrained one and register where it came from."""
    model = run.config.model
    train = run.sources.demonstrations.train
    parents, labels = _labels(run)
    if model.kind is ModelKind.TINY:
        texts = [text for example in train for text in (*(m.content for m in example.prompt), example.answer)]
        settings = schema.to_tree(model)

        def build(folder: Path, tracker: Tracker) -> Built:
            from sft.model import build_tiny

            build_tiny(model, texts, seed=run.config.seed, out_dir=folder)
            return Built(folder, {"metrics": {}}, 0)

        fingerprint = run.fingerprint("base", settings, {"texts": json_digest(texts)} | labels)
        done = run.produce("sft", "base", fingerprint, parents, build)
        return Base(done.path, done.artifact)
    assert model.path is not None, "checked by ModelConfig"
    folder = pretrained_folder(model.path)
    problems = folder_problems(folder, "model.path") or tokenizer_problems(folder, model.pad_token)
    if problems:
        raise ConfigError(problems)
    content = folder_digest(folder)

    def describe(workspace: Path, tracker: Tracker) -> Built:
        source = {"path": model.path, "sha256": content, "hub": not Path(str(model.path)).is_dir()}
        write_json(workspace / "source.json", source)
        return Built(workspace, {"metrics": {}}, 0)

    fingerprint = run.fingerprint("base", {"pad_token": model.pad_token}, {"folder": content})
    return Base(folder, run.produce("sft", "base", fingerprint, [], describe).artifact)


def pretrained_folder(path: str) -> Path:
    """Return a local model folder as it is, or download a hub id (weights as safetensors, JSON, vocabularies)."""
    if Path(path).is_dir():
        return Path(path)
    from huggingface_hub import snapshot_download

    try:
        return Path(snapshot_download(path, allow_patterns=["*.safetensors", "*.json", "*.txt", "*.model", "*.jinja"]))
    except Exception as error:  # the hub client raises many kinds, for one remedy
        raise DataError(
            f"model.path={path} is no folder here, and the hub did not give it ({type(error).__name__}: {error}); "
            "check the name and the network, or download it and give the folder"
        ) from error


def run_sft(run: Run) -> Done:
    """Fine-tune the base model, or take the model that `sft.from` names."""
    config = run.config.sft
    if config.from_ is not None:
        done = run.adopt("sft", config.from_)
        run.finish("sft", done)
        return done
    base = run_base(run)
    data = run.sources.demonstrations
    parents, labels = _labels(run)
    trained = {name: value for name, value in schema.to_tree(config).items() if name not in CHANGES_NOTHING}
    settings = {"sft": trained, "pad_token": run.config.model.pad_token}
    inputs = {
        "base": base.artifact.fingerprint,
        "train": digest_of(data.train),
        "validation": digest_of(data.validation),
    } | labels

    def build(folder: Path, tracker: Tracker) -> Built:
        from sft.core.checkpoint import Saving
        from sft.train import train_sft

        result = train_sft(
            config,
            base=base.path,
            pad_token=run.config.model.pad_token,
            train=data.train,
            validation=data.validation,
            limits=run.limits,
            runtime=run.config.runtime,
            seed=run.config.seed,
            out_dir=folder / MODEL,
            tracker=tracker,
            saving=Saving(folder / CHECKPOINTS, fingerprint, run.config.resume.allow),
        )
        return Built(result.checkpoint, {"metrics": result.metrics, "loss": result.loss}, result.steps, run.device())

    fingerprint = run.fingerprint("sft", settings, inputs)
    done = run.produce("sft", "sft", fingerprint, [("base", base.artifact), *parents], build)
    run.finish("sft", done)
    return done


def _labels(run: Run) -> tuple[list[tuple[str, Artifact]], dict[str, str]]:
    """Return the registered labels that the demonstrations come from, as a parent and as an input; both may be empty.

    The version is an input of its own, so that a model never keeps the edge to a version that was erased.
    """
    taken = run.sources.demonstrations_dataset
    return ([], {}) if taken is None else ([("labels", taken)], {"labels": taken.sha256})
