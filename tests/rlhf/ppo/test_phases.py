"""Where the time goes, by hand: a clock that the test turns."""

import pytest
import torch

from rlhf.ppo import phases
from rlhf.ppo.phases import PHASES, Stopwatch, model_flops, phase_metrics

CPU, CUDA = torch.device("cpu"), torch.device("cuda")


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def perf_counter(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    found = Clock()
    monkeypatch.setattr(phases, "time", found)
    return found


def timed(device: torch.device, *, generate: float, score: float, train: float) -> Stopwatch:
    watch = Stopwatch(device)
    watch.seconds = {"generate": generate, "score": score, "train": train}
    return watch


def numbers(watch: Stopwatch) -> dict[str, float]:
    return phase_metrics(watch, answers=4, answer_tokens=40, tokens=60, widest=20, flops=989e12)


def test_a_phase_adds_up_and_leaves_the_others_alone(clock: Clock):
    watch = Stopwatch(CPU)
    assert tuple(watch.seconds) == PHASES
    for seconds in (1.5, 0.25):
        with watch("generate"):
            clock.now += seconds
        clock.now += 50
    with watch("train"):
        clock.now += 3
    assert watch.seconds == {"generate": 1.75, "score": 0.0, "train": 3.0}


def test_on_a_gpu_both_borders_wait_for_the_work(clock: Clock, monkeypatch: pytest.MonkeyPatch):
    """Kernels are launched in no time; waiting for them takes a second that belongs to the phase that launched."""
    waited: list[torch.device] = []

    def synchronize(device: torch.device) -> None:
        waited.append(device)
        clock.now += 1

    monkeypatch.setattr(torch.cuda, "synchronize", synchronize)
    watch = Stopwatch(CUDA)
    with watch("score"):
        clock.now += 0.5
    assert waited == [CUDA, CUDA]
    assert watch.seconds["score"] == 1.5


def test_numbers_of_an_iteration_by_hand():
    """Four answers of ten tokens on average in four seconds; padded to 20, they would be 80 tokens instead of 60."""
    found = numbers(timed(CPU, generate=2.0, score=0.5, train=1.5))
    assert found == {
        "time/generate_s": 2.0,
        "time/score_s": 0.5,
        "time/train_s": 1.5,
        "throughput/answers_per_s": 1.0,
        "throughput/tokens_per_s": 10.0,
        "throughput/generated_tokens_per_s": 20.0,
        "throughput/padding_left_out": 0.25,
        "throughput/flops_per_s": 989e12 / 4,
    }


@pytest.mark.parametrize(("name", "peak"), [("NVIDIA H100 80GB HBM3", 989e12), ("NVIDIA A100-SXM4-40GB", 312e12)])
def test_utilisation_where_the_peak_is_known(monkeypatch: pytest.MonkeyPatch, name: str, peak: float):
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: name)
    assert numbers(timed(CUDA, generate=2, score=1, train=1))["throughput/mfu"] == pytest.approx(989e12 / 4 / peak)


def test_no_utilisation_of_a_device_that_nobody_knows(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: "Abacus 3000")
    assert "throughput/mfu" not in numbers(timed(CUDA, generate=2, score=1, train=1))


@pytest.mark.parametrize(("one_pass", "forwards", "trained"), [(False, 4, 2), (True, 3, 1)])
def test_operations_by_hand(one_pass: bool, forwards: int, trained: int):
    """Ten weights: 20 operations a token forward, 40 backward; 4 tokens sampled, 6 looked at and passed twice."""
    sampling, looking = 4 * 20, 6 * 20 * forwards
    training = 6 * (20 + 40) * 2 * trained
    found = model_flops(parameters=10, tokens=6, answer_tokens=4, passes=2, one_pass=one_pass)
    assert found == sampling + looking + training
