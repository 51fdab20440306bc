import pytest
import torch

from sft.core import packing
from sft.core.generation import Prompts, Responses, pad_left, pad_right
from sft.core.packing import NAME, fill_batches, pack, packed_attention, packed_inputs, use_packed_attention

CPU = torch.device("cpu")
LENGTHS = (5, 1, 3, 3, 9, 3)
LENGTHS_N = torch.tensor([*LENGTHS, *([0] * (sum(LENGTHS) - len(LENGTHS)))])


def batch() -> tuple[Prompts, Responses]:
    return pad_left([[1], [2, 3]], 0, CPU), pad_right([[4, 5], [6]], 0, CPU)


def test_packing_by_hand():
    packed = pack(*batch(), multiple=1)
    assert packed.ids_1N.tolist() == [[1, 4, 5, 2, 3, 6]]
    assert packed.positions_1N.tolist() == [[0, 1, 2, 0, 1, 2]]
    assert packed.lengths_N.tolist() == [3, 3, 0, 0, 0, 0]
    assert packed.states_BR1[0].tolist() == [0, 1, 2]
    assert packed.states_BR1[1, :2].tolist() == [4, 5]


@pytest.mark.parametrize(("multiple", "width"), [(6, 6), (4, 8), (5, 10)])
def test_a_row_of_its_own_fills_the_line(multiple: int, width: int):
    plain, filled = pack(*batch(), multiple=1), pack(*batch(), multiple=multiple)
    assert filled.ids_1N.tolist() == [plain.ids_1N[0].tolist() + [0] * (width - 6)]
    assert filled.positions_1N.tolist() == [[0, 1, 2, 0, 1, 2, *range(width - 6)]]
    assert filled.lengths_N.tolist() == [*([3, 3, width - 6] + [0] * width)[:width]]
    assert torch.equal(filled.states_BR1, plain.states_BR1)


def test_needed_states_are_filled_up_with_others():
    """Positions 0, 1, 2, 4 and 5 carry the states; 3 and then the filling row's are the others."""
    packed = pack(*batch(), multiple=4)
    states = torch.tensor([0, 1, 4])
    assert packed.filled(states).tolist() == [0, 1, 4, 2]
    assert packed.filled(torch.tensor([5, 1, 4, 0, 2])).tolist() == [5, 1, 4, 0, 2, 3, 6, 7]
    assert packed.filled(torch.arange(8)).tolist() == list(range(8))


def test_batches_by_hand():
    assert fill_batches([5, 1, 9, 3], 9) == [[1, 3, 0], [2]]
    assert fill_batches([5, 1, 9, 3], 4) == [[1, 3], [0], [2]]
    assert fill_batches([2] * 6, 10) == [[0, 1, 2], [3, 4, 5]], "not five and one"
    assert fill_batches([], 4) == []


def heads(number: int, seed: int) -> torch.Tensor:
    return torch.randn(1, number, sum(LENGTHS), 8, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def by_hand(query: torch.Tensor, key: torch.Tensor, value: torch.Tensor) -> torch.Tensor:
    """Return causal attention within each row, from the formula."""
    output = torch.zeros_like(query)
    for h in range(query.shape[1]):
        of_key = h * key.shape[1] // query.shape[1]
        start = 0
        for length in LENGTHS:
            rows = slice(start, start + length)
            scores = query[0, h, rows] @ key[0, of_key, rows].T / 8**0.5
            scores = scores.masked_fill(torch.ones(length, length).triu(1).bool(), -torch.inf)
            output[0, h, rows] = torch.softmax(scores, dim=1) @ value[0, of_key, rows]
            start += length
    return output.transpose(1, 2)


@pytest.mark.parametrize("way", ["row by row", "padded, as on an accelerator"])
@pytest.mark.parametrize("key_heads", [4, 2])
def test_attention_stays_within_its_row(monkeypatch: pytest.MonkeyPatch, way: str, key_heads: int):
    """All ways to compute it, values and gradients; grouped keys serve several heads of queries."""
    if way == "padded, as on an accelerator":
        monkeypatch.setattr(packing, "_row_by_row", packing._padded)
    given = [heads(n, seed).requires_grad_(True) for seed, n in enumerate((4, key_heads, key_heads))]
    found, _ = packed_attention(torch.nn.Module(), *given, None, row_lengths=LENGTHS_N)
    expected = by_hand(*given)
    assert torch.allclose(found, expected, atol=1e-10)
    weights = heads(4, 7).transpose(1, 2)
    of_found = torch.autograd.grad((found * weights).sum(), given)
    of_expected = torch.autograd.grad((expected * weights).sum(), given)
    assert all(torch.allclose(a, b, atol=1e-10) for a, b in zip(of_found, of_expected, strict=True))


@pytest.mark.parametrize("key_heads", [4, 2])
def test_one_query_against_sdpa(key_heads: int):
    """As in sampling: some columns of each row are padding."""
    generator = torch.Generator().manual_seed(0)
    query = torch.randn(3, 4, 1, 8, generator=generator)
    key, value = (torch.randn(3, key_heads, 9, 8, generator=generator)[:, :, :7] for _ in range(2))
    mask = torch.arange(7) >= torch.tensor([0, 2, 6])[:, None]
    found, _ = packed_attention(torch.nn.Module(), query, key, value, mask[:, None, None], scaling=0.3)
    expected = torch.nn.functional.scaled_dot_product_attention(
        query, key, value, attn_mask=mask[:, None, None], scale=0.3, enable_gqa=True
    )
    assert torch.allclose(found, expected.transpose(1, 2), atol=1e-6)


def test_a_sliding_window_shorter_than_a_row_is_refused():
    given = [heads(4, seed) for seed in range(3)]
    with pytest.raises(ValueError, match="sliding window 8"):
        packed_attention(torch.nn.Module(), *given, None, row_lengths=LENGTHS_N, sliding_window=8)
    packed_attention(torch.nn.Module(), *given, None, row_lengths=LENGTHS_N, sliding_window=9)


def test_a_model_still_reads_padded_batches_with_a_mask(policy, sft_folder):
    """TRL's trainers and `generate` go on as with plain sdpa."""
    from transformers import AutoModelForCausalLM

    plain = AutoModelForCausalLM.from_pretrained(sft_folder).eval()
    assert policy.config._attn_implementation == NAME
    ids = torch.tensor([[0, 0, 7, 8, 9], [4, 5, 6, 7, 8]])
    mask = torch.tensor([[0, 0, 1, 1, 1], [1, 1, 1, 1, 1]])
    found, expected = (m(input_ids=ids, attention_mask=mask).logits[mask.bool()] for m in (policy, plain))
    assert torch.equal(found, expected)


def test_a_model_that_was_not_prepared_is_refused(sft_folder):
    from transformers import AutoModelForCausalLM

    plain = AutoModelForCausalLM.from_pretrained(sft_folder).eval()
    with pytest.raises(AssertionError, match="use_packed_attention"):
        packed_inputs(plain, pack(*batch()))
    packed_inputs(use_packed_attention(plain), pack(*batch()))


def test_bfloat16_is_attended_to_in_float32_on_a_cpu():
    """Values are those of float32 rounded once at the end, also where autocast asks for bfloat16."""
    halves = [heads(4, seed).to(torch.bfloat16) for seed in range(3)]
    expected = by_hand(*(x.double() for x in halves))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found, _ = packed_attention(torch.nn.Module(), *halves, None, row_lengths=LENGTHS_N)
    assert found.dtype == torch.bfloat16
    assert torch.allclose(found.double(), expected, rtol=2**-8, atol=1e-6)
