"""Intervals against the normal theory, and the paired test against what was planted."""

import numpy as np
import pytest

from linnet.evaluate import statistics
from linnet.evaluate.statistics import bootstrap_mean, paired_test


def test_bootstrap() -> None:
    values = np.random.default_rng(0).normal(3.0, 1.0, 400)
    mean = bootstrap_mean([*values, float("nan")])
    half = 1.96 * values.std() / 20  # the normal theory's half width
    assert mean.value == pytest.approx(values.mean())
    assert (mean.files, mean.unscored) == (400, 1)
    assert mean.high - mean.low == pytest.approx(2 * half, rel=0.1)
    assert mean == bootstrap_mean([*values, float("nan")])
    assert np.isnan(bootstrap_mean([float("nan")]).value)


def test_many_files_are_drawn_in_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    values = np.random.default_rng(3).normal(3.0, 1.0, 300)
    whole, whole_test = bootstrap_mean(values), paired_test(values, 0 * values + 2.9)
    monkeypatch.setattr(statistics, "_LARGEST", 10_000)
    assert bootstrap_mean(values).low == pytest.approx(whole.low, abs=0.02)
    assert paired_test(values, 0 * values + 2.9).p == pytest.approx(whole_test.p, abs=0.03)


def test_a_difference_that_is_small_beside_the_files_is_found() -> None:
    rng = np.random.default_rng(1)
    files = rng.normal(3.0, 1.0, 40)
    better = files + 0.1 + rng.normal(0, 0.05, 40)
    found = paired_test([*better, float("nan")], [*files, 1.0])
    assert found.difference == pytest.approx((better - files).mean())
    assert found.low < 0.1 < found.high
    assert found.p < 0.001
    assert found.files == 40
    assert paired_test(files, better).p == found.p


def test_no_difference_is_none() -> None:
    rng = np.random.default_rng(2)
    chances = [paired_test(rng.normal(size=20), rng.normal(size=20)).p for _ in range(60)]
    assert 0.35 < np.mean(chances) < 0.65  # uniform
    assert paired_test([1.0, 2.0], [1.0, 2.0]).p == 1.0
    assert np.isnan(paired_test([], []).p)
    with pytest.raises(ValueError, match="same files"):
        paired_test([1.0], [1.0, 2.0])
