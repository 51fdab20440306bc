import json
import math
from pathlib import Path

import numpy as np
import pytest
from scipy import special

from reward.calibration import FILE, Bin, Calibration, expected_calibration_error, fit_temperature, reliability
from sft.core.errors import DataError


def test_round_trip(tmp_path: Path):
    calibration = Calibration(-0.1234567890123, 1.7)
    calibration.save(tmp_path)
    assert Calibration.load(tmp_path) == calibration
    assert json.loads((tmp_path / FILE).read_text()) == {"offset": -0.1234567890123, "temperature": 1.7}


def test_a_model_without_calibration_is_taken_as_it_is(tmp_path: Path):
    assert Calibration.load(tmp_path) == (0.0, 1.0)


@pytest.mark.parametrize(
    "content",
    [b"", b"no json", b"{}", b"null", b"[0, 1]", b'{"offset": 1}', b'{"offset": "x", "temperature": 1}', b"\xff"],
)
def test_a_file_that_is_none_is_named(tmp_path: Path, content: bytes):
    (tmp_path / FILE).write_bytes(content)
    with pytest.raises(DataError, match=r"calibration\.json is no calibration file .*numbers offset and temperature"):
        Calibration.load(tmp_path)


@pytest.mark.parametrize(
    ("offset", "temperature"),
    [("NaN", "1"), ("Infinity", "1"), ("0", "0"), ("0", "-2"), ("0", "Infinity"), ("0", "NaN")],
)
def test_numbers_that_make_no_sense_are_refused(tmp_path: Path, offset: str, temperature: str):
    (tmp_path / FILE).write_text(f'{{"offset": {offset}, "temperature": {temperature}}}')
    with pytest.raises(DataError, match="offset must be finite and temperature positive, found"):
        Calibration.load(tmp_path)


@pytest.mark.parametrize("temperature", [0.25, 1.0, 4.0])
def test_a_known_temperature_is_found(temperature: float):
    """Labels follow sigmoid(margin); a model that says temperature * margin must be divided by it again."""
    generator = np.random.default_rng(0)
    margins = generator.normal(0, 1.5, 20_000)
    chosen_is_first = generator.random(20_000) < special.expit(margins)
    assert fit_temperature(temperature * np.where(chosen_is_first, margins, -margins)) == pytest.approx(
        temperature, rel=0.05
    )


def test_temperature_is_bounded():
    assert fit_temperature(np.array([])) == 1.0
    assert fit_temperature(np.array([1.0, 2.0])) == pytest.approx(0.05, rel=0.01)
    assert fit_temperature(np.array([-1.0, -2.0])) == pytest.approx(50, rel=0.01)


def test_reliability_by_hand():
    """Four pairs in two bins; ln 3 is a confidence of 3/4, 0 one of 1/2, where being right counts half."""
    margins = np.array([math.log(9), -math.log(3), 0.0, math.log(4)])
    unsure, sure = reliability(margins, bins=2)
    assert unsure == pytest.approx(Bin((0.5 + 0.75) / 2, (0.5 + 0) / 2, 2))
    assert sure == pytest.approx(Bin((0.8 + 0.9) / 2, 1.0, 2))
    expected = (2 * abs(0.25 - 0.625) + 2 * abs(1 - 0.85)) / 4
    assert expected_calibration_error([unsure, sure]) == pytest.approx(expected)


def test_bins_weigh_by_their_size():
    assert expected_calibration_error([Bin(0.6, 0.5, 3), Bin(0.9, 1.0, 1)]) == pytest.approx(0.1)
    assert expected_calibration_error([Bin(0.5, 0.9, 3), Bin(0.9, 0.9, 1)]) == pytest.approx(0.3)
    assert expected_calibration_error([]) == 0.0


@pytest.mark.parametrize(("count", "bins"), [(0, 0), (1, 1), (7, 7), (100, 15)])
def test_bins_hold_every_pair_once(count: int, bins: int):
    margins = np.random.default_rng(0).normal(size=count)
    diagram = reliability(margins)
    assert len(diagram) == bins
    assert sum(bar.n for bar in diagram) == count
    assert all(0.5 <= bar.confidence <= 1 and 0 <= bar.accuracy <= 1 for bar in diagram)
    assert [bar.confidence for bar in diagram] == sorted(bar.confidence for bar in diagram)


def test_a_calibrated_model_has_a_small_error_and_a_boastful_one_a_large():
    generator = np.random.default_rng(1)
    logits = generator.normal(0, 1.5, 20_000)
    margins = np.where(generator.random(20_000) < special.expit(logits), logits, -logits)
    assert expected_calibration_error(reliability(margins)) < 0.015
    assert expected_calibration_error(reliability(3 * margins)) > 0.1
