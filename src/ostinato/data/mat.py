"""MATLAB's files, read where a damaged one can do no harm."""

from __future__ import annotations

import os
import pickle
import signal
import subprocess
import sys

import numpy as np

from ..errors import DataError

__all__ = ["load_mat"]

_READ = """
import pickle, sys
import scipy.io
found = scipy.io.loadmat(sys.argv[1], appendmat=False)
pickle.dump({name: value for name, value in found.items() if not name.startswith("__")}, sys.stdout.buffer)
"""


def load_mat(path: str | os.PathLike[str]) -> dict[str, np.ndarray]:
    """The variables of a .mat of MATLAB 4 to 7.2.

    A process of its own reads it: scipy's reader may end a process by a fault of memory where the file is damaged.

    Raises:
        DataError: no such file, or one that cannot be read.
    """
    name = os.fspath(path)
    try:
        with open(name, "rb"):
            pass
    except FileNotFoundError:
        raise DataError(f"there is no file {path}; check the name.") from None
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror}; pass a file that you may read.") from None
    read = subprocess.run([sys.executable, "-c", _READ, os.path.abspath(name)], capture_output=True, check=False)
    if read.returncode == 0:
        return pickle.loads(read.stdout)  # noqa: S301  (what this module's own child wrote)
    if read.returncode < 0:
        said = f"its reader ended by {signal.Signals(-read.returncode).name}"
    else:
        lines = read.stderr.decode(errors="replace").strip().splitlines()
        said = lines[-1] if lines else "its reader said nothing"
    raise DataError(f"{path} cannot be read as a .mat of MATLAB 4 to 7.2: {said}; pass one, or a .npz.")
