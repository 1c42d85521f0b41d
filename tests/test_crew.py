"""Tasks in child processes: one that hangs, dies or fails is reported as such, and the others are done."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from ostinato.bench.measure.crew import Crew


def crew(workers: int = 1, **more: str | None) -> Crew:
    return Crew("crew_tasks:work", workers, more)


def gone(pid: int) -> bool:
    """Whether a process has ended; one that nobody has waited for yet counts as ended."""
    for _ in range(100):
        try:
            if Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z":
                return True
        except FileNotFoundError:
            return True
        time.sleep(0.05)
    return False


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="no /proc to look a process up in")
def test_a_task_that_hangs_is_ended_with_all_it_started(tmp_path: Path) -> None:
    note = tmp_path / "pids"
    with crew() as each:
        late, done = each.run([("hang", str(note)), ("give", "a")], limit_s=2.0)
    assert (late.how, done.how) == ("late", "done")
    assert "ended after 2 s" in late.said and late.seconds < 10
    *pids, folder = note.read_text().split()
    assert all(gone(int(pid)) for pid in pids)
    assert not Path(folder).exists()  # what it left there is gone too


def test_what_fails_is_reported_and_the_rest_is_done() -> None:
    tasks = [("die", "a last word"), ("raise", "no such thing"), ("raise", "CUDA error: x"), ("give", "a")]
    with crew() as each:
        died, failed, broken, done = each.run(tasks, limit_s=20.0)
    assert died.how == "died" and "status 3" in died.said and "a last word" in died.said
    assert failed.how == "error" and failed.said.startswith("ValueError: no such thing (crew_tasks.py:")
    assert broken.how == "error"  # behind which the process is not used again
    assert done.how == "done" and done.value.startswith("a in None")


def test_processes_are_kept_from_task_to_task_and_have_an_environment_of_their_own() -> None:
    with crew(CREW="theirs") as each:
        values = [end.value for end in each.run([("give", "a"), ("give", "b")], 20.0)]
        values += [end.value for end in each.run([("give", "a")], 20.0)]
    assert values[0] == values[2] and values[0].startswith("a in theirs")
    assert "CREW" not in os.environ


def test_what_there_is_no_time_for_is_said(tmp_path: Path) -> None:
    with crew() as each:
        assert next(each.run([("give", "a")], 20.0)).how == "done"
        tasks = [("hang", str(tmp_path / "pids")), ("give", "b")]
        ends = list(each.run(tasks, 20.0, until=time.monotonic() + 0.5))
    assert [(end.how, end.said) for end in ends] == [
        ("late", "the time for all ran out"),
        ("not run", "there was no time left"),
    ]


def test_a_target_that_cannot_be_imported_is_an_error() -> None:
    with Crew("no_such_module:work", 1) as each, pytest.raises(RuntimeError, match="no_such_module"):
        list(each.run([1], 1.0))


def test_one_process_that_does_not_begin_leaves_the_others_at_work() -> None:
    with crew() as each:
        assert next(each.run([("give", "a")], 20.0)).how == "done"
        each.workers, each.target = 2, "no_such_module:work"  # what is started from now on fails
        assert [end.how for end in each.run([("wait", "0.5")] * 4, 20.0)] == ["done"] * 4
        assert each.workers == 1
