"""`--config` and `--print-config`: a file of options counts like what is typed, and below it."""

from __future__ import annotations

import json
import os
import tomllib
from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path

import pytest
import typer
import typer.main

from fasterseg.cli import infer, infer_many, infer_run
from fasterseg.types import Size
from tests.media import write_clip
from tests.unit.cli.conftest import Run

Jobs = list[tuple[infer_run.Job, tuple[str, ...]]]

OPTIONS = {
    option.opts[0].removeprefix("--")
    for option in typer.main.get_command(infer.app).params
    if option.opts[0].startswith("--")
} | {"quiet"}


@pytest.fixture
def jobs(monkeypatch: pytest.MonkeyPatch) -> Jobs:
    """What would have been run: job and inputs."""
    found: Jobs = []

    def one(job: infer_run.Job, uri: str) -> None:
        found.append((job, (uri,)))

    def several(job: infer_run.Job, uris: Sequence[str]) -> None:
        found.append((job, tuple(uris)))

    monkeypatch.setattr(infer_run, "run_one", one)
    monkeypatch.setattr(infer_many, "run_several", several)
    return found


def write(text: str) -> Path:
    """A settings file in the working directory."""
    path = Path("front.toml")
    path.write_text(text)
    return path


def test_the_command_line_goes_before_the_file_and_the_file_before_defaults(
    run: Run, jobs: Jobs
) -> None:
    file = write('input = "a.mp4"\nalpha = 0.25\nfit = "letterbox"')
    outcome = run("infer", "b.mp4", "--config", file, "--alpha", "0.75")
    assert outcome.code == 0, outcome.stderr
    [(job, inputs)] = jobs
    assert (inputs, job.options.style.alpha, job.fit) == (("b.mp4",), 0.75, "letterbox")
    assert job.taken.stride == 1


def test_inputs_flags_numbers_and_times_come_from_the_file(run: Run, jobs: Jobs) -> None:
    file = write(
        'input = "a.mp4"\noutput = "out"\nalso = ["b.mp4", "c.mp4"]\n'
        "max_fps = 10\nstart = 00:01:30\nno-build = true\nlegend = true\ncontours = false\n"
        'format = "overlay,stats"\nstall_timeout = 2\nreconnect-attempts = -1\njson = "-"'
    )
    assert run("infer", "--config", file).code == 0
    [(job, inputs)] = jobs
    assert inputs == ("a.mp4", "b.mp4", "c.mp4")
    assert (job.output, job.formats, job.json) == ("out", ("overlay", "stats"), "-")
    assert job.taken.max_fps == Fraction(10)
    assert (job.taken.start_s, job.taken.stall_s, job.taken.reconnect_attempts) == (90.0, 2.0, -1)
    assert (job.request.may_build, job.options.style.legend) == (False, True)
    assert not job.options.style.contours


def test_a_flag_of_the_file_is_taken_back_by_its_opposite(run: Run, jobs: Jobs) -> None:
    flags = ["contours", "legend", "indexed", "per-frame", "smooth", "pin", "overwrite", "quiet"]
    file = write("\n".join(f"{flag} = true" for flag in [*flags, "no-build"]))
    opposites = [f"--no-{flag}" for flag in flags]
    assert run("infer", "a.mp4", "--config", file, *opposites, "--build").code == 0
    assert run("infer", "a.mp4").code == 0
    assert jobs[0] == jobs[1]


def test_also_typed_takes_the_place_of_the_file_s(run: Run, jobs: Jobs) -> None:
    file = write('input = "a.mp4"\nalso = "b.mp4"\noutput = "null:"')
    assert run("infer", "--config", file).code == 0
    assert run("infer", "--config", file, "--also", "c.mp4").code == 0
    assert [inputs for _, inputs in jobs] == [("a.mp4", "b.mp4"), ("a.mp4", "c.mp4")]


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("fomat = 'stats'", "unknown key 'fomat'"),
        ("max-fsp = 3", "Did you mean 'max-fps'?"),
        ("config = 'b.toml'", "unknown key 'config'"),
        ("print-config = true", "unknown key 'print-config'"),
        ("[infer]\nlimit = 3", "unknown key 'infer'"),
        ("limit = 0", "front.toml: limit: "),
        ("limit = 2.5", "front.toml: limit: "),
        ("limit = true", "limit: expected a text or a number, found true or false"),
        ("limit = 1979-05-27", "front.toml: limit: "),
        ("alpha = 1.5", "front.toml: alpha: "),
        ("log_format = 'xml'", "front.toml: log-format: "),
        ("legend = 'yes'", "legend: expected true or false, found a text"),
        ("legend = 1", "legend: expected true or false, found 1"),
        ("format = ['stats']", "format: expected a text or a number, found a list"),
        ("also = [['a.mp4']]", "also: expected a text or a number, found a list"),
        ("max-fps = 1\nmax_fps = 1", "max-fps is there twice"),
        (f"limit = 0x{'f' * 5000}", "front.toml: limit: "),
        ("\nfit = \n", "front.toml is not TOML: Invalid value (at line 2"),
        ("fit = 'squash'", "settings: front.toml\nerror: --fit squash is not one of"),
    ],
)
def test_what_is_wrong_in_the_file_is_told_with_its_place(
    run: Run, jobs: Jobs, text: str, told: str
) -> None:
    outcome = run("infer", "a.mp4", "--config", write(text))
    assert (outcome.code, jobs) == (2, [])
    assert told in outcome.stderr


def test_what_is_typed_is_not_kept_from_being_checked_in_the_file(run: Run, jobs: Jobs) -> None:
    assert run("infer", "a.mp4", "--limit", "3", "--config", write("limit = 0")).code == 2
    assert jobs == []


def test_a_missing_file_is_told_with_the_line_that_writes_one(run: Run) -> None:
    outcome = run("infer", "--config", "none.toml")
    assert outcome.code == 2
    assert "infer --print-config > none.toml" in outcome.stderr
    outcome = run("infer", "--config", ".")
    assert outcome.code == 2
    assert "--print-config" not in outcome.stderr


def test_without_any_input_it_is_said_where_one_can_stand(run: Run) -> None:
    outcome = run("infer", "--config", write("limit = 3"))
    assert outcome.code == 2
    assert "input = ..." in outcome.stderr


def test_notes_and_tracebacks_follow_the_file(run: Run) -> None:
    file = write('log-format = "json"\ndebug = true\nfit = "squash"')
    lines = run("infer", "a.mp4", "--config", file).stderr.splitlines()
    notes = [json.loads(line) for line in lines]
    assert [note["level"] for note in notes] == ["info", "error"]
    assert "UsageError" in notes[-1]["traceback"]
    outcome = run("infer", "a.mp4", "--config", file, "--log-format", "text")
    assert "\nerror: --fit squash" in outcome.stderr


def test_what_is_printed_gives_the_same_run_again(run: Run, jobs: Jobs) -> None:
    odd = 'a "b"\\c\n\x7f\t\x01é😀.mp4'
    typed = ["infer", odd, "out/", "--also", "b.mp4", "--also", "camera:1", "--limit", "7"]
    typed += ["--alpha", "1e-05", "--stall-timeout", "2.5", "--legend", "-q", "--max-fps", "30/7"]
    typed += ["--log-format", "text", "--format", "overlay,stats", "--reconnect-attempts", "-1"]
    printed = run(*typed, "--print-config")
    assert (printed.code, jobs, printed.stderr) == (0, [], "")
    assert run(*typed).code == 0
    file = write(printed.stdout)
    assert run("infer", "--config", file).code == 0
    assert jobs[0] == jobs[1]
    again = run("infer", "--config", file, "--print-config")
    assert again.stdout == printed.stdout


def test_options_of_the_file_are_printed_beside_those_typed(run: Run) -> None:
    file = write('input = "a.mp4"\nalpha = 0.25\nlimit = 3')
    printed = run("infer", "--config", file, "--alpha", "0.75", "--print-config")
    assert tomllib.loads(printed.stdout) == {"input": "a.mp4", "alpha": 0.75, "limit": 3}


def test_without_options_it_is_a_file_to_begin_with(run: Run, jobs: Jobs) -> None:
    printed = run("infer", "--print-config")
    assert printed.code == 0, printed.stderr
    assert tomllib.loads(printed.stdout) == {}
    lines = [line.removeprefix("# ") for line in printed.stdout.splitlines()[1:]]
    keys = [line.partition(" = ")[0] for line in lines]
    assert set(keys) == (OPTIONS | {"input", "output"}) - {"config", "print-config"}
    defaults = [line for line in lines if not line.split(" = ")[1][0].isupper()]
    assert 'fit = "stretch"' in defaults
    assert run("infer", "a.mp4", "--config", write("\n".join(defaults))).code == 0
    assert run("infer", "a.mp4").code == 0
    assert jobs[0] == jobs[1]


def test_printing_opens_nothing_and_checks_what_can_be_checked(run: Run, tmp_path: Path) -> None:
    before = sorted(tmp_path.rglob("*"))
    typed = ("infer", "none.mp4", "--engine", "none.onnx", "--print-config")
    assert run(*typed, "--view", "http://127.0.0.1:1").code == 0
    assert sorted(tmp_path.rglob("*")) == before
    for wrong in (("--limit", "0"), ("--fit", "squash"), ("--size", "big"), ("--start", "soon")):
        outcome = run(*typed, *wrong)
        assert (outcome.code, outcome.stdout) == (2, "")


@pytest.mark.parametrize(
    "uri",
    [
        "rtsp://viewer:secret@camera/stream",
        "rtsp://secret@camera/stream",
        "rtsp://viewer:se/cr@secret@camera/stream",
        "http://camera/feed?token=secret",
        "http://camera/feed?token=${TOKEN}&key=secret",
        "rtsp://${USER}:secret@camera/${NAME}",
        "rtsp://viewer:secret${NAME}@camera/stream",
        "rtmp://server/live pass=secret",
        "concat:rtsp://v:${NAME}@one/a|rtsp://v:secret@two/b",
        "gst:rtspsrc location=rtsp://viewer:secret@camera/stream ! appsink",
        "gst:rtspsrc location=rtsp://camera/stream user-id=viewer user-pw = secret ! appsink",
        'gst:rtspsrc location=rtsp://camera/stream user-pw="${A}secret" ! appsink',
    ],
)
def test_secrets_are_left_out_and_it_is_said(run: Run, uri: str) -> None:
    printed = run("infer", uri, uri, "--also", "b.mp4", "--also", uri, "--print-config")
    assert printed.code == 0, printed.stderr
    assert "secret" not in printed.stdout.replace("what may be secret", "")
    lines = [line for line in printed.stdout.splitlines() if "left out: " in line]
    assert [line.split(" = ")[0] for line in lines] == ["# input", "# output", "# also"]
    assert all("write its name, ${NAME}" in line for line in lines)
    assert tomllib.loads(printed.stdout) == {}


@pytest.mark.parametrize(
    "uri",
    [
        "rtsp://viewer:${CAMERA_PASSWORD}@camera:8554/stream",
        "rtsp://${USER_NAME}:${PASSWORD}@camera/stream",
        "rtsp://${BOTH}@camera/stream",
        "http://camera/feed?token=${TOKEN}&user=${NAME}",
        "gst:rtspsrc location=rtsp://camera/x user-id=${A} user-pw=${B} ! video/x-raw ! appsink",
        "https://host/a%20clip.mp4",
        "frames/%06d.png",
    ],
)
def test_names_of_secrets_stay(run: Run, uri: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CAMERA_PASSWORD", "hidden")
    printed = run("infer", uri, "--print-config")
    assert tomllib.loads(printed.stdout) == {"input": uri}


def test_a_name_that_is_no_text_is_left_out(run: Run) -> None:
    printed = run("infer", os.fsdecode(b"a\xff.mp4"), "--print-config")
    assert printed.code == 0
    assert "no text" in printed.stdout
    assert tomllib.loads(printed.stdout) == {}
    printed.stdout.encode()


@pytest.mark.onnx
def test_a_clip_is_segmented_as_the_file_says(run: Run, tmp_path: Path) -> None:
    write_clip(tmp_path / "drive.mp4", 3, Size(72, 128))
    file = write(
        'input = "drive.mp4"\noutput = "maps"\nformat = "classmap-png"\nsize = "64x112"\n'
        "threads = 1\nlimit = 2\nquiet = true"
    )
    outcome = run("infer", "--config", file)
    assert outcome.code == 0, outcome.stderr
    assert len(list((tmp_path / "maps").glob("*.png"))) == 2
