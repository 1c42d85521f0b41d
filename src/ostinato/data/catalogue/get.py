"""From a name to files: a folder of one's own first, then the cache, then the origin."""

from __future__ import annotations

import os
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from ...errors import DataError
from .cache import cache_folder, put, workplace
from .entry import Entry, File
from .listing import find
from .origins import Origin, OriginError, fault

__all__ = ["fetch"]

_T = TypeVar("_T")

DOWNLOADS = "downloads"
"""The folder of the cache in which a file of an origin may be laid by hand."""


def fetch(name: str | Entry, tell: Callable[[str], None] | None = None) -> dict[str, Path]:
    """The files of a data set, each checked against its size and sha256.

    They are taken from the folder that `OSTINATO_DATA` names, if it is set and holds them; else from the cache,
    ``$XDG_CACHE_HOME/ostinato/data``; else from their public origin, into the cache. Where a file is packed or cut
    on the way, what it says is checked instead of its bytes.

    Args:
        name: a data set's name, or its entry.
        tell: called with a line before anything is downloaded.

    Returns:
        File name to path.

    Raises:
        DataError: an unknown name, a file in `OSTINATO_DATA` that is not the one meant, a cache that cannot be
            written, or an origin that cannot be reached; the message says where to lay the file by hand.
    """
    entry = name if isinstance(name, Entry) else find(name)
    found = {file.name: _there(file) for file in entry.files}
    if None in found.values():
        with workplace(entry.name) as work:
            for file in entry.files:
                if found[file.name] is None:
                    found[file.name] = _there(file) or _made(entry, file, work, tell)
    return {file: path for file, path in found.items() if path is not None}


def _there(file: File) -> Path | None:
    """Where the file lies already."""
    own = os.environ.get("OSTINATO_DATA")
    if own:
        folder = Path(own).expanduser()
        if not folder.is_dir():
            raise DataError(f"OSTINATO_DATA is {own!r}, and there is no such folder; mend it, or unset it.")
        path = folder / file.path
        if path.is_file():
            if reason := _read(path, file.fault):
                raise DataError(
                    f"{path} (from OSTINATO_DATA) is not the file that is meant: {reason}. Replace it, or take it away "
                    "and it is fetched from its origin."
                )
            return path
    path = cache_folder() / file.path
    return path if path.is_file() and _read(path, file.fault) is None else None


def _made(entry: Entry, file: File, work: Path, tell: Callable[[str], None] | None) -> Path:
    """The file, made from its origins and put into the cache."""
    parts: list[bytes] = []
    for part in file.parts:
        source = _got(entry, part.origin, file, work, tell)
        parts.append(_read(source, lambda path, part=part: _member(path, part.member)))
    made = work / "made" / file.name
    made.parent.mkdir(exist_ok=True)
    made.write_bytes(parts[0] if file.convert is None else file.convert(parts))
    if reason := file.fault(made):
        origins = ", ".join(dict.fromkeys(str(part.origin) for part in file.parts))
        raise DataError(
            f"{file.name} of {entry.name} came from {origins}, but {reason}. The origin changed or the download was "
            f"altered on its way; lay the right file at {cache_folder() / file.path}."
        )
    path = cache_folder() / file.path
    put(made, path)
    return path


def _got(entry: Entry, origin: Origin, file: File, work: Path, tell: Callable[[str], None] | None) -> Path:
    """An origin's file: fetched before for this entry, laid by hand, or fetched now."""
    arrived = work / origin.name
    if arrived.is_file():
        return arrived
    laid = cache_folder() / DOWNLOADS / origin.name
    if laid.is_file():
        if reason := _read(laid, lambda path: fault(origin, path)):
            raise DataError(f"{laid} is not what {origin} has: {reason}. Replace it or take it away.")
        return laid
    if tell is not None:
        tell(f"{entry.name}: fetching {origin.name} from {origin}")
    try:
        path = origin.get(work)
        if reason := fault(origin, path):
            raise OriginError(f"{origin.name} is not the file that is meant: {reason}")
    except OriginError as error:
        verbatim = file.convert is None and file.parts[0].member is None
        # The file itself where it is the origin's; else what it is made from.
        place = cache_folder() / file.path if verbatim else laid
        raise DataError(
            f"{entry.name} could not be fetched from {origin}: {error}. Lay {origin.name}{_known(origin)} at {place} "
            f"by hand, or set OSTINATO_DATA to a folder that holds {file.path} ({file.size} bytes, "
            f"sha256 {file.sha256})."
        ) from error
    return path


def _known(origin: Origin) -> str:
    facts = [] if origin.size is None else [f"{origin.size} bytes"]
    facts += [] if origin.sha256 is None else [f"sha256 {origin.sha256}"]
    return f" ({', '.join(facts)})" if facts else ""


def _member(path: Path, member: str | None) -> bytes:
    """A member of a wheel, a zip or a tarball; the file itself where none is named."""
    if member is None:
        return path.read_bytes()
    if path.suffix == ".tgz":
        with tarfile.open(path) as archive:
            stream = archive.extractfile(member)
            if stream is None:
                raise KeyError(member)
            return stream.read()
    with zipfile.ZipFile(path) as archive:
        return archive.read(member)


def _read(path: Path, how: Callable[[Path], _T]) -> _T:
    """What `how` reads of a file, or an error that names it."""
    try:
        return how(path)
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror or error}; check its permissions.") from error
    except (KeyError, zipfile.BadZipFile, tarfile.TarError) as error:
        raise DataError(f"{path} cannot be unpacked ({error}); take it away and it is fetched again.") from error
