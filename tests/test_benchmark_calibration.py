"""What the calibration benchmark concludes: each bar is met by good figures and missed by bad ones."""

import os

import numpy as np
import pytest

from benchmarks.calibration import MINMAX, OURS, PERCENTILE, Figures, judge, repeated, row, status_bytes

MIB = 1 << 20


def verdicts(few=400, many=404, percentile=4000, seconds=90.0, minmax_s=30.0, percentile_s=100.0):
    found = [
        Figures(OURS, 64, few * MIB, seconds),
        Figures(MINMAX, 64, 900 * MIB, minmax_s),
        Figures(PERCENTILE, 64, percentile * MIB, percentile_s),
        Figures(OURS, 1024, many * MIB, 16 * seconds),
    ]
    return [met for _, met in judge(found)]


@pytest.mark.parametrize(
    ("figures", "met"),
    [
        ({}, [True, True, True]),
        ({"many": 430}, [False, True, True]),
        ({"few": 900, "many": 900}, [True, False, True]),
        ({"seconds": 121.0}, [True, True, False]),
        ({"percentile_s": None, "few": 900, "many": 900}, [True, True, True]),
        ({"percentile_s": None, "few": 2100, "many": 2100}, [True, False, True]),
    ],
)
def test_the_bars(figures, met):
    assert verdicts(**figures) == met


def test_a_killed_way_says_so():
    assert row(Figures(PERCENTILE, 64, 3 * MIB, None)) == [PERCENTILE, "64", "", "over 3", "killed at the cap", ""]
    assert row(Figures(OURS, 64, 3 * MIB, 32.0, 5)) == [OURS, "64", "5", "3", "32", "0.50"]


def test_feeds_are_repeated(tmp_path):
    (tmp_path / "few").mkdir()
    np.save(tmp_path / "few" / "0.npy", np.arange(6, dtype=np.float32).reshape(3, 2))
    repeated(tmp_path / "few", tmp_path / "many", 7)
    assert np.load(tmp_path / "many" / "0.npy")[:, 0].tolist() == [0, 2, 4, 0, 2, 4, 0]


def test_memory_is_read_from_proc():
    assert status_bytes(os.getpid(), "VmHWM") > 10 * MIB < status_bytes("self", "VmRSS")
    assert status_bytes(1 << 30, "VmRSS") == 0
