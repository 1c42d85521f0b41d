"""Peaks and how they are matched: laws."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ostinato.tasks.label.peaks import heart_rate, match, pick, refine, steady_level

moments = st.lists(st.integers(0, 60), max_size=7, unique=True).map(lambda x: np.array(sorted(x), dtype=np.int64))
curves = st.lists(st.integers(0, 10), min_size=1, max_size=40).map(lambda x: np.array(x) / 10)


def best_by_trying(a: np.ndarray, b: np.ndarray, tolerance: float) -> tuple[int, float]:
    """The most pairs, and of these the least distance, over all one-to-one pairings."""
    if len(a) > len(b):
        a, b = b, a
    best = (0, 0.0)
    for chosen in itertools.permutations([*range(len(b)), *[None] * len(a)], len(a)):
        apart = [abs(a[i] - b[j]) for i, j in enumerate(chosen) if j is not None]
        if all(d <= tolerance for d in apart):
            best = max(best, (len(apart), -float(sum(apart))))
    return best


@given(moments, moments, st.integers(0, 12))
def test_matching_is_one_to_one_within_the_tolerance_and_in_order(a, b, tolerance):
    pairs = match(a, b, tolerance).pairs
    assert (np.diff(pairs, axis=0) > 0).all()
    assert (np.abs(a[pairs[:, 0]] - b[pairs[:, 1]]) <= tolerance).all()


@given(moments.filter(lambda x: len(x) <= 4), moments.filter(lambda x: len(x) <= 4), st.integers(0, 12))
def test_matching_finds_the_most_pairs_and_of_these_the_nearest(a, b, tolerance):
    pairs = match(a, b, tolerance).pairs
    apart = np.abs(a[pairs[:, 0]] - b[pairs[:, 1]])
    assert (len(pairs), -float(apart.sum())) == best_by_trying(a, b, tolerance)


@given(moments, moments, st.integers(0, 12), st.integers(-1000, 1000))
def test_matching_does_not_depend_on_where_time_begins_nor_on_who_is_asked(a, b, tolerance, shift):
    pairs = match(a, b, tolerance).pairs
    assert (match(a + shift, b + shift, tolerance).pairs == pairs).all()
    swapped = match(b, a, tolerance).pairs
    assert len(swapped) == len(pairs)
    assert np.abs(b[swapped[:, 0]] - a[swapped[:, 1]]).sum() == np.abs(a[pairs[:, 0]] - b[pairs[:, 1]]).sum()


def test_what_is_not_matched_is_missed_or_false():
    found = match(np.array([10, 50, 90]), np.array([12, 30, 49]), 5)
    assert found.pairs.tolist() == [[0, 0], [1, 2]]
    assert found.missed.tolist() == [2] and found.false.tolist() == [1]


@given(curves, st.integers(1, 6))
def test_peaks_are_apart_and_none_hides_a_higher_one(p, distance):
    peaks = pick(p, distance, 0.05)
    assert (np.diff(peaks) >= distance).all()
    highest = int(len(p) - 1 - p[::-1].argmax())  # the last of equal ones
    assert p[highest] < 0.05 or p[peaks].max() == p[highest]
    for at in peaks:
        assert p[at] == p[max(0, at - 1) : at + 2].max()


@given(curves, st.integers(1, 6), st.integers(1, 9))
def test_peaks_above_a_threshold_are_those_that_a_higher_floor_leaves(p, distance, tenths):
    level = tenths / 10
    peaks = pick(p, distance, 0.05)
    assert (peaks[p[peaks] >= level] == pick(p, distance, level)).all()


def test_a_peak_stands_where_its_probability_does():
    p = np.array([0.0, 0.2, 0.6, 0.2, 0.0, 0.0, 0.0, 0.4, 0.4])
    # alone or even on both sides: the middle of its step of 4 samples; shared with the step before: between the two
    assert refine(p, np.array([2, 8]), 4).tolist() == [9.5, 31.5]


def test_the_middle_of_a_flat_top():
    """Wherever on it the peak is taken to be, and it is the last step of the highest."""
    p = np.zeros(20)
    p[6:11] = 1.0
    (step,) = pick(p, 5, 0.5)
    assert step == 10
    assert refine(p, np.array([step]), 4, reach=5).tolist() == [8 * 4 + 1.5]


def test_a_rate_is_of_the_distances_between_events():
    assert heart_rate(np.array([5, 95, 185]), 90.0) == 60.0
    assert heart_rate(np.array([5]), 90.0) == 0.0
    assert heart_rate(np.array([0, 30, 120]), 60.0) == pytest.approx(60.0)


def test_a_threshold_is_the_middle_of_those_that_are_about_the_best():
    levels = np.array([0.01, 0.02, 0.03, *np.arange(1, 20) / 20, 0.97])
    total = np.full(len(levels), 2000.0)
    right = np.where((levels > 0.04) & (levels < 0.76), 990.0, 900.0)
    right[levels == 0.05] = 992.0  # a little better, by chance, at the edge
    assert steady_level(levels, right, total) == pytest.approx(0.4)
    right[levels == 0.05] = 999.0  # by more than chance
    assert steady_level(levels, right, total) == pytest.approx(0.05)


def test_of_two_stretches_of_best_thresholds_the_wider_counts():
    levels = np.arange(1, 10) / 10
    right = np.array([500.0, 300, 500, 500, 500, 300, 300, 500, 500])
    assert steady_level(levels, right, np.full(9, 1000.0)) == pytest.approx(0.4)


def test_a_threshold_is_chosen_where_nothing_is_right_or_there():
    levels = np.array([0.1, 0.5, 0.9])
    assert steady_level(levels, np.zeros(3), np.zeros(3)) == 0.5
    assert steady_level(levels, np.zeros(3), np.array([30.0, 20.0, 10.0])) == 0.5
