"""Splitting rows: each in one part, each class alike."""

from __future__ import annotations

from collections import Counter

import pytest
import torch
from hypothesis import assume, given
from hypothesis import strategies as st

from ostinato.data import FewExamples, folds, split_by_class, split_rows, split_tails
from ostinato.errors import DataError

LABELS = st.lists(st.sampled_from("abc"), min_size=1, max_size=80)
SHARES = st.sampled_from([(1.0,), (0.5, 0.5), (0.7, 0.15, 0.15), (0.8, 0.1, 0.1), (0.98, 0.01, 0.01)])

pytestmark = pytest.mark.filterwarnings("ignore::ostinato.data.FewExamples")


@given(LABELS, SHARES, st.integers(0, 99))
def test_each_row_is_in_one_part_and_each_class_is_shared_out(labels, shares, seed):
    parts = split_by_class(labels, shares, seed)
    assert len(parts) == len(shares)
    assert sorted(torch.cat(parts).tolist()) == list(range(len(labels)))
    for part in parts:
        assert part.tolist() == sorted(part.tolist())
    for label, count in Counter(labels).items():
        got = [sum(labels[row] == label for row in part.tolist()) for part in parts]
        if count < len(shares):
            assert got == [1] * count + [0] * (len(shares) - count)
        else:
            assert min(got) >= 1
            if min(shares) * count >= 1:
                assert all(abs(n - share * count) < 1 for n, share in zip(got, shares, strict=True))


@given(LABELS, SHARES, st.integers(0, 99))
def test_a_split_depends_on_the_seed_alone(labels, shares, seed):
    first, again = (split_by_class(labels, shares, seed) for _ in range(2))
    assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))


def test_seeds_differ():
    assert len({tuple(split_rows(100, (0.5, 0.5), seed)[0].tolist()) for seed in range(5)}) == 5
    assert [len(part) for part in split_rows(100, (0.7, 0.2, 0.1))] == [70, 20, 10]


@given(LABELS, st.integers(2, 10), st.integers(0, 99))
def test_each_row_is_reported_on_in_one_fold(labels, count, seed):
    assume(count <= len(labels))
    made = folds(labels, count, seed)
    assert len(made) == count
    assert sorted(row for _, test in made for row in test.tolist()) == list(range(len(labels)))
    for train, test in made:
        assert sorted([*train.tolist(), *test.tolist()]) == list(range(len(labels)))
        assert len(labels) // count <= len(test) <= -(-len(labels) // count)
        for label, n in Counter(labels).items():
            got = sum(labels[row] == label for row in test.tolist())
            assert n // count <= got <= -(-n // count)
    again = folds(labels, count, seed)
    assert all(torch.equal(a[1], b[1]) for a, b in zip(made, again, strict=True))


def test_classes_with_few_examples_are_named():
    labels = ["common"] * 9 + ["rare"] + ["seldom"] * 2
    with pytest.warns(FewExamples, match=r"parts \(3\).*'rare' \(1\), 'seldom' \(2\)"):
        split_by_class(labels, (0.6, 0.2, 0.2))
    with pytest.warns(FewExamples, match=r"folds \(10\).*'common' \(9\)"):
        folds(labels, 10)


@given(st.integers(1, 1000), SHARES)
def test_the_parts_of_a_stream_follow_one_another(count, shares):
    assume(min(shares) * count >= 1)
    parts = split_tails(count, shares)
    assert [i for part in parts for i in range(count)[part]] == list(range(count))
    assert all(abs(part.stop - part.start - s * count) <= 1 for part, s in zip(parts, shares, strict=True))


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: split_by_class([0, 1], (0.5, 0.6)), ["(0.5, 0.6)", "sum to 1"]),
        (lambda: split_by_class([0, 1], (1.0, 0.0)), ["above 0"]),
        (lambda: split_by_class([0, 1], ()), ["sum to 1"]),
        (lambda: split_by_class([], (0.5, 0.5)), ["no rows"]),
        (lambda: folds([0, 1], 3), ["3 folds of 2 rows"]),
        (lambda: folds([0, 1], 1), ["pass 2 or more"]),
        (lambda: split_tails(3, (0.9, 0.1)), ["part 2 of 3 steps", "no steps"]),
    ],
)
def test_a_split_that_cannot_be_is_refused(call, words):
    with pytest.raises(DataError) as caught:
        call()
    assert [word for word in words if word not in str(caught.value)] == []
