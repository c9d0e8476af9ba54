"""Containers and services, as far as they can be checked without a container or an init system."""

from __future__ import annotations

import http.server
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import threading
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer
import typer.core

from fasterseg import cache
from fasterseg.cli import infer
from fasterseg.cli.main import app
from fasterseg.errors import EXIT_CODES
from fasterseg.runtime import plugins
from fasterseg.stream.credentials import PLACEHOLDER, filled_in
from tests.shared import ROOT

DOCKERFILES = [ROOT / "Dockerfile", ROOT / "Dockerfile.nvidia"]
UNIT = ROOT / "engines" / "systemd" / "fasterseg@.service"
PROGRAM = "/opt/fasterseg/bin/fasterseg-infer"

each_image = pytest.mark.parametrize("file", DOCKERFILES, ids=lambda file: file.name)

Instructions = list[tuple[str, str]]

# Typer carries its own copy of click from 0.26 on.
UsageProblem: Any = next(b for b in typer.BadParameter.__mro__ if b.__name__ == "UsageError")


def parsed(program: typer.Typer, arguments: list[str]) -> dict[str, Any] | None:
    """What a program makes of its arguments, without running; None where it only shows help.

    Raises `UsageProblem` where it does not know an option, or lacks an argument.
    """
    command = typer.main.get_command(program)
    try:
        with command.make_context("program", list(arguments)) as context:
            if isinstance(command, typer.core.TyperGroup):
                name, inner, rest = command.resolve_command(context, context._protected_args)
                assert inner is not None, name
                return inner.make_context(name, [*rest, *context.args], parent=context).params
            return context.params
    except typer.Exit:
        return None


def instructions(file: Path) -> Instructions:
    """Instruction and what follows it; continued lines joined, comments left out."""
    lines = [line for line in file.read_text().splitlines() if not line.startswith("#")]
    joined = re.sub(r"\\\n\s*", "", "\n".join(lines))
    pairs = (line.split(None, 1) for line in joined.splitlines() if line.strip())
    return [(name, rest) for name, rest in pairs]


def values(file: Path, name: str) -> list[str]:
    return [rest for instruction, rest in instructions(file) if instruction == name]


def environment(file: Path) -> dict[str, str]:
    """Variables of the last stage."""
    stages: Instructions = instructions(file)
    last = max(index for index, (name, _) in enumerate(stages) if name == "FROM")
    text = " ".join(rest for name, rest in stages[last:] if name == "ENV")
    return dict(word.split("=", 1) for word in text.split())


def project() -> dict[str, Any]:
    return tomllib.loads((ROOT / "pyproject.toml").read_text())


def copied(file: Path) -> set[str]:
    """What is copied from the repository."""
    lines = [line.split() for line in values(file, "COPY") if not line.startswith("--from")]
    return {source for words in lines for source in words[:-1]}


@each_image
def test_header_says_that_the_image_was_not_built(file: Path) -> None:
    assert "did not build this image" in file.read_text().partition("FROM")[0]


@each_image
def test_what_is_copied_is_there_and_not_ignored(file: Path) -> None:
    allowed = (ROOT / ".dockerignore").read_text().splitlines()
    for source in copied(file):
        assert (ROOT / source).exists(), source
        assert f"!{source}" in allowed, source


def test_nothing_is_sent_to_the_builder_that_no_image_is_made_of() -> None:
    lines = (ROOT / ".dockerignore").read_text().splitlines()
    assert "*" in lines
    sent = {line.removeprefix("!") for line in lines if line.startswith("!")}
    assert sent == set().union(*map(copied, DOCKERFILES))


@each_image
def test_all_that_the_wheel_is_made_of_is_copied(file: Path) -> None:
    settings = project()
    build = settings["tool"]["scikit-build"]
    needed = {"pyproject.toml", settings["project"]["readme"], build["cmake"]["source-dir"]}
    needed |= {*settings["project"]["license-files"], *build["wheel"]["packages"]}
    assert needed <= copied(file)


@each_image
def test_stages_that_are_copied_from_are_made_before(file: Path) -> None:
    made: set[str] = set()
    for name, rest in instructions(file):
        if name == "FROM" and " AS " in rest:
            made.add(rest.split()[-1])
        if name == "COPY" and rest.startswith("--from="):
            assert rest.split()[0].removeprefix("--from=") in made


@each_image
def test_bases_are_pinned_to_a_version(file: Path) -> None:
    for base in values(file, "FROM"):
        tag = base.split()[0].partition(":")[2]
        assert re.match(r"\d+\.\d+", tag), base


@each_image
def test_python_of_the_image_is_one_that_the_package_takes(file: Path) -> None:
    lowest = tuple(map(int, re.findall(r"\d+", project()["project"]["requires-python"])))
    tags = re.findall(r"FROM python:(\d+)\.(\d+)", file.read_text())
    assert len(set(tags)) == 1, "the environment is moved between stages"
    assert tuple(map(int, tags[0])) >= lowest


@each_image
def test_extras_exist(file: Path) -> None:
    [named] = re.findall(r"'\.\[([\w,-]+)\]'", file.read_text())
    assert set(named.split(",")) <= set(project()["project"]["optional-dependencies"])


@each_image
def test_packages_that_are_installed_are_the_projects_or_pinned(file: Path) -> None:
    """Hadolint's DL3013, which does not see constraints."""
    texts = [*project()["project"]["dependencies"]]
    texts += [
        line for lines in project()["project"]["optional-dependencies"].values() for line in lines
    ]
    known = {re.split(r"[\[<>=;]", line)[0] for line in texts}
    installs = re.findall(r"pip install ([^&]+)", " && ".join(values(file, "RUN")))
    assert installs
    for arguments in installs:
        assert "--no-cache-dir" in arguments, "DL3042"
        for word in shlex.split(re.sub(r'"\$\(.*?\)"', "", arguments)):
            if word.startswith((".", "-")) or word == "constraints.txt":
                continue
            assert "==" in word or word.partition("[")[0] in known, word


def shell(file: Path) -> list[str]:
    """Single commands of all `RUN` lines."""
    return [part.strip() for run in values(file, "RUN") for part in run.split("&&")]


@each_image
def test_rules_of_hadolint_that_matter_here_are_kept(file: Path) -> None:
    """Checked again where the linter is not to be had; names are its own."""
    names = [name for name, _ in instructions(file)]
    assert set(names) <= {
        "ARG", "CMD", "COPY", "ENTRYPOINT", "ENV", "FROM", "HEALTHCHECK", "RUN", "USER",
        "VOLUME", "WORKDIR",
    }, "DL4000, DL3020, DL4005"  # fmt: skip
    last = max(index for index, name in enumerate(names) if name == "FROM")
    for name in ("CMD", "ENTRYPOINT", "HEALTHCHECK"):
        assert names[last:].count(name) == 1, "DL4003, DL4004, DL3012"
    for name in ("CMD", "ENTRYPOINT"):
        assert isinstance(json.loads(values(file, name)[-1]), list), "DL3025"
    for path in values(file, "WORKDIR"):
        assert path.startswith("/"), "DL3000"
    for base in values(file, "FROM"):
        assert ":" in base, "DL3006"
        assert ":latest" not in base, "DL3007"
    aliases = [base.split()[-1] for base in values(file, "FROM") if " AS " in base]
    assert len(set(aliases)) == len(aliases), "DL3024"
    for command in shell(file):
        assert not re.match(r"(sudo|cd|apt|ssh|vim|shutdown|ps|kill|mount)\b(?!-)", command), (
            command
        )
        if command.startswith("apt-get install"):
            assert {"--yes", "--no-install-recommends"} <= set(command.split()), "DL3014, DL3015"
            assert "rm -rf /var/lib/apt/lists/*" in shell(file), "DL3009"
        assert "|" not in re.sub(r"\|\|", "", command), "DL4006"
        if command.startswith("useradd"):
            assert int(command.split("--uid ")[1].split()[0]) < 65536, "DL3046"


@each_image
def test_environment_does_not_use_what_it_sets(file: Path) -> None:
    """Hadolint's DL3044."""
    for line in values(file, "ENV"):
        set_here = {word.split("=", 1)[0] for word in line.split()} - {"PATH"}
        assert not set_here & set(re.findall(r"\$\{?(\w+)", line))


@each_image
def test_the_program_is_one_of_the_package_and_not_run_by_root(file: Path) -> None:
    [entry] = values(file, "ENTRYPOINT")
    command = json.loads(entry)
    assert command[0] in project()["project"]["scripts"]
    [given] = values(file, "CMD")
    assert parsed(app, [*command[1:], *json.loads(given)]) is None
    assert int(values(file, "USER")[-1]) > 0
    names = [name for name, _ in instructions(file)]
    assert names.index("USER") < names.index("ENTRYPOINT")


@each_image
def test_examples_in_the_header_run_a_command(file: Path) -> None:
    head = file.read_text().partition("FROM")[0]
    lines = re.findall(r"docker run .* fasterseg(?::nvidia)? (.*)", head)
    assert lines
    for line in lines:
        assert parsed(app, shlex.split(line))


@each_image
def test_the_cache_is_a_volume_that_the_package_uses(
    file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    set_to = environment(file)
    [volume] = values(file, "VOLUME")
    for name, value in set_to.items():
        if name.startswith("FASTERSEG_"):
            monkeypatch.setenv(name, value)
    assert str(cache.cache_root()) == volume


def test_plugins_are_where_the_package_looks() -> None:
    file = ROOT / "Dockerfile.nvidia"
    [copy] = [line for line in values(file, "COPY") if line.startswith("--from=kernels")]
    assert environment(file)[plugins.VARIABLE] == copy.split()[-1]


def test_options_of_the_compiled_parts_exist() -> None:
    named = set(re.findall(r"-D(FASTERSEG_\w+)=", (ROOT / "Dockerfile.nvidia").read_text()))
    lists = [p.read_text() for p in (ROOT / "cpp_plugins").rglob("CMakeLists.txt")]
    assert named
    assert named <= set(re.findall(r"option\((\w+)", "\n".join(lists)))


def test_constraints_name_the_version_that_the_image_for_cpus_takes() -> None:
    assert "s/^onnxruntime-gpu==/onnxruntime==/p" in (ROOT / "Dockerfile").read_text()
    assert re.search(r"^onnxruntime-gpu==", (ROOT / "constraints.txt").read_text(), re.MULTILINE)


@pytest.fixture
def healthy() -> Iterator[str]:
    """Address of a page that answers 200 on /healthz and 503 elsewhere."""

    class Page(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200 if self.path == "/healthz" else 503)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    with http.server.HTTPServer(("127.0.0.1", 0), Page) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


@each_image
def test_health_check_asks_the_page_where_there_is_one(file: Path, healthy: str) -> None:
    [check] = values(file, "HEALTHCHECK")
    command = json.loads(check[check.index("CMD") + 3 :])
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"

    def healthy_at(url: str) -> bool:
        found = subprocess.run(
            command,
            # As Docker sets it for all containers where its user has a proxy.
            env={"PATH": path, "HEALTH_URL": url, "http_proxy": "http://127.0.0.1:9"},
            capture_output=True,
            check=False,
        )
        return found.returncode == 0

    assert healthy_at("")
    assert healthy_at(f"{healthy}/healthz")
    assert not healthy_at(f"{healthy}/other")
    assert not healthy_at("http://127.0.0.1:9/healthz")


@each_image
def test_hadolint_has_nothing_to_say(file: Path) -> None:
    linter = shutil.which("hadolint")
    if linter is None:
        pytest.skip("hadolint not installed")
    found = subprocess.run([linter, str(file)], capture_output=True, text=True, check=False)
    assert found.returncode == 0, found.stdout


def fields(text: str) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for name, value in re.findall(r"^(\w+)=(.*)$", text, re.MULTILINE):
        found.setdefault(name, []).append(value)
    return found


def test_service_runs_a_program_of_the_package_again_unless_it_was_called_wrongly() -> None:
    unit = fields(UNIT.read_text())
    assert unit["ExecStart"][0].startswith(PROGRAM + " ")
    assert Path(PROGRAM).name in project()["project"]["scripts"]
    assert unit["Restart"] == ["on-failure"]
    assert "wrong usage" in EXIT_CODES[int(unit["RestartPreventExitStatus"][0])]
    assert "interrupted" in EXIT_CODES[int(unit["SuccessExitStatus"][0])]


def test_service_passes_on_what_its_settings_name() -> None:
    [start] = fields(UNIT.read_text())["ExecStart"]
    settings = fields((UNIT.parent / "example.env").read_text())
    assert set(re.findall(r"\$\{?(\w+)", start)) == set(settings)


def expanded(settings: dict[str, str]) -> list[str]:
    """Arguments of the program, as systemd makes them: one word, or several without braces."""
    [start] = fields(UNIT.read_text())["ExecStart"]
    arguments: list[str] = []
    for word in start.split()[1:]:
        if match := re.fullmatch(r"\$\{(\w+)\}", word):
            arguments.append(settings[match[1]])
        elif match := re.fullmatch(r"\$(\w+)", word):
            arguments += shlex.split(settings[match[1]])
        else:
            arguments.append(word)
    return arguments


def settings_of(file: Path, commented: bool) -> dict[str, str]:
    """Variables of an environment file; those behind a # as well if wanted."""
    text = file.read_text()
    if commented:
        text = re.sub(r"^#(?=[A-Z_]+=)", "", text, flags=re.MULTILINE)
    return {
        name: shlex.split(found[-1])[0] if found[-1].startswith("'") else found[-1]
        for name, found in fields(text).items()
    }


@pytest.mark.parametrize("commented", [False, True])
def test_every_option_of_the_service_is_one_of_the_program(commented: bool) -> None:
    settings = settings_of(UNIT.parent / "example.env", commented)
    given = parsed(infer.app, expanded(settings))
    assert given is not None
    assert (given["source"], given["output"]) == (settings["SOURCE"], settings["OUTPUT"])
    assert given["view"].startswith("http://127.0.0.1:")
    assert (given["reconnect_attempts"], given["quiet"]) == (-1, True)


def test_an_option_that_there_is_not_would_be_noticed() -> None:
    settings = settings_of(UNIT.parent / "example.env", False)
    settings["OPTIONS"] += " --reconnect-for-ever"
    with pytest.raises(UsageProblem, match="--reconnect-for-ever"):
        parsed(infer.app, expanded(settings))
    with pytest.raises(UsageProblem, match="infre"):
        parsed(app, ["infre", "a.mp4"])


def test_no_password_of_the_service_is_on_its_command_line(monkeypatch: pytest.MonkeyPatch) -> None:
    settings = settings_of(UNIT.parent / "example.env", True)
    [name] = PLACEHOLDER.findall(settings["SOURCE"])
    secret = settings[name]
    assert secret
    assert all(secret not in argument for argument in expanded(settings))
    monkeypatch.setenv(name, secret)
    assert secret in filled_in(settings["SOURCE"])
    assert f"LoadCredential={name}:" in UNIT.read_text()


@pytest.mark.parametrize(
    "field",
    ["DynamicUser=yes", "NoNewPrivileges=yes", "ProtectSystem=strict", "ProtectHome=yes",
     "CapabilityBoundingSet=", "DevicePolicy=closed"],
)  # fmt: skip
def test_service_is_shut_in(field: str) -> None:
    assert re.search(rf"^{re.escape(field)}$", UNIT.read_text(), re.MULTILINE)


@pytest.fixture
def analyzer() -> str:
    """`systemd-analyze`, where there is one."""
    program = shutil.which("systemd-analyze")
    if program is None:
        pytest.skip("systemd-analyze not installed")
    return program


@pytest.fixture
def instance(tmp_path: Path) -> Path:
    """The unit for one camera, with a program that exists here."""
    file = tmp_path / "fasterseg@front.service"
    file.write_text(UNIT.read_text().replace(PROGRAM, sys.executable))
    return file


def analyze(program: str, *arguments: object) -> subprocess.CompletedProcess[str]:
    command = [program, *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_systemd_understands_every_line(analyzer: str, instance: Path) -> None:
    found = analyze(analyzer, "verify", "--man=no", instance)
    assert (found.returncode, found.stderr) == (0, "")


def test_systemd_would_notice_a_line_that_it_does_not_know(analyzer: str, instance: Path) -> None:
    instance.write_text(instance.read_text().replace("ProtectHome=", "ProtectHmoe="))
    assert "ProtectHmoe" in analyze(analyzer, "verify", "--man=no", instance).stderr


def test_systemd_counts_little_that_the_service_could_reach(analyzer: str, instance: Path) -> None:
    known = analyze(analyzer, "security", "--help").stdout
    if "--offline" not in known:
        pytest.skip("this systemd-analyze rates no files")
    found = analyze(analyzer, "security", "--offline=yes", "--threshold=25", "--no-pager", instance)
    assert found.returncode == 0, found.stdout[-200:]
