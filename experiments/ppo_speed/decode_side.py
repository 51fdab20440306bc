"""Decoding alone: one contender answers a workload's prompts, each with the maximum number of tokens.

    python decode_side.py --workload DIR --contender ours --repeats 3 --threads 2

Contenders import their library inside their function, because each lives in a virtual environment of its own.
"""

import argparse
import os
import statistics
import warnings
from collections.abc import Callable
from pathlib import Path

import torch
from contract import DECODERS, Decoding, Files, Workload, emit
from probe import device_name, now, versions

Decoder = Callable[[int], list[list[int]]]
"""Gives the answers' token ids in the i-th repetition."""


def ours(files: Files, workload: Workload, device: torch.device) -> Decoder:
    """Return `sft.core.generation.sample`; drawing its random numbers is part of the work."""
    from sft.config import Dtype
    from sft.core.generation import draw_uniforms, pad_left, sample
    from sft.model import load_causal_lm, load_tokenizer

    model = load_causal_lm(files.policy, device=device, dtype=Dtype(workload.dtype))
    tokenizer = load_tokenizer(files.policy)
    prompts = pad_left(files.prompts(), tokenizer.pad_token_id, device)

    def decode(repetition: int) -> list[list[int]]:
        uniforms_BR = draw_uniforms(
            seed=0,
            stream="speed",
            iteration=repetition,
            rows=range(workload.prompts),
            length=workload.max_answer_tokens,
        )
        ids_BR, mask_BR = sample(
            model,
            prompts,
            uniforms_BR,
            temperature=1.0,
            eos_id=tokenizer.eos_token_id,
            pad_id=tokenizer.pad_token_id,
        )
        return [ids_R[mask_R].tolist() for ids_R, mask_R in zip(ids_BR, mask_BR, strict=True)]

    return decode


def transformers(files: Files, workload: Workload, device: torch.device, *, compiled: bool) -> Decoder:
    """Return `generate` with a static cache: as it comes, or with compilation forbidden."""
    from transformers import AutoModelForCausalLM, GenerationConfig

    model = AutoModelForCausalLM.from_pretrained(files.policy, dtype=getattr(torch, workload.dtype)).eval()
    torch.nn.Module.to(model, device)
    prompts_BP = torch.tensor(files.prompts(), device=device)
    settings = GenerationConfig(
        cache_implementation="static",
        do_sample=True,
        temperature=1.0,
        top_k=0,
        top_p=1.0,
        min_new_tokens=workload.max_answer_tokens,
        max_new_tokens=workload.max_answer_tokens,
        pad_token_id=model.config.pad_token_id,
        eos_token_id=model.config.eos_token_id,
        disable_compile=not compiled,
    )

    def decode(repetition: int) -> list[list[int]]:
        torch.manual_seed(repetition)
        mask_BP = torch.ones_like(prompts_BP)
        found = model.generate(prompts_BP, attention_mask=mask_BP, generation_config=settings)
        answers: list[list[int]] = found[:, workload.prompt_tokens :].tolist()
        return answers

    return decode


def vllm(files: Files, workload: Workload, device: torch.device) -> Decoder:
    """Return vLLM; its engine is another process, bound to as many cores as this one may use."""
    os.environ.setdefault("VLLM_CPU_OMP_THREADS_BIND", f"0-{torch.get_num_threads() - 1}")
    os.environ.setdefault("VLLM_CPU_KVCACHE_SPACE", "2")
    os.environ.setdefault("VLLM_LOGGING_LEVEL", "ERROR")
    from vllm import LLM, SamplingParams  # type: ignore[import-not-found]

    engine = LLM(
        model=str(files.policy),
        dtype=workload.dtype,
        max_model_len=workload.max_tokens,
        max_num_seqs=workload.prompts,
        enable_prefix_caching=False,
        disable_log_stats=True,
    )
    prompts = [{"prompt_token_ids": ids} for ids in files.prompts()]
    settings = SamplingParams(temperature=1.0, ignore_eos=True, max_tokens=workload.max_answer_tokens, detokenize=False)

    def decode(repetition: int) -> list[list[int]]:
        return [found.outputs[0].token_ids for found in engine.generate(prompts, settings, use_tqdm=False)]

    return decode


def bound_tokens_per_s(files: Files, workload: Workload, device: torch.device) -> float:
    """Return what reading all weights and half a full cache per step allows, at the measured speed of a copy."""
    from transformers import AutoConfig

    buffer = torch.empty(2**30, dtype=torch.uint8, device=device)
    target = torch.empty_like(buffer)
    target.copy_(buffer)
    start = now(device)
    for _ in range(10):
        target.copy_(buffer)
    bytes_per_s = 10 * 2 * buffer.numel() / (now(device) - start)
    config = AutoConfig.from_pretrained(files.policy)
    head = config.hidden_size // config.num_attention_heads
    number = getattr(torch, workload.dtype).itemsize
    cache_token = 2 * config.num_hidden_layers * config.num_key_value_heads * head * number
    mean_context = workload.prompt_tokens + workload.max_answer_tokens / 2
    weights = sum(path.stat().st_size for path in files.policy.glob("*.safetensors"))
    bound: float = workload.prompts * bytes_per_s / (weights + workload.prompts * mean_context * cache_token)
    return bound


def decoder(contender: str, files: Files, workload: Workload, device: torch.device) -> Decoder:
    """Return the contender, ready to decode."""
    if contender == "ours":
        return ours(files, workload, device)
    if contender == "vllm":
        return vllm(files, workload, device)
    return transformers(files, workload, device, compiled=contender == "transformers")


def main() -> None:
    """Measure and print one line of JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--workload", type=Path, required=True)
    parser.add_argument("--contender", choices=DECODERS, required=True)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--device", default="cpu")
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    warnings.filterwarnings("ignore")
    device = torch.device(given.device)
    files = Files(given.workload)
    workload = files.workload()
    decode = decoder(given.contender, files, workload, device)
    seconds, tokens = [], []
    for repetition in range(given.repeats + 1):
        start = now(device)
        with torch.no_grad():
            answers = decode(repetition)
        seconds.append(now(device) - start)
        tokens.append(sum(map(len, answers)))
    emit(
        Decoding(
            contender=given.contender,
            workload=workload.name,
            tokens_per_s=[count / spent for count, spent in zip(tokens[1:], seconds[1:], strict=True)],
            warmup_s=seconds[0] - statistics.median(seconds[1:]),
            mean_tokens=statistics.mean(tokens) / workload.prompts,
            bound_tokens_per_s=bound_tokens_per_s(files, workload, device) if device.type == "cuda" else None,
            device=device_name(device),
            versions=versions(),
        )
    )


if __name__ == "__main__":
    main()
