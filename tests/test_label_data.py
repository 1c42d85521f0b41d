"""What the task label reads: formats, parts, windows, and what is wrong with a file."""

from __future__ import annotations

import dataclasses
import io
import os
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from ostinato.data import Sequences
from ostinato.errors import DataError, OptionError
from ostinato.tasks.label.config import LabelConfig
from ostinato.tasks.label.found import Found
from ostinato.tasks.label.parts import split
from ostinato.tasks.label.read import read_source, read_training
from ostinato.tasks.label.scheme import Part, Scheme
from ostinato.tasks.label.windows import WindowBatches, Windows
from ostinato.training.task import WHOLE, Share
from small_labels import found, jsonl, parity, pulses, rolls

# ---------------------------------------------------------------- formats


def test_columns_json_lines_and_arrays_say_the_same(tmp_path):
    (tmp_path / "a.txt").write_text("5 X\n6 Y\n\n5 Y\n")
    jsonl(tmp_path / "b.jsonl", {"tokens": ["5", 6], "tags": ["X", "Y"]}, {"tokens": [5], "tags": ["Y"]})
    np.savez(tmp_path / "c.npz", values=np.array([5, 6, 5]), lengths=np.array([2, 1]), tags=np.array(["X", "Y", "Y"]))
    for name in ("a.txt", "b.jsonl", "c.npz"):
        held = found(tmp_path / name)
        assert held.kind == "tags" and held.inputs.lengths.tolist() == [2, 1]
        assert [held.words[n] for n in held.inputs.values.tolist()] == ["5", "6", "5"]
        assert [held.labels[n] for n in held.answers.values.tolist()] == ["X", "Y", "Y"]
        with open(tmp_path / name, "rb") as stream:  # from a pipe too
            piped = read_source(io.BytesIO(stream.read()), LabelConfig())
        assert piped.answers.values.tolist() == held.answers.values.tolist()


def test_columns_are_chosen(tmp_path):
    (tmp_path / "a.conll").write_text("1\tthe\tDT\tO\n2\tcat\tNN\tB\n")
    held = found(tmp_path / "a.conll", token_column=2, tag_column=-2)
    assert held.words == ["cat", "the"] and held.labels == ["DT", "NN"]


def test_lists_of_tags_are_several_labels(tmp_path):
    held = found(jsonl(tmp_path / "a.jsonl", {"tokens": ["a", "b"], "tags": [["Y", "X"], []]}))
    assert held.kind == "multi" and held.labels == ["X", "Y"]
    assert held.answers.values.tolist() == [[1, 1], [0, 0]]


def test_frames_alone_are_foretold_from_those_before(tmp_path):
    held = found(rolls(tmp_path / "a.npz"))
    scheme = Scheme.of(LabelConfig(), held, torch.arange(8))
    part = scheme.part(held, torch.tensor([3]))
    assert held.next_frame and scheme.labels[39] == "C4"
    assert not part.inputs[0][0].any()  # the first from nothing
    assert torch.equal(part.inputs[0][1:], part.answers[0][:-1])


def test_events_become_steps(tmp_path):
    arrays = {"fs": np.array(50), "signal_a": np.arange(10.0), "events_a": np.array([0, 7, 8])}
    np.savez(tmp_path / "a.npz", **arrays)
    held = found(tmp_path / "a.npz")
    part = Scheme.of(LabelConfig.of(frame=4, normalize="none"), held, torch.tensor([0])).part(held)
    assert part.answers.values.flatten().tolist() == [1, 1, 1]
    assert part.inputs.values.tolist() == [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9, 9, 9]]


def test_steps_near_an_event_hold_it_too(tmp_path):
    signal = np.zeros(40, np.float32)
    np.savez(tmp_path / "a.npz", fs=np.array(1000), signal_r=signal, events_r=np.array([2, 21, 39]))
    held = found(tmp_path / "a.npz")
    for spread, steps in ((0, [0, 5, 9]), (3, [0, 1, 4, 5, 6, 9]), (50, list(range(10)))):
        scheme = Scheme.of(LabelConfig.of(frame=4, spread=spread), held, torch.tensor([0]))
        part = scheme.part(held)
        assert part.answers is not None
        assert part.answers.values[:, 0].nonzero().flatten().tolist() == steps
        assert part.events(0).tolist() == [2, 21, 39]  # what is to be found does not change


def test_features_are_scaled_by_the_training_part_or_each_record_by_itself(tmp_path):
    held = found(pulses(tmp_path / "a.npz"))
    train = torch.tensor([0, 1])
    by_record = Scheme.of(LabelConfig.of(frame=1), held, train).part(held, torch.tensor([4])).inputs.values
    assert by_record.mean().abs() < 1e-5 and by_record.std(correction=0) == pytest.approx(1.0, abs=1e-5)
    by_train = Scheme.of(LabelConfig.of(frame=1, normalize="train"), held, train).part(held, train).inputs.values
    assert by_train.mean().abs() < 1e-5 and by_train.std(correction=0) == pytest.approx(1.0, abs=1e-5)
    again = Scheme.from_json(Scheme.of(LabelConfig(), held, train).to_json())
    assert again == Scheme.of(LabelConfig(), held, train)


def test_rare_and_new_words_are_unknown(tmp_path):
    (tmp_path / "a.txt").write_text("a X\na Y\nb X\n")
    held = found(tmp_path / "a.txt")
    scheme = Scheme.of(LabelConfig.of(min_count=2), held, torch.tensor([0]))
    assert scheme.words == ["a"]
    (tmp_path / "new.txt").write_text("z X\na Y\n")
    assert scheme.part(found(tmp_path / "new.txt")).inputs.values.tolist() == [0, 1]


# ---------------------------------------------------------------- parts


def test_every_sequence_is_in_one_part(tmp_path):
    held = found(parity(tmp_path / "a.txt"))
    for options in ({}, {"test": 0.0}, {"folds": 5, "fold": 2}):
        rows = split(LabelConfig.of(**options), held)
        assert torch.cat(list(rows.values())).sort().values.tolist() == list(range(len(held)))
    assert not len(split(LabelConfig.of(test=0.0), held)["test"])


def test_records_go_whole(tmp_path):
    held = found(pulses(tmp_path / "a.npz", records=12, seconds=2))
    rows = split(LabelConfig(), held)
    assert [len(rows[part]) for part in ("train", "validation", "test")] == [7, 2, 3]
    named = split(LabelConfig.of(test_records=["r3", "r1"], validation_records=["r11"]), held)
    names = {part: [held.names[n] for n in own.tolist()] for part, own in named.items()}
    assert names["test"] == ["r1", "r3"] and names["validation"] == ["r11"] and len(names["train"]) == 9


@pytest.mark.skipif("OSTINATO_DATA" not in os.environ, reason="needs the real data: set OSTINATO_DATA")
@pytest.mark.parametrize(
    ("name", "kind", "counts"), [("jsb_chorales", "multi", (229, 76, 77)), ("mitbih", "events", (7, 2, 3))]
)
def test_data_sets_are_taken_by_name(name, kind, counts):
    config = LabelConfig.of(data=name)
    held = read_training(config)
    rows = split(config, held)
    assert held.kind == kind and tuple(len(rows[part]) for part in ("train", "validation", "test")) == counts


# ---------------------------------------------------------------- windows


def steps(lengths: list[int]) -> Part:
    """Sequences in which each step is its own number."""
    total = sum(lengths)
    values = Sequences(torch.arange(total), torch.tensor(lengths))
    return Part(Found("tags", "steps", values), torch.arange(len(lengths)), values, values)


@given(
    st.lists(st.integers(0, 13), min_size=1, max_size=5).filter(any),
    st.one_of(st.none(), st.integers(1, 6)),
    st.integers(0, 4),
    st.integers(0, 4),
)
def test_every_step_counts_once_after_those_before_it(lengths, size, before, behind):
    part = steps(lengths)
    windows = Windows(part, size, before, behind)
    starts = part.inputs.lengths.cumsum(0) - part.inputs.lengths
    counted: list[int] = []
    for piece in windows.pieces(WHOLE):
        assert piece.seen == int((piece.where >= 0).sum())
        assert torch.equal(piece.inputs[piece.where >= 0], piece.where[piece.where >= 0])
        for b, length in enumerate(piece.lengths.tolist()):
            read = piece.inputs[:length, b]
            first = int(piece.where[:, b][piece.where[:, b] >= 0][0])
            n = int((starts <= first).sum()) - 1
            while lengths[n] == 0:
                n -= 1
            assert read.tolist() == list(range(int(read[0]), int(read[0]) + length))
            assert int(read[0]) == max(int(starts[n]), first - before)
            assert int(read[-1]) < int(starts[n]) + lengths[n]
        counted += piece.where[piece.where >= 0].tolist()
    assert sorted(counted) == list(range(sum(lengths)))


@pytest.mark.parametrize("count", [1, 2, 5])
def test_shares_are_the_whole(count):
    windows = Windows(steps([9, 3, 7]), 4, 1, 0)
    batches = WindowBatches(windows, 3, seed=1)
    for index in range(len(batches)):
        whole = batches.get(2, index, WHOLE)
        parts = [batches.get(2, index, Share(k, count)) for k in range(count)]
        assert all(part.seen == whole.seen for part in parts)
        own = torch.cat([part.where[part.where >= 0] for part in parts])
        assert sorted(own.tolist()) == sorted(whole.where[whole.where >= 0].tolist())


def test_transposed_rolls_keep_their_notes_and_are_drawn_anew(tmp_path):
    held = found(rolls(tmp_path / "a.npz"))
    part = Scheme.of(LabelConfig(), held, torch.arange(12)).part(held)
    plain, moved = (WindowBatches(Windows(part), 12, 0, most) for most in (0, 5))
    shifts: set[int] = set()
    for epoch in range(3):
        a, b = plain.get(epoch, 0, WHOLE), moved.get(epoch, 0, WHOLE)
        halves = [moved.get(epoch, 0, Share(k, 2)).answers for k in range(2)]
        assert torch.equal(torch.cat(halves, 1), b.answers)
        for n in range(12):
            shift = int(b.answers[0, n].nonzero()[0] - a.answers[0, n].nonzero()[0])
            assert torch.equal(a.answers[:, n].roll(shift, 1), b.answers[:, n])
            assert torch.equal(a.inputs[:, n].roll(shift, 1), b.inputs[:, n])
            shifts.add(shift)
    assert min(shifts) < 0 < max(shifts) and max(map(abs, shifts)) <= 5


def test_a_gain_is_each_windows_own_and_leaves_the_answers(tmp_path):
    held = found(pulses(tmp_path / "a.npz", seconds=4))
    part = Scheme.of(LabelConfig(), held, torch.arange(6)).part(held)
    plain, louder, turned = (
        WindowBatches(Windows(part), 6, 0, gain=gain, flip=flip).get(1, 0, WHOLE)
        for gain, flip in ((0.0, 0.0), (0.5, 0.0), (0.0, 0.5))
    )
    signs = (turned.inputs / plain.inputs).nanmedian(0).values[:, 0]
    assert set(signs.tolist()) == {1.0, -1.0} and torch.equal(turned.inputs, plain.inputs * signs[:, None])
    assert torch.equal(plain.answers, louder.answers)
    ratios = (louder.inputs / plain.inputs).nanmedian(0).values[:, 0]
    assert torch.allclose(louder.inputs, plain.inputs * ratios[:, None], atol=1e-5)
    assert len(set(ratios.tolist())) == 6 and float(ratios.min()) >= 0.5 and float(ratios.max()) <= 1.5


# ---------------------------------------------------------------- what is wrong


def refused(path, text: str | None = None, **options: object) -> str:
    if text is not None:
        path.write_text(text)
    config = LabelConfig.of(data=str(path), **options)
    with pytest.raises((DataError, OptionError)) as caught:
        split(config, read_training(config))
    return str(caught.value)


def test_steps_without_their_answer_are_named_by_their_line(tmp_path):
    assert "line 3 has 1 columns, but line 1 has 2" in refused(tmp_path / "a.txt", "a X\nb Y\nc\n")
    path = jsonl(tmp_path / "a.jsonl", {"tokens": ["a"], "tags": ["X"]}, {"tokens": ["a", "b"], "tags": ["X"]})
    assert "line 2 has 2 tokens and 1 tags" in refused(path)
    assert "line 2: this sequence has no tags" in refused(
        jsonl(tmp_path / "b.jsonl", {"tokens": ["a"], "tags": ["X"]}, {"tokens": ["a"]})
    )
    np.savez(tmp_path / "a.npz", values=np.arange(4), lengths=np.array([4]), tags=np.arange(3))
    assert "4 steps of values and 3 of tags" in refused(tmp_path / "a.npz")


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"values": np.zeros((2, 2, 3))}, "values is of shape [2, 2, 3]; pass [S] or [S, D]"),
        ({"lengths": np.array([1.5, 2.5])}, "lengths is [1.5, 2.5]; pass whole numbers"),
        ({"lengths": np.array([5, -1])}, "lengths is [5, -1]; pass whole numbers"),
        ({"lengths": np.array([2, 3])}, "lengths sum to 5, but there are 4 steps"),
        ({"tags": np.array([0.0, np.nan, 1.0, 1.0])}, "tags[1] is missing"),
    ],
)
def test_arrays_that_are_no_sequences_are_refused(tmp_path, change, words):
    arrays = {"values": np.ones((4, 2)), "lengths": np.array([2, 2]), "tags": np.array([0, 1, 0, 1])}
    np.savez(tmp_path / "a.npz", **(arrays | change))
    assert f"a.npz: {words}" in refused(tmp_path / "a.npz")


def test_files_that_hold_nothing_to_learn_are_refused(tmp_path):
    assert "empty" in refused(tmp_path / "a.txt", "")
    assert "blanks" in refused(tmp_path / "a.txt", " \n\n")
    assert "has no tags" in refused(tmp_path / "a.txt", "a\nb\n")
    assert "one tag alone" in refused(tmp_path / "a.txt", "a X\n\nb X\n\nc X\n")
    assert "too few for 3 parts" in refused(tmp_path / "a.txt", "a X\nb Y\n")
    assert "empty" in refused(tmp_path / "b.npz", "")
    np.savez(tmp_path / "c.npz", values=np.zeros((0, 2)), lengths=np.zeros(0, np.int64))
    assert "empty" in refused(tmp_path / "c.npz")
    assert "did you mean jsb_chorales" in refused(Path("jsb_choral"))
    with pytest.raises(DataError, match="has no data of its own"):
        read_training(LabelConfig())


def test_json_lines_that_are_none_are_named(tmp_path):
    assert "line 2 is no JSON" in refused(tmp_path / "a.jsonl", '{"tokens": ["a"], "tags": ["X"]}\n{"tokens"\n')
    assert "--tokens-field" in refused(tmp_path / "a.jsonl", '{"words": ["a"], "tags": ["X"]}\n')
    mixed = '{"tokens": ["a"], "tags": ["X"]}\n{"tokens": ["a"], "tags": [["X"]]}\n'
    assert "line 2: a tag is ['X']" in refused(tmp_path / "a.jsonl", mixed)


def test_labels_that_were_never_learned_are_named_by_their_line(tmp_path):
    held = found(parity(tmp_path / "a.txt"))
    scheme = Scheme.of(LabelConfig(), held, torch.arange(len(held)))
    (tmp_path / "new.txt").write_text("1 odd\n1 even\n\n0 neither\n")
    with pytest.raises(DataError, match="line 4: 'neither' is a label the model never learned; it knows even, odd"):
        scheme.part(found(tmp_path / "new.txt"))


def test_signals_and_events_that_do_not_fit_are_refused(tmp_path):
    at = tmp_path / "a.npz"
    assert "events_r0[1] = 5 comes after 9" in refused(pulses(at, events_r0=np.array([9, 5])))
    assert "pass sample numbers" in refused(pulses(at, events_r0=np.array(["9", "15"])))
    assert "events_r0[1] = 2000 lies outside" in refused(pulses(at, events_r0=np.array([9, 2000])))
    assert "events_r0[0] = -1 lies outside" in refused(pulses(at, events_r0=np.array([-1])))
    assert "events of r99 and no signal" in refused(pulses(at, events_r99=np.array([1])))
    assert "signal_r1[7] is not finite" in refused(pulses(at, signal_r1=np.where(np.arange(2000) == 7, np.nan, 0.0)))
    assert "channels" in refused(pulses(at, signal_r1=np.zeros((2000, 2))))
    assert "'r77', which a.npz does not hold; it has r0, r1" in refused(pulses(at), test_records=["r77"])
    assert "name it once" in refused(at, test_records=["r1"], validation_records=["r1"])
    assert "says 100 samples a second" in refused(at, rate=360.0)
    arrays = {name: array for name, array in np.load(at).items() if name != "fs"}
    np.savez(at, **arrays)
    assert "has no fs" in refused(at) and "--rate" in refused(at)
    assert found(at, rate=50.0).rate == 50.0


def test_options_that_ask_for_two_things_are_refused(tmp_path):
    at = pulses(tmp_path / "a.npz")
    assert "leave --folds out" in refused(at, folds=3, test_records=["r1"])
    assert "kind is 'tags'; pass --kind events" in refused(at, kind="tags")
    with pytest.raises(OptionError, match="columns count from 1"):
        LabelConfig.of(token_column=0)


def test_data_of_another_kind_are_refused(tmp_path):
    tags = found(parity(tmp_path / "a.txt"))
    beats = found(pulses(tmp_path / "a.npz"))
    scheme = Scheme.of(LabelConfig(), beats, torch.tensor([0]))
    with pytest.raises(DataError, match="holds data for tags, the model is for events"):
        scheme.part(tags)
    with pytest.raises(DataError, match="the model learned 100"):
        scheme.part(dataclasses.replace(beats, rate=360.0))


def test_features_of_0_and_1_need_not_be_frames(tmp_path):
    values, lengths = np.eye(4, dtype=np.float32), np.array([3, 1])
    np.savez(tmp_path / "tags.npz", values=values, lengths=lengths, tags=np.array([0, 1, 1, 0]))
    np.savez(tmp_path / "alone.npz", values=values, lengths=lengths)
    held, alone = found(tmp_path / "tags.npz"), found(tmp_path / "alone.npz")
    scheme = Scheme.of(LabelConfig(), held, torch.tensor([0, 1]))
    assert scheme.part(alone).answers is None
    assert torch.equal(scheme.part(alone).inputs.values, scheme.part(held).inputs.values)
    foretold = Scheme.of(LabelConfig(), alone, torch.tensor([0]))
    with pytest.raises(DataError, match="holds data for tags|no frames of 0 and 1"):
        foretold.part(held)
