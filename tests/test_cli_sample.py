"""The command line of a trained model: samples, conversations, closed pipes."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest
import torch

from ostinato.cli.console import printable
from tiny_commands import ONE_THREAD, SMALL, command, ostinato, trained


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return trained(tmp_path_factory.mktemp("run"))


def test_a_sample_begins_with_its_prime_and_is_the_same_for_a_seed(run):
    code, out, err = ostinato("sample", run, "--prime", "12 bottles", "--length", 40, "--seed", 7)
    assert code == 0 and err == ""
    assert out.startswith("12 bottles") and len(out) == 10 + 40 + 1
    assert ostinato("sample", run, "--prime", "12 bottles", "--length", 40, "--seed", 7)[1] == out
    assert ostinato("sample", run, "--prime", "12 bottles", "--length", 40, "--seed", 8)[1] != out
    assert ostinato("sample", run, "--prime", "12", "--length", 0)[1] == "12\n"
    one = run / "checkpoints" / "last.safetensors"
    assert ostinato("sample", one, "--length", 10, "--temperature", 0, "--top-k", 3, "--top-p", 0.9)[0] == 0


@pytest.mark.parametrize(
    ("arguments", "expected", "words"),
    [
        (["nowhere"], 1, "there is no run nowhere"),
        (["RUN", "--checkpoint", "first"], 1, "there is no checkpoint"),
        (["RUN", "--temperature", "-1"], 2, "temperature is -1.0"),
        (["RUN", "--temperature", "nan"], 2, "temperature is nan"),
        (["RUN", "--top-k", "0"], 2, "top_k is 0"),
        (["RUN", "--top-p", "0"], 2, "top_p is 0.0"),
        (["RUN", "--length", "-1"], 2, "length"),
        (["RUN", "--prime", "ÄΩ"], 2, "never saw 'Ä' 'Ω'"),
    ],
)
def test_what_is_wrong_with_a_sample_is_said(run, arguments, expected, words):
    code, out, err = ostinato("sample", *[run if a == "RUN" else a for a in arguments], terminal_width=200)
    assert code == expected and words in err and out == "" and "Traceback" not in err


def test_a_conversation_goes_on_from_each_line_and_forgives(run):
    code, out, err = ostinato("sample", run, "--interactive", "--length", 5, "--seed", 1, input="12\nÄ\n\n7 b\n")
    assert code == 0
    assert "never saw 'Ä'" in err and "Ctrl-D" in err
    answers = out.split("> ")[1:]
    assert answers[0].startswith("12") and len(answers[0]) == 2 + 5 + 1
    assert answers[1] == "" and len(answers[2]) == 5 + 1
    assert answers[3].startswith("7 b")


def test_a_closed_pipe_is_no_error_to_speak_of(run):
    process = subprocess.Popen(
        command("sample", run, "--length", 1000000),
        env=ONE_THREAD,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    assert len(process.stdout.read(20)) == 20  # it comes long before the end
    process.stdout.close()
    assert process.stderr.read() == b""
    process.stderr.close()
    process.wait(timeout=60)


def test_what_a_terminal_cannot_say_is_a_question_mark(tmp_path):
    (tmp_path / "t.txt").write_text("äöü " * 400, encoding="utf-8")
    assert ostinato("train", "text", tmp_path / "t.txt", "--out", tmp_path / "r", "--epochs", 0.1, *SMALL)[0] == 0
    done = subprocess.run(
        command("sample", tmp_path / "r", "--length", 20, "--seed", 1),
        env=ONE_THREAD | {"PYTHONIOENCODING": "ascii"},
        capture_output=True,
        check=True,
    )
    assert set(done.stdout.decode("ascii")) <= set("? \n") and done.stderr == b""


def test_learned_text_cannot_command_the_terminal():
    assert printable("a\tb\n\x1b[31mred\x07\x9b") == "a\tb\n\ufffd[31mred\ufffd\ufffd"


def test_threads_are_left_as_they_were(run):
    before = torch.get_num_threads()
    ostinato("sample", run, "--length", 1)
    assert torch.get_num_threads() == before
