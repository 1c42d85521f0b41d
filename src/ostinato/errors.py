"""Every exception Ostinato raises.

    OstinatoError
    ├── CellError          a cell's equations cannot be read (also a TypeError)
    ├── ProgramError       a Program is not well formed, or of another version (also a ValueError)
    ├── ShapeError         sizes, dtypes, lengths or states that do not fit (also a ValueError)
    ├── BackendError       a backend cannot run this here (also a RuntimeError)
    │   ├── CompileError   the C compiler is missing or failed
    │   ├── LaunchError    a kernel could not be launched
    │   │   └── TooLargeError  for a call as large as this one
    │   └── StalledError   what a kernel gave is not to be used
    ├── CacheError         the kernel cache cannot be used (also an OSError)
    │   └── UnsafeCacheError  others could put code there that would be loaded
    ├── DataError          a text or a data file cannot be used (also a ValueError)
    └── RunError           a run folder or a checkpoint cannot be used (also a ValueError)
        └── OptionError    an option or a config cannot be used

A message says the fact, what was got, and the remedy.
"""

from __future__ import annotations

__all__ = [
    "BackendError",
    "CacheError",
    "CellError",
    "CompileError",
    "DataError",
    "LaunchError",
    "OptionError",
    "OstinatoError",
    "ProgramError",
    "RunError",
    "ShapeError",
    "StalledError",
    "TooLargeError",
    "UnsafeCacheError",
]


class OstinatoError(Exception):
    """The base of every error that Ostinato raises on purpose."""


class CellError(OstinatoError, TypeError):
    """A cell's equations cannot be read; the message shows the user's own line."""


class ProgramError(OstinatoError, ValueError):
    """A Program is not well formed, or was written by another version."""


class ShapeError(OstinatoError, ValueError):
    """Sizes, dtypes, lengths or states that do not fit together."""


class BackendError(OstinatoError, RuntimeError):
    """A backend was asked for that cannot run this here; the message says why."""


class CompileError(BackendError):
    """The system's C compiler is missing or failed."""


class LaunchError(BackendError):
    """A kernel could not be launched: it asks for more than the device has, or the driver refuses it."""


class TooLargeError(LaunchError):
    """A call has more sequences, steps or numbers than a kernel takes; a smaller one may be run."""


class StalledError(BackendError):
    """Programs of a kernel did not meet in time: what it gave, in this call or an earlier one, is not to be used."""


class CacheError(OstinatoError, OSError):
    """The kernel cache cannot be made, written or read."""


class UnsafeCacheError(CacheError):
    """The kernel cache belongs to another user or can be written by others, and code is loaded from it."""


class DataError(OstinatoError, ValueError):
    """A text or a data file that cannot be used."""


class RunError(OstinatoError, ValueError):
    """A run folder or a checkpoint that cannot be used."""


class OptionError(RunError):
    """An option that there is not, of a wrong type, out of its range, or that this machine cannot follow."""
