from __future__ import annotations

import json
import random
from pathlib import Path

import pytest

from fasterseg.errors import ConfigError, OutputError, UsageError
from fasterseg.search.ledger import Ledger
from fasterseg.search.pareto import How
from fasterseg.search.subnets import random_subnet
from fasterseg.search.window import Candidate
from tests.unit.search.search_fakes import SPACE, Scorer, price, quality


def candidates(count: int, seed: int = 0) -> list[Candidate]:
    rng = random.Random(seed)
    drawn = [random_subnet(SPACE, rng) for _ in range(count)]
    return [Candidate(one, price(one), one.digest()) for one in drawn]


def score(ledger: Ledger, chosen: list[Candidate], scorer: Scorer, how: How = "evolve") -> None:
    found = ledger.score(chosen, scorer, how=how, number=0, target_ms=9.0)
    assert [one.miou for one in found] == [quality(one.genotype) for one in chosen]
    assert [one.digest for one in found] == [one.digest for one in chosen]


def test_a_line_holds_everything_about_a_score(tmp_path: Path) -> None:
    path = tmp_path / "search" / "scored.jsonl"
    [one] = candidates(1)
    score(Ledger(path, "abc"), [one], Scorer())
    assert json.loads(path.read_text(encoding="utf-8")) == {
        "digest": one.digest,
        "how": "evolve",
        "round": 0,
        "ms": one.ms,
        "miou": quality(one.genotype),
        "target_ms": 9.0,
        "genotype": one.genotype.to_json(),
        "supernet": "abc",
    }


def test_scores_are_stored_a_few_at_a_time(tmp_path: Path) -> None:
    path = tmp_path / "scored.jsonl"
    chosen = candidates(10)
    with pytest.raises(KeyboardInterrupt):
        score(Ledger(path, "abc", chunk=4), chosen, Scorer(dies_after=9))
    assert len(path.read_text(encoding="utf-8").splitlines()) == 8
    rest = Scorer()
    score(Ledger(path, "abc", chunk=4), chosen, rest)
    assert rest.digests == [one.digest for one in chosen[8:]]


def test_a_network_met_again_gets_a_line_but_no_second_score(tmp_path: Path) -> None:
    path = tmp_path / "scored.jsonl"
    ledger, chosen, scorer = Ledger(path, "abc"), candidates(3), Scorer()
    score(ledger, chosen, scorer)
    score(ledger, chosen[1:], scorer, "random")
    score(ledger, chosen[1:], scorer, "random")
    assert len(scorer.digests) == 3
    assert [one.how for one in Ledger(path, "abc").scored] == ["evolve"] * 3 + ["random"] * 2
    assert Ledger(path, "abc").scored == ledger.scored


def test_scores_of_another_supernet_count_for_nothing_and_stay(tmp_path: Path) -> None:
    path = tmp_path / "scored.jsonl"
    chosen = candidates(2)
    score(Ledger(path, "old"), chosen, Scorer())
    ledger, scorer = Ledger(path, "new"), Scorer()
    assert ledger.scored == []
    score(ledger, chosen, scorer)
    assert len(scorer.digests) == 2
    assert len(Ledger(path, "old").scored) == len(Ledger(path, "new").scored) == 2


@pytest.mark.parametrize("cut", [1, 40, 400])
def test_a_line_that_was_cut_short_is_scored_again(tmp_path: Path, cut: int) -> None:
    path = tmp_path / "scored.jsonl"
    chosen = candidates(3)
    score(Ledger(path, "abc"), chosen, Scorer())
    whole = path.read_bytes()
    path.write_bytes(whole[:-cut])
    scorer = Scorer()
    score(Ledger(path, "abc"), chosen, scorer)
    assert scorer.digests == [chosen[2].digest]
    assert path.read_bytes() == whole


def test_a_process_that_does_not_write_reads_all_the_same(tmp_path: Path) -> None:
    path = tmp_path / "scored.jsonl"
    chosen = candidates(4)
    score(Ledger(path, "abc"), chosen[:2], Scorer())
    path.write_bytes(path.read_bytes() + b'{"cut')
    before = path.read_bytes()
    scorer = Scorer()
    score(Ledger(path, "abc", writes=False), chosen, scorer)
    assert scorer.digests == [one.digest for one in chosen[2:]]
    assert path.read_bytes() == before


@pytest.mark.parametrize("line", ["not json", "[1]", '{"digest": "x"}', '{"supernet": "abc"}'])
def test_a_file_that_holds_something_else_is_refused_with_the_line(
    tmp_path: Path, line: str
) -> None:
    path = tmp_path / "scored.jsonl"
    score(Ledger(path, "abc"), candidates(1), Scorer())
    path.write_text(path.read_text(encoding="utf-8") + line + "\n", encoding="utf-8")
    with pytest.raises(ConfigError, match="line 2"):
        Ledger(path, "abc")


def test_a_score_that_is_no_number_stops_the_search() -> None:
    with pytest.raises(UsageError, match="scored nan"):
        Ledger(None, "abc").score(
            candidates(1), lambda _: [float("nan")], how="evolve", number=0, target_ms=1.0
        )


def test_a_file_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path / "scored.jsonl", "abc")
    (tmp_path / "scored.jsonl").mkdir()
    with pytest.raises(OutputError, match=r"cannot write .*scored\.jsonl"):
        score(ledger, candidates(1), Scorer())
