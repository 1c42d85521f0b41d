"""Several commands, one after another, in each of the processes that torchrun starts: they start once for all.

    python -m torch.distributed.run --standalone --nproc-per-node 2 several.py COMMANDS.json FOLDER

The JSON has a list of arguments for every name; exit code, standard output and standard error of process 0 are
written to FOLDER/0.json.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

from tiny_commands import ostinato

if __name__ == "__main__":
    commands = json.loads(Path(sys.argv[1]).read_text())
    done = {name: ostinato(*arguments) for name, arguments in commands.items()}
    (Path(sys.argv[2]) / f"{os.environ['RANK']}.json").write_text(json.dumps(done))
