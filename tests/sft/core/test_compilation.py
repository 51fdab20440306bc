import shutil

import pytest
import torch

from sft.config import Dtype
from sft.core.compilation import compile_layers, missing_for_compilation
from sft.core.generation import pad_left, pad_right
from sft.core.likelihood import token_statistics
from sft.core.text import encode_answer, encode_prompt
from sft.model import load_causal_lm

CPU = torch.device("cpu")


def test_what_is_missing_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path):
    monkeypatch.setattr(shutil, "which", lambda name: None)
    monkeypatch.setattr("sysconfig.get_path", lambda name: str(tmp_path))
    compiler, header = missing_for_compilation(CPU)
    assert compiler.startswith("g++ (")
    assert header.startswith(str(tmp_path / "Python.h"))
    (tmp_path / "Python.h").touch()
    monkeypatch.setattr(shutil, "which", lambda name: f"/usr/bin/{name}")
    assert missing_for_compilation(CPU) == []


@pytest.mark.skipif(bool(missing_for_compilation(CPU)), reason=f"needs {missing_for_compilation(CPU)}")
def test_compiled_layers_compute_the_same(sft_folder, tokenizer, requests):
    """Log-probabilities, and gradients to 1e-4, of batches of two sizes that meet one shape."""
    plain, compiled = (load_causal_lm(sft_folder, device=CPU, dtype=Dtype.FLOAT32) for _ in range(2))
    compile_layers(compiled)
    for count in (2, 3):
        prompts = pad_left([encode_prompt(tokenizer, request) for request in requests[:count]], 0, CPU)
        responses = pad_right([encode_answer(tokenizer, "of course .") for _ in range(count)], 0, CPU)
        expected = token_statistics(plain, prompts, responses)
        found = token_statistics(compiled, prompts, responses)
        assert torch.allclose(found.logprobs_BR, expected.logprobs_BR, atol=1e-5)
        for model, statistics in ((plain, expected), (compiled, found)):
            model.zero_grad()
            statistics.logprobs_BR.sum().backward()
        for (name, a), (_, b) in zip(plain.named_parameters(), compiled.named_parameters(), strict=True):
            assert torch.allclose(a.grad, b.grad, atol=1e-4 * float(a.grad.abs().max())), name
