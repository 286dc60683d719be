"""Intervals against the normal theory, and the paired test against what was planted."""

import numpy as np
import pytest

from linnet.evaluate import statistics
from linnet.evaluate.report import Report, Row, summarize
from linnet.evaluate.statistics import bootstrap_mean, paired_test, rank_correlation


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


def test_rank_correlation() -> None:
    """The textbook's formula where no two are equal, and shared ranks where they are; only the order counts."""
    values = [1.0, 2.0, 3.0, 4.0, 5.0]
    assert rank_correlation(values, [10.0, 400.0, 401.0, 5000.0, 5001.0]) == pytest.approx(1)
    assert rank_correlation(values, [2.0, 1.0, 4.0, 3.0, 5.0]) == pytest.approx(1 - 6 * 4 / (5 * 24))
    assert rank_correlation([1.0, 1.0, 2.0], [1.0, 2.0, 3.0]) == pytest.approx(np.sqrt(3) / 2)
    assert rank_correlation([*values, float("nan")], [*values[::-1], 9.0]) == pytest.approx(-1)
    assert np.isnan(rank_correlation(values, [1.0] * 5))
    assert np.isnan(rank_correlation(values[:2], values[:2]))
    with pytest.raises(ValueError, match="needs pairs"):
        rank_correlation(values, values[:3])


def test_metrics_agree_where_they_call_the_same_better() -> None:
    """si_sdr is better if higher, log_mel if lower; what is left out does not count, nor does another condition."""
    rows = [
        Row(f"{number}", codec, mode=1.0, scores={"si_sdr": level + number, "log_mel": -level - number})
        for codec, level in (("a", 0.0), ("b", 10.0), ("c", 20.0))
        for number in range(3)
    ]
    rows.append(Row("shifted", "a", mode=1.0, scores={"si_sdr": 99.0, "log_mel": 99.0}, fault="shifted"))
    rows.append(Row("n", "a", "noise@0", mode=1.0, scores={"si_sdr": 99.0, "log_mel": 99.0}))
    report = Report(rows, summarize(rows, ["si_sdr", "log_mel"]), [])
    found = report.agreements(["si_sdr", "log_mel"], "clean")["si_sdr", "log_mel"]
    assert (found.clips, found.codecs) == (pytest.approx(1), pytest.approx(1))
    assert np.isnan(report.agreements(["si_sdr", "log_mel"], "noise@0")["si_sdr", "log_mel"].clips)
