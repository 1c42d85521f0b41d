"""Texts with a label each: from a table, a folder for each class, a file for each class, or a zip of such files."""

from __future__ import annotations

import os
import zipfile
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from ..errors import DataError
from .decoding import Source, decode, name_of, read_bytes
from .tables import read_table

__all__ = ["Texts", "read_lines", "read_texts", "read_zipped_texts"]


@dataclass(frozen=True)
class Texts:
    """N texts and, where they are known, their labels.

    Args:
        texts: N of them.
        labels: N of them; None where there are none.
        name: what the errors call them.
    """

    texts: list[str]
    labels: list[str] | None
    name: str

    def __len__(self) -> int:
        return len(self.texts)

    @property
    def classes(self) -> list[str]:
        """The labels that there are, each once, sorted."""
        return sorted(set(self.labels or ()))


def read_texts(
    source: Source,
    *,
    text: str = "text",
    label: str | None = "label",
    format: str | None = None,
    encoding: str = "utf-8",
    delimiter: str | None = None,
) -> Texts:
    """Texts and their labels.

    A table (CSV, TSV, JSON lines, Parquet) holds both in columns. In a folder of folders each folder is a class and
    each file in it a text; in a folder of files each file is a class and each line of it a text (blank lines are left
    out). A class is named by its folder, or by its file without the ending.

    Args:
        source: a table, as a path or an open stream, or a folder.
        text: the column of the texts.
        label: the column of the labels; None: labels are not read.
        format: of the table; None: by its name, and CSV for a stream.
        encoding: of the table or the files.
        delimiter: the sign between columns; None: the format's own.

    Raises:
        DataError: what cannot be read, with file and line; an empty class, or files and folders side by side.
    """
    if isinstance(source, (str, os.PathLike)) and Path(source).is_dir():
        return _folder(Path(source), encoding)
    table = read_table(source, format=format, encoding=encoding, delimiter=delimiter)
    labels = None if label is None else table.texts(label, empty=False)
    return Texts(table.texts(text), labels, table.name)


def read_lines(source: Source, encoding: str = "utf-8") -> list[str]:
    """The lines of a file or a stream that are not blank, without the blanks around them.

    Raises:
        DataError: it cannot be read, or holds nothing but blanks.
    """
    return _lines(decode(read_bytes(source), name_of(source), encoding))


def read_zipped_texts(path: str | os.PathLike[str], members: Mapping[str, str], encoding: str = "utf-8") -> Texts:
    """Texts from a zip that holds a file for each class, each line of it a text.

    Args:
        path: the zip.
        members: label to the name of the file within the zip.
        encoding: of these files.

    Raises:
        DataError: no zip, or no such file in it.
    """
    texts: list[str] = []
    labels: list[str] = []
    try:
        with zipfile.ZipFile(path) as archive:
            for label, member in members.items():
                lines = _lines(decode(archive.read(member), f"{member} in {path}", encoding))
                texts += lines
                labels += [label] * len(lines)
    except FileNotFoundError:
        raise DataError(f"there is no file {path} (looked from {Path.cwd()}); check the name.") from None
    except KeyError as error:
        raise DataError(f"{path} lacks a file: {error.args[0]}; pass the names it has.") from None
    except (OSError, EOFError, RuntimeError, zlib.error, zipfile.BadZipFile) as error:
        raise DataError(f"{path} is not a whole zip file: {error}; fetch it again.") from None
    return Texts(texts, labels, str(path))


def _folder(folder: Path, encoding: str) -> Texts:
    inside = [path for path in _listed(folder) if not path.name.startswith(".")]
    folders = [path for path in inside if path.is_dir()]
    files = [path for path in inside if path.is_file()]
    if folders and files:
        raise DataError(
            f"{folder} holds both folders, such as {folders[0].name}, and files, such as {files[0].name}; pass a "
            "folder that holds a folder for each class, or a file for each class."
        )
    if not folders and not files:
        raise DataError(f"{folder} is empty; pass a folder that holds a folder, or a file, for each class.")
    texts: list[str] = []
    labels: list[str] = []
    for path in folders:
        members = [file for file in _listed(path) if file.is_file() and not file.name.startswith(".")]
        if not members:
            raise DataError(f"{path} holds no files; put the texts of this class there, or take the folder away.")
        texts += [decode(read_bytes(file), str(file), encoding).strip() for file in members]
        labels += [path.name] * len(members)
    by_name: dict[str, Path] = {}
    for path in files:
        if (other := by_name.setdefault(path.stem, path)) != path:
            raise DataError(f"{other} and {path} would be one class, {path.stem!r}; rename one of them.")
        lines = _lines(decode(read_bytes(path), str(path), encoding))
        texts += lines
        labels += [path.stem] * len(lines)
    return Texts(texts, labels, str(folder))


def _listed(folder: Path) -> list[Path]:
    try:
        return sorted(folder.iterdir())
    except OSError as error:
        raise DataError(f"{folder} cannot be read: {error.strerror or error}; check its permissions.") from None


def _lines(text: str) -> list[str]:
    return [line.strip() for line in text.split("\n") if line.strip()]
