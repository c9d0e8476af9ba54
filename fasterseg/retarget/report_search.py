"""The sections of a report that tell of the search itself."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Final

from fasterseg import plots
from fasterseg.arch.genotype import Genotype
from fasterseg.arch.operators import CANDIDATES
from fasterseg.arch.plan import plan
from fasterseg.retarget.diagram import lay_out
from fasterseg.retarget.picture import inline_svg
from fasterseg.retarget.report_parts import (
    Figure,
    Section,
    Table,
    absent,
    milliseconds,
    percent,
)
from fasterseg.retarget.run_files import Record, RunFiles
from fasterseg.search.pareto import Scored, best_first, pareto
from fasterseg.types import Size

WAYS: Final[Mapping[str, str]] = {
    "evolve": "evolution",
    "random": "random search",
    "hand": "by hand",
    "given": "given",
}
"""What came upon a network -> what a report calls it."""

BEST: Final = 0.1
"""Share of the scored networks that counts as the best."""


def tradeoff_section(run: RunFiles) -> Section:
    """Latency against score of everything that was scored."""
    title = "Latency against score"
    if not run.scored:
        return absent(title, "search")
    clouds = {
        name: [(one.ms, 100 * one.miou) for one in run.scored if one.how == how]
        for how, name in WAYS.items()
    }
    front = pareto(run.scored)
    svg = plots.tradeoff(
        {name: points for name, points in clouds.items() if points},
        [(one.ms, 100 * one.miou) for one in front],
        _marks(run),
        {f"target {target['target_ms']:g} ms": target["target_ms"] for target in run.targets},
        (f"latency, ms ({run.statistic})", "mIoU on the held-out part of train, %"),
    )
    rows = [
        (one.digest[:8], WAYS[one.how], milliseconds(one.ms), percent(one.miou)) for one in front
    ]
    note = (
        "Scores are those of subnets with the supernet's weights, not of trained networks. Small "
        "marks stand at the predicted latency, rings and the star at the measured one."
    )
    counts = Counter(WAYS[one.how] for one in run.scored)
    found = ", ".join(f"{name} {count}" for name, count in counts.items())
    lines = [f"{len(run.scored)} scores: {found}."]
    table = Table(
        ("network", "found by", "predicted ms", "mIoU %"), rows,
        "The front: no other network is as fast and as good.",
    )  # fmt: skip
    return Section(title, lines, [Figure(svg, note), table])


def _marks(run: RunFiles) -> dict[str, list[tuple[float, float]]]:
    """Measured networks, and the chosen ones, where they were measured."""
    scores = {one.digest: 100 * one.miou for one in run.scored}
    measured = [
        (one.ms(run.statistic), scores[digest])
        for digest, one in run.measured.items()
        if digest in scores
    ]
    chosen = [(float(t["measured_ms"]), 100 * float(t["miou"])) for t in run.targets]
    marks = {"measured": measured, "chosen": chosen}
    return {name: points for name, points in marks.items() if points}


def chance_section(run: RunFiles) -> Section:
    """The evolution beside a random search of the same budget, and what a hand would write."""
    title = "Search against chance"
    targets = [target for target in run.targets if "evolve" in target and "random" in target]
    if not targets:
        return absent(title, "search")
    rows, lines = [], []
    for target in targets:
        ours, random = float(target["evolve"]["best_miou"]), float(target["random"]["best_miou"])
        gain = 100 * (ours - random)
        by_hand = best_first(_by_hand(run, target["target_ms"]))
        rows.append(
            (
                f"{target['target_ms']:g}",
                percent(ours),
                percent(random),
                f"{gain:+.2f}",
                f"{target['evolve']['evaluations']} / {target['random']['evaluations']}",
                percent(by_hand[0].miou) if by_hand else "-",
            )
        )
        verdict = "better than" if gain > 0 else "no better than"
        lines.append(
            f"At {target['target_ms']:g} ms the evolution's best network scores {gain:+.2f} "
            f"points: {verdict} chance."
        )
    head = (
        "target ms", "best of evolution, mIoU %", "best of random search, mIoU %", "difference",
        "evaluations", "best by hand, mIoU %",
    )  # fmt: skip
    note = (
        "The difference is printed whether or not it is positive. One run of each; the spread "
        "over seeds is not in it."
    )
    hand = _hand_table(run)
    return Section(title, lines, [Table(head, rows, note), *([hand] if hand.rows else [])])


def _by_hand(run: RunFiles, target_ms: float) -> list[Scored]:
    return [one for one in run.scored if one.how == "hand" and one.target_ms == target_ms]


def _hand_table(run: RunFiles) -> Table:
    """Networks of one operator and one width."""
    ordered = sorted(
        (one for one in run.scored if one.how == "hand"), key=lambda one: (one.target_ms, one.rank)
    )
    rows = [
        (
            _most(op for branch in one.genotype.branches for op in branch.ops),
            _most(str(w) for branch in one.genotype.branches for w in branch.widths) + "/12",
            f"{one.target_ms:g}",
            milliseconds(one.ms),
            percent(one.miou),
        )
        for one in ordered
    ]
    note = "By hand: one operator, one width."
    return Table(("operator", "width", "target ms", "predicted ms", "mIoU %"), rows, note)


def _most(names: Iterable[str]) -> str:
    return Counter(names).most_common(1)[0][0]


def candidates_section(run: RunFiles) -> Section:
    """The networks that were measured before one was chosen."""
    title = "Measured candidates"
    if not run.measured:
        return absent(title, run.choosing_stage)
    scores = {one.digest: one.miou for one in run.scored}
    chosen = {target["chosen"]: f"{target['target_ms']:g} ms" for target in run.targets}
    rows = []
    for digest, one in sorted(run.measured.items(), key=lambda item: item[1].ms(run.statistic)):
        ms = one.ms(run.statistic)
        rows.append(
            (
                digest[:8],
                milliseconds(one.predicted_ms),
                milliseconds(ms),
                f"{100 * (ms / one.predicted_ms - 1):+.1f}" if one.predicted_ms else "-",
                percent(scores[digest]) if digest in scores else "-",
                chosen.get(digest, ""),
            )
        )
    head = ("network", "predicted ms", "measured ms", "off by %", "mIoU %", "chosen for")
    note = f"Whole networks, {run.statistic}, mean over the passes."
    if run.is_nominal:
        note = "A formula stands in for the device: nothing was measured."
    return Section(title, [], [Table(head, rows, note)])


def chosen_section(run: RunFiles) -> Section:
    """What came of it: each chosen network with its diagram."""
    title = "Chosen networks"
    if not run.targets:
        return absent(title, run.choosing_stage)
    rows, figures = [], []
    for target in run.targets:
        rows.append(_chosen_row(target))
        genotype = run.genotype(target["file"])
        if genotype is not None and (size := _size(run)) is not None:
            table = run.table.table() if run.table is not None else None
            svg = inline_svg(lay_out(plan(genotype, size), table))
            figures.append(Figure(svg, f"For {target['target_ms']:g} ms.", wide=True))
    head = (
        "target ms", "file", "network", "found by", "predicted ms", "measured ms",
        "share of the target %", "mIoU %",
    )  # fmt: skip
    latency = "a formula's, nothing was measured" if run.is_nominal else run.statistic
    note = f"Latency: {latency}. mIoU: of the subnet with the supernet's weights."
    return Section(title, [], [Table(head, rows, note), *figures])


def _chosen_row(target: Record) -> tuple[str, ...]:
    share = 100 * target["measured_ms"] / target["target_ms"]
    return (
        f"{target['target_ms']:g}",
        str(target["file"]),
        str(target["chosen"])[:8],
        WAYS.get(target.get("how", ""), "-"),
        milliseconds(target["predicted_ms"]),
        milliseconds(target["measured_ms"]),
        f"{share:.1f}",
        percent(target["miou"]),
    )


def _size(run: RunFiles) -> Size | None:
    if run.table is not None:
        return run.table.size
    return Size.parse(run.settings["size"]) if "size" in run.settings else None


def choices_section(run: RunFiles) -> Section:
    """Operators and widths of what was scored, of the best, and of the chosen."""
    title = "What the search chose from"
    if not run.scored:
        return absent(title, "search")
    groups = _groups(run)
    blocks: list[Table | Figure] = []
    counts = {
        "operator": {name: _operators(nets) for name, nets in groups.items()},
        "width": {name: _widths(nets) for name, nets in groups.items()},
    }
    for what, by_group in counts.items():
        keys = _ordered({key for counter in by_group.values() for key in counter})
        shares = {
            name: {key: 100 * counter[key] / max(1, counter.total()) for key in keys}
            for name, counter in by_group.items()
        }
        rows = [(name, *(f"{row[key]:.1f}" for key in keys)) for name, row in shares.items()]
        blocks.append(Table((f"{what}, % of cells", *keys), rows))
        blocks.append(Figure(plots.bars(shares, f"% of cells, by {what}")))
    line = f"Best: the best {100 * BEST:.0f} % of all scored networks, whoever found them."
    return Section(title, [line], blocks)


def _groups(run: RunFiles) -> dict[str, list[Genotype]]:
    everyone = best_first(run.scored)
    best = everyone[: max(1, round(BEST * len(everyone)))]
    chosen = {target["chosen"] for target in run.targets}
    found = {
        name: [one.genotype for one in run.scored if one.how == how]
        for how, name in WAYS.items()
        if how in ("random", "evolve")
    }
    found["best"] = [one.genotype for one in best]
    found["chosen"] = [one.genotype for one in everyone if one.digest in chosen]
    return {f"{name} ({len(nets)})": nets for name, nets in found.items() if nets}


def _operators(nets: Sequence[Genotype]) -> Counter[str]:
    return Counter(op for net in nets for branch in net.branches for op in branch.ops)


def _widths(nets: Sequence[Genotype]) -> Counter[str]:
    return Counter(f"{w}/12" for net in nets for branch in net.branches for w in branch.widths)


def _ordered(keys: Iterable[str]) -> list[str]:
    """Operators in the order of the space, widths ascending."""
    return sorted(
        keys, key=lambda key: CANDIDATES.index(key) if key in CANDIDATES else int(key[:-3])
    )
