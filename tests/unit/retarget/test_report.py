"""The report of a run: every figure is that of the files, and what is missing is said."""

from __future__ import annotations

import json
import shutil
import statistics
from collections import Counter
from html.parser import HTMLParser
from pathlib import Path

import pytest

from fasterseg.errors import ConfigError, UsageError
from fasterseg.search.pareto import best_first, pareto
from tests.unit.retarget.run_folder import Made, write_cosearch, write_run

pytest.importorskip("jinja2")
pytest.importorskip("matplotlib")
report = pytest.importorskip("fasterseg.retarget.report")

Rows = list[list[str]]


class Page(HTMLParser):
    """Sections with their texts, tables and number of figures; everything that would be loaded."""

    VOID = frozenset({"meta", "link", "img", "br", "hr", "input"})

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.loads: list[str] = []
        self.bad: list[str] = []
        self.sections: list[str] = []
        self.texts: dict[str, str] = {}
        self.figures: Counter[str] = Counter()
        self.tables: dict[tuple[str, str], Rows] = {}
        self._rows: Rows = []
        self._kind = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag not in self.VOID:
            self.open.append(tag)
        if tag in ("script", "link", "iframe", "img", "image"):
            self.loads.append(tag)
        for name, value in attrs:
            if name in ("src", "srcset", "href", "xlink:href") and not str(value).startswith("#"):
                self.loads.append(f"{tag} {name}={value}")
        match tag:
            case "svg":
                self.figures[self.sections[-1]] += 1
            case "table":
                self._rows = []
            case "tr":
                self._rows.append([])
            case "td" | "th":
                self._rows[-1].append("")
            case "p":
                self._kind = dict(attrs).get("class") or ""

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)
        if tag not in self.VOID:
            self.open.pop()

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag
        if tag == "table":
            head, *rows = self._rows
            self.tables[self.sections[-1], head[0]] = [head, *rows]

    def handle_data(self, data: str) -> None:
        tag = self.open[-1] if self.open else ""
        if tag == "h2":
            self.sections.append(data)
            self.texts[data] = ""
        elif tag in ("td", "th"):
            self._rows[-1][-1] += data
        elif tag == "p" and self._kind == "bad":
            self.bad.append(data)
        elif tag == "p" and self.sections:
            self.texts[self.sections[-1]] += data + "\n"

    def table(self, section: str, first: str) -> list[dict[str, str]]:
        """The rows of the table of a section whose first column has this name."""
        head, *rows = self.tables[section, first]
        return [dict(zip(head, row, strict=True)) for row in rows]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Made:
    return write_run(tmp_path_factory.mktemp("run") / "mine")


@pytest.fixture
def undrawn(monkeypatch: pytest.MonkeyPatch) -> None:
    """Figures are left blank where a test looks at words only: drawing takes seconds."""
    for name in ("agreement", "bars", "courses", "tradeoff"):
        monkeypatch.setattr(f"fasterseg.plots.{name}", lambda *_: "<svg></svg>")
    monkeypatch.setattr("fasterseg.retarget.report_search.inline_svg", lambda _: "<svg></svg>")


@pytest.fixture(scope="module")
def text(made: Made) -> str:
    path = report.write_report(made.folder)
    assert path == made.folder / "report.html"
    return str(path.read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def page(text: str) -> Page:
    return Page(text)


def test_page_is_well_formed_and_loads_nothing(text: str, page: Page) -> None:
    assert page.open == []
    assert page.loads == []
    assert "url(http" not in text
    assert "@import" not in text
    assert "base64" not in text


def test_every_part_of_the_run_has_its_section_and_figures(page: Page) -> None:
    assert {name: page.figures[name] for name in page.sections} == {
        "Chosen networks": 2,
        "Latency against score": 1,
        "Search against chance": 0,
        "What the search chose from": 2,
        "Measured candidates": 0,
        "Trained networks": 1,
        "Does the table predict networks?": 1,
        "Training before the search": 1,
        "Minutes": 1,
        "Measured on": 0,
        "Exported": 0,
    }
    assert not any("Nothing yet" in text for text in page.texts.values())
    assert page.bad == []


def test_chosen_networks_are_those_of_the_search(made: Made, page: Page) -> None:
    rows = page.table("Chosen networks", "target ms")
    for target, row in zip(made.search["targets"], rows, strict=True):
        assert row == {
            "target ms": f"{target['target_ms']:g}",
            "file": target["file"],
            "network": target["chosen"][:8],
            "found by": {"evolve": "evolution", "random": "random search"}[target["how"]],
            "predicted ms": f"{target['predicted_ms']:.3f}",
            "measured ms": f"{target['measured_ms']:.3f}",
            "share of the target %": f"{100 * target['measured_ms'] / target['target_ms']:.1f}",
            "mIoU %": f"{100 * target['miou']:.2f}",
        }


def test_evolution_stands_beside_chance_and_hand(made: Made, page: Page) -> None:
    rows = page.table("Search against chance", "target ms")
    for target, row in zip(made.search["targets"], rows, strict=True):
        assert row["target ms"] == f"{target['target_ms']:g}"
        ours, chance = target["evolve"]["best_miou"], target["random"]["best_miou"]
        hand = max(entry["miou"] for entry in target["hand"])
        assert list(row.values())[1:] == [
            f"{100 * ours:.2f}",
            f"{100 * chance:.2f}",
            f"{100 * (ours - chance):+.2f}",
            f"{target['evolve']['evaluations']} / {target['random']['evaluations']}",
            f"{100 * hand:.2f}",
        ]
    assert "better than chance" in page.texts["Search against chance"]
    by_hand = page.table("Search against chance", "operator")
    assert [(row["target ms"], row["mIoU %"]) for row in by_hand] == [
        (f"{one.target_ms:g}", f"{100 * one.miou:.2f}")
        for one in sorted(made.scored, key=lambda one: (one.target_ms, one.rank))
        if one.how == "hand"
    ]


def test_the_front_is_that_of_the_search(made: Made, page: Page) -> None:
    rows = page.table("Latency against score", "network")
    assert [(row["network"], row["predicted ms"], row["mIoU %"]) for row in rows] == [
        (one["digest"][:8], f"{one['ms']:.3f}", f"{100 * one['miou']:.2f}")
        for one in made.search["pareto"]
    ]
    assert len(rows) == len(pareto(made.scored)) > 1
    counts = Counter(one.how for one in made.scored)
    assert f"evolution {counts['evolve']}" in page.texts["Latency against score"]


def test_candidates_are_shown_as_measured(made: Made, page: Page) -> None:
    rows = page.table("Measured candidates", "network")
    assert len(rows) == len(made.measured)
    for row in rows:
        [one] = [one for digest, one in made.measured.items() if digest[:8] == row["network"]]
        ms = statistics.fmean(times["p50_ms"] for times in one.times)
        assert row["predicted ms"] == f"{one.predicted_ms:.3f}"
        assert row["measured ms"] == f"{ms:.3f}"
        assert one.predicted_ms is not None
        assert row["off by %"] == f"{100 * (ms / one.predicted_ms - 1):+.1f}"
    chosen = [target["chosen"][:8] for target in made.search["targets"]]
    assert sorted(row["network"] for row in rows if row["chosen for"]) == sorted(
        digest for digest in chosen if digest in {row["network"] for row in rows}
    )


def test_shares_of_operators_and_widths_are_those_of_the_scored_networks(
    made: Made, page: Page
) -> None:
    nets = [one.genotype for one in made.scored if one.how == "random"]
    for title, values in {
        "operator, % of cells": [op for net in nets for b in net.branches for op in b.ops],
        "width, % of cells": [f"{w}/12" for net in nets for b in net.branches for w in b.widths],
    }.items():
        rows = {row[title]: row for row in page.table("What the search chose from", title)}
        row = rows[f"random search ({len(nets)})"]
        for name, count in Counter(values).items():
            assert row[name] == f"{100 * count / len(values):.1f}"
        assert f"best ({round(0.1 * len(best_first(made.scored)))})" in rows
        assert "chosen (2)" in rows


def test_trained_networks_and_their_differences_are_those_of_the_files(
    made: Made, page: Page
) -> None:
    rows = page.table("Trained networks", "network")
    assert [(row["network"], row["mIoU % on val"]) for row in rows] == [
        (arm["name"], f"{arm['miou']:.2f}") for arm in made.trained["arms"]
    ]
    scores = {row["network"]: row["supernet's score %"] for row in rows}
    assert scores == {
        arm["name"]: "31.50" if arm["how"] == "searched" else "-" for arm in made.trained["arms"]
    }
    assert "tau 0.67" in page.texts["Trained networks"]
    [row] = page.table("Trained networks", "difference")
    assert list(row.values()) == ["searched - all random", "-0.62", "-1.91 to +0.70", "1 and 1"]
    courses = page.table("Trained networks", "training")
    searched = next(row for row in courses if row["training"] == "searched")
    score = made.trained["arms"][0]["miou"]
    assert list(searched.values()) == [
        "searched",
        "600",
        f"{score - 0.8:.2f}",
        f"{score - 0.8:.2f}",
    ]


def test_random_networks_of_equal_latency_are_listed_with_those_ruled_out(
    made: Made, page: Page
) -> None:
    data = json.loads((made.folder / "comparison.json").read_text())
    rows = page.table("Trained networks", "random network")
    entries = [*data["networks"], *data["ruled_out"]]
    told = [(row["random network"], row["measured ms"]) for row in rows]
    assert told == [(entry["digest"][:8], f"{entry['measured_ms']:.3f}") for entry in entries]
    assert [(row["equal"], row["trained"]) for row in rows] == [
        ("yes", "yes"), ("yes", "yes"), ("no", "no"), ("yes", "no"),
    ]  # fmt: skip
    assert "drawn by seed 1" in page.texts["Trained networks"]
    assert "within 2 %" in page.texts["Trained networks"]


def test_the_fit_is_that_of_the_table(made: Made, page: Page) -> None:
    assert made.table.report is not None
    section = "Does the table predict networks?"
    rows = {row["predictor"]: row for row in page.table(section, "predictor")}
    for name, key in {"the best constant": "constant", "a second measurement": "repeat"}.items():
        assert rows[name]["mean error %"] == f"{100 * made.table.report[key]['mean']:.2f}"
    error = made.table.report["error"]
    assert rows["sum of rows, calibrated"]["mean error %"] == f"{100 * error:.2f}"
    for goal, reached in made.table.report["goals"].items():
        assert f"{'Reached' if reached else 'Missed'}: {goal}." in page.texts[section]


def test_minutes_are_those_of_the_stages(made: Made, page: Page) -> None:
    rows = {row["stage"]: row for row in page.table("Minutes", "stage")}
    for name, record in made.stages.items():
        assert rows[name]["minutes"] == f"{record['seconds'] / 60:.2f}"
    assert rows["export"]["finished"] == "not yet"
    total = sum(record["seconds"] for record in made.stages.values())
    assert rows["in all"]["minutes"] == f"{total / 60:.2f}"


def test_the_device_is_that_of_the_table(made: Made, page: Page) -> None:
    facts = {row["fact"]: row["value"] for row in page.table("Measured on", "fact")}
    assert facts["device"] == "Box (box-2c), x86_64"
    assert facts["engine"] == "onnxruntime, fp32, batch 1"
    assert facts["size"] == "64x128 (height x width)"
    assert facts["threads"] == "1"
    assert facts["rows"] == str(len(made.table.rows))
    assert facts["versions"] == "numpy 2.4.6, onnxruntime 1.31.1"
    [row] = page.table("Exported", "file")
    assert row == {"file": "searched.onnx", "bytes": "1,200"}


def test_the_same_folder_gives_the_same_page(made: Made, text: str) -> None:
    assert report.page(made.folder) == text


@pytest.mark.usefixtures("undrawn")
def test_a_search_no_better_than_chance_says_so(tmp_path: Path) -> None:
    made = write_run(tmp_path / "run", gain=-0.03)
    page = Page(report.page(made.folder))
    assert page.texts["Search against chance"].count("no better than chance") == 2
    differences = [row["difference"] for row in page.table("Search against chance", "target ms")]
    assert all(value.startswith("-") for value in differences)


@pytest.mark.usefixtures("undrawn")
def test_a_formula_is_called_one(tmp_path: Path) -> None:
    page = Page(report.page(write_run(tmp_path / "run", nominal=True).folder))
    assert any("nothing was measured" in line for line in page.bad)
    assert "nothing was measured" in page.texts["Does the table predict networks?"]
    assert "nothing was measured" in page.texts["Measured candidates"]
    assert "nothing was measured" in page.texts["Chosen networks"]


@pytest.mark.parametrize("entropy", [0.97, 0.9])
def test_logits_that_did_not_move_are_called_out(entropy: float, tmp_path: Path) -> None:
    epochs = write_cosearch(tmp_path, entropy)
    page = Page(report.page(tmp_path))
    assert len(page.bad) == (entropy > 0.95)
    if page.bad:
        assert "DID NOT DECIDE" in page.bad[0]
        assert f"student {entropy:.3f}" in page.bad[0]
        assert "teacher" not in page.bad[0]
    kinds = {row["logits"]: row for row in page.table("Did the logits move?", "logits")}
    assert kinds["student.alpha"] == {
        "logits": "student.alpha", "entropy": f"{entropy:.4f}", "margin": "0.4000",
    }  # fmt: skip
    first, last = page.table("Did the logits move?", "epoch")
    assert first["entropy of student"] == "1.0000"
    assert last["epoch"] == "4"
    assert last["entropy of student"] == f"{epochs[-1]['entropy']['student']:.4f}"
    assert last["margin of teacher"] == f"{epochs[-1]['margin']['teacher']:.4f}"
    assert page.figures["Did the logits move?"] == 2
    assert "Latency against score" not in page.sections


@pytest.mark.usefixtures("undrawn")
def test_what_has_not_run_is_said(tmp_path: Path) -> None:
    (tmp_path / "settings.json").write_text('{"dataset": "camvid", "method": "evolve"}')
    page = Page(report.page(tmp_path))
    assert len(page.sections) == 11
    assert all("Nothing yet" in page.texts[section] for section in page.sections)
    assert "stage measure has not run" in page.texts["Measured on"]


PARTS = (
    "settings.json", "stages.json", "search/scored.jsonl", "search/measured.json", "search.json",
    "comparison.json", "train.json", "train", "supernet", "export", "table.json",
)  # fmt: skip


@pytest.mark.usefixtures("undrawn")
def test_any_part_may_be_missing(made: Made, tmp_path: Path) -> None:
    for part in PARTS:
        folder = tmp_path / part.replace("/", "-")
        shutil.copytree(made.folder, folder)
        path = folder / part
        shutil.rmtree(path) if path.is_dir() else path.unlink()
        run = report.read_run(folder)
        sections = report._sections(run)
        assert len(sections) == 11
        facts, warnings = report._facts(run), list(report._warnings(run))
        assert facts or part == "settings.json"
        assert warnings == []


@pytest.mark.parametrize("part", ["stages.json", "search.json", "table.json", "train.json"])
@pytest.mark.usefixtures("undrawn")
def test_a_damaged_file_is_named(part: str, made: Made, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    shutil.copytree(made.folder, folder)
    (folder / part).write_text("{")
    with pytest.raises(ConfigError, match=part):
        report.page(folder)


def test_a_network_that_is_not_the_chosen_one_is_refused(made: Made, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    shutil.copytree(made.folder, folder)
    other = made.search["targets"][1]["file"]
    shutil.copy(folder / other, folder / "genotype.json")
    with pytest.raises(ConfigError, match="is not the network that search"):
        report.page(folder)


def test_a_folder_that_is_no_run_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="not the folder of a run"):
        report.write_report(tmp_path)
    assert not list(tmp_path.iterdir())


def test_names_are_escaped(tmp_path: Path) -> None:
    made = write_run(tmp_path / "<script>alert(1)</script>", name="<script>$x</script>")
    text = report.page(made.folder)
    assert "<script" not in text
    assert "camvid&lt;script&gt;$x" in text
    assert Page(text).open == []


@pytest.mark.usefixtures("undrawn")
def test_an_unsteady_machine_is_called_one(made: Made, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    shutil.copytree(made.folder, folder)
    data = json.loads((folder / "table.json").read_text())
    data["report"]["repeat"]["mean"] = 0.123
    data["report"]["refusal"] = "the mean error is large"
    data["runs"][0]["load_average"] = 1.5
    (folder / "table.json").write_text(json.dumps(data))
    bad = Page(report.page(folder)).bad
    assert [line.partition(":")[0] for line in bad] == [
        "The fit of the table is not kept",
        "The machine was unsteady",
        "Other programs ran while the table was measured",
    ]
    assert "12.3 %" in bad[1]
    assert "load 1.50 on 2 cores" in bad[2]


@pytest.mark.usefixtures("undrawn")
def test_a_chosen_network_over_its_target_is_called_out(made: Made, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    shutil.copytree(made.folder, folder)
    data = json.loads((folder / "search.json").read_text())
    data["targets"][0]["measured_ms"] = 2 * data["targets"][0]["target_ms"]
    (folder / "search.json").write_text(json.dumps(data))
    [line] = Page(report.page(folder)).bad
    assert "takes" in line
