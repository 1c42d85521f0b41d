"""Sequences without padding, and mini-batches of similar length."""

from __future__ import annotations

from itertools import pairwise

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from ostinato.data import Buckets, Sequences
from ostinato.errors import DataError

LENGTHS = st.lists(st.integers(0, 9), min_size=1, max_size=12)


def numbered(lengths: list[int], width: int | None) -> list[torch.Tensor]:
    """Sequences in which every number is another."""
    parts, start = [], 1
    for length in lengths:
        size = length * (width or 1)
        part = torch.arange(start, start + size)
        parts.append(part if width is None else part.float().view(length, width))
        start += size
    return parts


# ---------------------------------------------------------------- sequences


@given(LENGTHS, st.sampled_from([None, 1, 3]))
def test_each_sequence_comes_out_as_it_went_in(lengths, width):
    parts = numbered(lengths, width)
    sequences = Sequences.of(parts)
    assert len(sequences) == len(parts)
    for n, part in enumerate(parts):
        assert torch.equal(sequences[n], part)
        assert torch.equal(sequences[n - len(parts)], part)


@given(LENGTHS, st.sampled_from([None, 1, 3]), st.data())
def test_a_batch_holds_the_sequences_and_the_fill(lengths, width, data):
    parts = numbered(lengths, width)
    rows = data.draw(st.lists(st.integers(0, len(parts) - 1), max_size=8))
    batch, got = Sequences.of(parts).padded(rows, fill=-1)
    assert got.dtype == torch.int64
    assert got.tolist() == [lengths[row] for row in rows]
    assert batch.shape[:2] == (max((lengths[row] for row in rows), default=0), len(rows))
    for b, row in enumerate(rows):
        assert torch.equal(batch[: lengths[row], b], parts[row])
        assert (batch[lengths[row] :, b] == -1).all()


@given(LENGTHS, st.data())
def test_taking_rows_is_taking_each(lengths, data):
    sequences = Sequences.of(numbered(lengths, 2))
    rows = data.draw(st.lists(st.integers(0, len(lengths) - 1), max_size=8))
    taken = sequences.take(torch.tensor(rows, dtype=torch.int64))
    assert len(taken) == len(rows)
    for n, row in enumerate(rows):
        assert torch.equal(taken[n], sequences[row])


def test_rows_of_integers_stay_integers():
    sequences = Sequences.of([torch.tensor([[1, 2], [3, 4]]).int(), torch.tensor([[5, 6]]).int()])
    batch, lengths = sequences.padded()
    assert batch.dtype == torch.int32
    assert (batch.tolist(), lengths.tolist()) == ([[[1, 2], [5, 6]], [[3, 4], [0, 0]]], [2, 1])


def test_without_rows_all_are_padded():
    sequences = Sequences.of(numbered([2, 0, 3], None))
    batch, lengths = sequences.padded()
    assert lengths.tolist() == [2, 0, 3]
    assert batch.t().tolist() == [[1, 2, 0], [0, 0, 0], [3, 4, 5]]


@pytest.mark.parametrize(
    ("values", "lengths", "words"),
    [
        (torch.arange(3), torch.tensor([1, 1]), ["sum to 2", "3 steps"]),
        (torch.arange(3), torch.tensor([4, -1]), ["lengths[1] = -1", "0 or more"]),
        (torch.arange(3), torch.tensor([3.0]), ["[1] float32", "int64"]),
        (torch.arange(3.0), torch.tensor([3]), ["[3] float32", "[S, 1]"]),
        (torch.ones(3, 2).double(), torch.tensor([3]), ["[3, 2] float64", "float32"]),
        (torch.ones(3, 2, 1), torch.tensor([3]), ["[3, 2, 1]"]),
    ],
)
def test_sequences_that_do_not_fit_are_refused(values, lengths, words):
    with pytest.raises(DataError) as caught:
        Sequences(values, lengths)
    assert [word for word in words if word not in str(caught.value)] == []


def test_mixed_kinds_and_unknown_rows_are_refused():
    with pytest.raises(DataError, match=r"sequence 1 is \[2, 1\] float32"):
        Sequences.of([torch.ones(2, 3), torch.ones(2, 1)])
    with pytest.raises(DataError, match="no sequences"):
        Sequences.of([])
    sequences = Sequences.of(numbered([2, 1], None))
    with pytest.raises(DataError, match="sequence 2 asked for; there are 2"):
        sequences.padded([0, 2])
    with pytest.raises(DataError, match="sequence -1 asked for"):
        sequences.take([-1])
    with pytest.raises(IndexError, match="sequence 2"):
        sequences[2]
    assert [len(one) for one in sequences] == [2, 1]  # an IndexError is how a for loop finds the end


# ---------------------------------------------------------------- buckets

BUCKETS = {
    "lengths": st.lists(st.integers(0, 50), min_size=1, max_size=60),
    "batch_size": st.integers(1, 9),
    "seed": st.integers(0, 2**40),
    "pool": st.integers(1, 5),
}


def batches(buckets: Buckets, epoch: int) -> list[list[int]]:
    return [buckets.rows(epoch, index).tolist() for index in range(len(buckets))]


@given(epoch=st.integers(0, 1000), **BUCKETS)
def test_an_epoch_holds_each_sequence_once(lengths, batch_size, seed, pool, epoch):
    buckets = Buckets(torch.tensor(lengths), batch_size, seed, pool)
    found = batches(buckets, epoch)
    assert sorted(row for rows in found for row in rows) == list(range(len(lengths)))
    assert sum(len(rows) != batch_size for rows in found) == bool(len(lengths) % batch_size)


@given(epoch=st.integers(0, 1000), data=st.data(), **BUCKETS)
def test_a_batch_depends_on_seed_epoch_and_index_alone(lengths, batch_size, seed, pool, epoch, data):
    used, fresh = (Buckets(torch.tensor(lengths), batch_size, seed, pool) for _ in range(2))
    index = data.draw(st.integers(0, len(used) - 1))
    for other in (0, epoch + 1):  # another epoch before does not show
        used.rows(other, 0)
    used.padding(epoch)
    assert torch.equal(used.rows(epoch, index), fresh.rows(epoch, index))


@given(epoch=st.integers(0, 1000), **BUCKETS)
def test_within_a_pool_batches_do_not_overlap_in_length(lengths, batch_size, seed, pool, epoch):
    buckets = Buckets(torch.tensor(lengths), batch_size, seed, pool=len(lengths))
    spans = sorted((min(ls), max(ls)) for ls in ([lengths[r] for r in rows] for rows in batches(buckets, epoch)))
    assert all(high <= low for (_, high), (low, _) in pairwise(spans))


def test_epochs_and_seeds_differ_and_batches_are_not_in_order_of_length():
    lengths = torch.arange(200) % 40
    buckets = Buckets(lengths, 10, seed=1)
    assert batches(buckets, 0) != batches(buckets, 1)
    assert batches(buckets, 0) != batches(Buckets(lengths, 10, seed=2), 0)
    means = [float(lengths[rows].float().mean()) for rows in batches(buckets, 0)]
    assert means != sorted(means)


def test_the_smaller_batch_is_not_always_the_longest():
    lengths = torch.arange(47)
    smaller = set()
    for epoch in range(30):
        smaller |= {max(rows) for rows in batches(Buckets(lengths, 10), epoch) if len(rows) == 7}
    assert smaller == {6, 16, 26, 36, 46}


@pytest.mark.parametrize("seed", range(5))
def test_buckets_pad_less_than_random_order(seed):
    lengths = torch.randint(1, 60, (997,), generator=torch.Generator().manual_seed(seed))
    shuffled = torch.randperm(len(lengths), generator=torch.Generator().manual_seed(seed))
    steps = sum(len(rows) * int(lengths[rows].max()) for rows in shuffled.split(16))
    random = 1 - int(lengths.sum()) / steps
    assert Buckets(lengths, 16, seed).padding() < 0.05 < 0.4 < random
    assert Buckets(lengths, 16, seed, pool=1).padding() == pytest.approx(random, abs=0.05)


def test_padding_is_the_share_of_steps_behind_an_end():
    assert Buckets(torch.tensor([1, 3]), 2).padding() == pytest.approx(2 / 6)
    assert Buckets(torch.tensor([5, 5, 5]), 2).padding() == 0.0
    assert Buckets(torch.tensor([0, 0]), 2).padding() == 0.0


def test_buckets_refuse_what_there_is_not():
    with pytest.raises(DataError, match="N of 1 or more"):
        Buckets(torch.tensor([], dtype=torch.int64), 2)
    with pytest.raises(DataError, match="batch_size is 0"):
        Buckets(torch.tensor([1]), 0)
    with pytest.raises(DataError, match="batches 0 to 1"):
        Buckets(torch.tensor([1, 2, 3]), 2).rows(0, 2)
