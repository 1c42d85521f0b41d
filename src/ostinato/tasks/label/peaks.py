"""From a probability at every step to events, and from events to how well they were found."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

__all__ = ["Matched", "heart_rate", "match", "pick", "refine", "steady_level"]


def pick(probabilities: np.ndarray, distance: int, floor: float) -> np.ndarray:
    """Peaks, the highest first served: no two are nearer than `distance`.

    A peak is no lower than the step before it and higher than the one behind it. Those above a threshold t are the
    picked ones with probability >= t, for any t >= `floor`: what is lower never displaces what is higher.

    Args:
        probabilities: [T].
        distance: least steps between two peaks.
        floor: peaks below are none.

    Returns:
        their steps, rising, [P] int64.

    >>> pick(np.array([0.1, 0.9, 0.2, 0.8, 0.0, 0.6]), distance=3, floor=0.5)
    array([1, 5])
    """
    p = np.asarray(probabilities, dtype=np.float64)
    before, behind = np.append(-np.inf, p[:-1]), np.append(p[1:], -np.inf)
    candidates = np.flatnonzero((p >= before) & (p > behind) & (p >= floor))
    free = np.ones(len(p), dtype=bool)
    kept: list[int] = []
    for at in candidates[np.argsort(-p[candidates], kind="stable")].tolist():
        if free[at]:
            kept.append(at)
            free[max(0, at - distance + 1) : at + distance] = False
    return np.array(sorted(kept), dtype=np.int64)


def refine(probabilities: np.ndarray, steps: np.ndarray, frame: int, reach: int = 1) -> np.ndarray:
    """Where events stand among the samples: the centre of mass of the probability at a peak and beside it.

    Args:
        probabilities: [T].
        steps: of the peaks, [P].
        frame: samples in a step.
        reach: steps on each side that count; of a peak with a flat top, to beyond its other end.

    Returns:
        [P] float64 samples; a peak without neighbours stands in the middle of its step.

    >>> refine(np.array([0.0, 0.5, 0.5, 0.0]), np.array([1]), frame=4)
    array([7.5])
    """
    padded = np.pad(np.asarray(probabilities, dtype=np.float64), reach)
    away = np.arange(-reach, reach + 1)
    near = padded[steps[:, None] + reach + away]  # [P, 2 reach + 1]
    offset = (near * away).sum(1) / np.maximum(near.sum(1), 1e-12)
    return (steps + offset + 0.5) * frame - 0.5


@dataclass(frozen=True)
class Matched:
    """Which detection answers which event.

    Args:
        pairs: numbers of the event and of the detection, [M, 2], rising in both.
        events: how many there are.
        detections: how many there are.
    """

    pairs: np.ndarray
    events: int
    detections: int

    @property
    def missed(self) -> np.ndarray:
        """The numbers of the events that none answers."""
        return np.setdiff1d(np.arange(self.events), self.pairs[:, 0])

    @property
    def false(self) -> np.ndarray:
        """The numbers of the detections that answer none."""
        return np.setdiff1d(np.arange(self.detections), self.pairs[:, 1])


def match(events: np.ndarray, detections: np.ndarray, tolerance: float) -> Matched:
    """Events and detections one to one: as many pairs within the tolerance as can be, and of these the nearest.

    Args:
        events: [K], rising.
        detections: [P], rising.
        tolerance: the largest distance within a pair, in the units of both.

    >>> match(np.array([10, 50]), np.array([12, 30, 49]), 5).pairs.tolist()
    [[0, 0], [1, 2]]
    """
    times = np.concatenate([events, detections]).astype(np.float64)
    order = np.argsort(times, kind="stable")
    # No pair reaches over a gap wider than the tolerance: what lies between two such gaps stands alone.
    cluster = np.zeros(len(order), dtype=np.int64)
    cluster[1:] = np.cumsum(np.diff(times[order]) > tolerance)
    is_event = order < len(events)
    own = np.bincount(cluster[is_event], minlength=len(order))
    found = np.bincount(cluster[~is_event], minlength=len(order))
    plain = (own == 1) & (found == 1)  # nearly all of them: the two are a pair
    here = plain[cluster]
    pairs = [np.stack([order[is_event & here], order[~is_event & here] - len(events)], axis=1)]
    for n in np.flatnonzero((own > 0) & (found > 0) & ~plain):
        members = np.sort(order[cluster == n])
        own_n, found_n = members[: own[n]], members[own[n] :] - len(events)
        taken = _assigned(np.abs(events[own_n][:, None].astype(np.float64) - detections[found_n][None]), tolerance)
        # Crossed pairs are as near uncrossed, so they are put into order.
        pairs.append(np.stack([np.sort(own_n[taken[0]]), np.sort(found_n[taken[1]])], axis=1))
    every = np.concatenate(pairs)
    return Matched(every[np.argsort(every[:, 0], kind="stable")], len(events), len(detections))


def _assigned(apart: np.ndarray, tolerance: float) -> tuple[np.ndarray, np.ndarray]:
    """Rows and columns of the most pairs within the tolerance, and of these the nearest, [k, p] distances given."""
    from scipy.optimize import linear_sum_assignment

    more = 1.0 + (tolerance + 1.0) * min(apart.shape)  # one more pair outweighs every nearness
    rows, columns = linear_sum_assignment(np.where(apart <= tolerance, apart - more, 0.0))
    kept = apart[rows, columns] <= tolerance
    return rows[kept], columns[kept]


def steady_level(levels: np.ndarray, right: np.ndarray, total: np.ndarray) -> float:
    """The threshold in the middle of those that are about as good as the best: at their edge one does not carry over.

    About as good is an F1 = 2 right / total within one standard error of the best one (the rule of Breiman et al.
    1984). Its faults, total - 2 right of them, are taken as a Poisson count, so that the error is
    sqrt(max(1, faults)) / total. Of the stretches of neighbouring levels which are that good and hold a best one the
    widest counts, and of its levels the one that is nearest to the middle.

    Args:
        levels: rising, [L].
        right: matched pairs at each, [L].
        total: events and detections at each, [L].

    >>> levels = np.array([0.1, 0.3, 0.5, 0.7, 0.9])
    >>> steady_level(levels, np.array([98, 98, 97, 97, 80]), np.array([200, 199, 197, 196, 180]))
    0.5
    """
    f1 = 2 * right / np.maximum(total, 1)
    best = int(f1.argmax())
    error = np.sqrt(max(1.0, float(total[best] - 2 * right[best]))) / max(1.0, float(total[best]))
    good = f1 >= f1[best] - error
    edges = np.flatnonzero(np.diff(np.concatenate(([False], good, [False]))))
    stretches = [(start, end) for start, end in edges.reshape(-1, 2) if (f1[start:end] == f1[best]).any()]
    start, end = max(stretches, key=lambda ends: levels[ends[1] - 1] - levels[ends[0]])
    own = levels[start:end]
    return float(own[np.abs(own - (own[0] + own[-1]) / 2).argmin()])


def heart_rate(events: np.ndarray, rate: float) -> float:
    """The mean rate of events, a minute: 60 rate (K - 1) / (t_K - t_1); 0 where there are fewer than two.

    Args:
        events: samples, [K], rising.
        rate: samples a second.

    >>> heart_rate(np.array([0, 360, 720]), rate=360.0)
    60.0
    """
    if len(events) < 2 or events[-1] <= events[0]:
        return 0.0
    return float(60.0 * rate * (len(events) - 1) / (events[-1] - events[0]))
