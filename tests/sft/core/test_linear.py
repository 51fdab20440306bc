import pytest
import torch
from torch.nn.functional import linear

from sft.config import Dtype
from sft.core import linear as module
from sft.core.likelihood import token_statistics
from sft.core.linear import OneDnnLinear, prefers_onednn, use_onednn
from sft.core.packing import LINE_MULTIPLE
from sft.model import load_causal_lm
from tests.sft.core.test_packing import batch

CPU = torch.device("cpu")

pytestmark = pytest.mark.skipif(not torch.backends.mkldnn.is_available(), reason="this torch has no oneDNN")


def layer(inputs: int, outputs: int, *, bias: bool) -> torch.nn.Linear:
    torch.manual_seed(0)
    return torch.nn.Linear(inputs, outputs, bias=bias)


@pytest.fixture
def products(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, ...]]:
    """The shapes of the products that oneDNN makes."""
    seen: list[tuple[int, ...]] = []
    plain = module._product

    def recorded(left: torch.Tensor, right: torch.Tensor) -> torch.Tensor:
        seen.append((left.shape[0], left.shape[1], right.shape[0]))
        return plain(left, right)

    monkeypatch.setattr(module, "_product", recorded)
    return seen


@pytest.mark.parametrize(("inputs", "outputs"), [(24, 40), (40, 24)])
@pytest.mark.parametrize("bias", [False, True])
def test_values_and_gradients_are_those_of_float64(products, inputs: int, outputs: int, bias: bool):
    plain = layer(inputs, outputs, bias=bias)
    fast = OneDnnLinear.of(plain)
    x = torch.randn(1, 2 * LINE_MULTIPLE, inputs, requires_grad=True)
    weights = torch.randn(1, 2 * LINE_MULTIPLE, outputs)
    parts = [x, *plain.parameters()]
    found = fast(x)
    of_found = torch.autograd.grad((found * weights).sum(), parts)
    exact = [part.detach().double().requires_grad_(True) for part in parts]
    expected = linear(*exact)
    of_expected = torch.autograd.grad((expected * weights).sum(), exact)
    for a, b in zip((found, *of_found), (expected, *of_expected), strict=True):
        assert a.dtype == torch.float32
        assert torch.allclose(a.double(), b, rtol=1e-4, atol=1e-4)
    rows = 2 * LINE_MULTIPLE
    assert products[:2] == [(rows, inputs, outputs), (rows, outputs, inputs)]
    assert products[2] == (24, rows, 40), "the wider side stands in the columns"


def test_nothing_is_computed_for_what_is_frozen(products):
    fast = OneDnnLinear.of(layer(8, 8, bias=False)).requires_grad_(False)
    fast(torch.randn(LINE_MULTIPLE, 8, requires_grad=True)).sum().backward()
    assert len(products) == 2


@pytest.mark.parametrize("rows", [0, 1, 12, LINE_MULTIPLE - 1, LINE_MULTIPLE + 8])
def test_other_numbers_of_rows_go_another_way(products, rows: int):
    plain = layer(8, 4, bias=True)
    x = torch.randn(rows, 8)
    assert torch.equal(OneDnnLinear.of(plain)(x), plain(x))
    assert products == []


@pytest.mark.parametrize("rows", [8, 64, LINE_MULTIPLE, 3 * LINE_MULTIPLE])
def test_few_numbers_of_rows_have_a_kernel(products, rows: int):
    plain = layer(8, 4, bias=False)
    x = torch.randn(rows, 8)
    assert torch.allclose(OneDnnLinear.of(plain)(x), plain(x), atol=1e-6)
    assert products == [(rows, 8, 4)]


def test_other_formats_go_another_way(products):
    plain = layer(8, 4, bias=True)
    x = torch.randn(LINE_MULTIPLE, 8)
    fast = OneDnnLinear.of(plain)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert fast(x).dtype == torch.bfloat16
    plain.bfloat16()
    assert OneDnnLinear.of(plain)(x.bfloat16()).dtype == torch.bfloat16
    assert products == []


def test_a_model_keeps_its_weights_their_names_and_what_it_computes(sft_folder, products):
    plain, fast = (load_causal_lm(sft_folder, device=CPU, dtype=Dtype.FLOAT32) for _ in range(2))
    use_onednn(fast)
    assert list(fast.state_dict()) == list(plain.state_dict())
    assert fast.lm_head.weight is fast.model.embed_tokens.weight, "tied"
    expected = token_statistics(plain, *batch()).logprobs_BR
    products.clear()
    assert torch.allclose(token_statistics(fast, *batch()).logprobs_BR, expected, atol=1e-5)
    layers = fast.config.num_hidden_layers
    assert len(products) == 7 * layers + 1


@pytest.mark.parametrize(
    ("vendor", "capability", "preferred"),
    [("AuthenticAMD", "AVX512", True), ("GenuineIntel", "AVX512", False), ("AuthenticAMD", "AVX2", False)],
)
def test_the_choice_follows_the_processor(monkeypatch, tmp_path, vendor: str, capability: str, preferred: bool):
    cpuinfo = tmp_path / "cpuinfo"
    cpuinfo.write_text(f"vendor_id\t: {vendor}\n")
    monkeypatch.setattr(module, "CPUINFO", cpuinfo)
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: capability)
    assert prefers_onednn() is preferred
    cpuinfo.unlink()
    assert not prefers_onednn()
