"""`RetargetSettings`: everything that a run of `fasterseg-search` depends on, read from TOML."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Literal, get_args

from fasterseg.arch.genotype import Rate
from fasterseg.arch.operators import CANDIDATES
from fasterseg.arch.space import WIDTHS, SearchSpace
from fasterseg.bench.tables import Statistic
from fasterseg.config import from_mapping, load_toml, read_toml
from fasterseg.errors import ConfigError, UnknownNameError
from fasterseg.registry import unknown
from fasterseg.search.evolve import EvolveSettings
from fasterseg.search.settings import CONFIGS, TrainSettings, load_settings
from fasterseg.search.split import ARCHITECTURE, HELD_OUT
from fasterseg.types import Size

if TYPE_CHECKING:
    from fasterseg.search.cosettings import MixtureSettings

Method = Literal["evolve", "fasterseg"]
METHOD_NAMES: Final[tuple[Method, ...]] = get_args(Method)

RECIPES: Final = CONFIGS / "retarget"
"""Packaged runs; a name without `.toml` is looked up here."""

SEARCHED: Final = "searched"
"""The searched network, and its teacher where a search finds one."""


@dataclass(frozen=True, slots=True)
class SpaceSettings:
    """The networks to choose from; see `SearchSpace`. The classes are those of the data set.

    Attributes:
        layers: cells of a path before any are pruned.
        ops: candidates of every cell.
        widths: candidates for the channels between cells, in twelfths.
        stem_widths: candidates for the stem.
        head_widths: candidates for merges and heads.
        final_rates: the sets of branches a network may have.
    """

    layers: int = 16
    ops: tuple[str, ...] = CANDIDATES
    widths: tuple[int, ...] = WIDTHS
    stem_widths: tuple[int, ...] = (8,)
    head_widths: tuple[int, ...] = (8,)
    final_rates: tuple[tuple[Rate, ...], ...] = ((32, 16), (32, 8))

    def space(self, num_classes: int) -> SearchSpace:
        """The space with a number of classes.

        Raises:
            ConfigError: a value is out of range.
        """
        values = {f.name: getattr(self, f.name) for f in dataclasses.fields(self)}
        return SearchSpace(**values, num_classes=num_classes)


@dataclass(frozen=True, slots=True)
class MeasureSettings:
    """What the network will run on, and how its latency is read.

    Attributes:
        engine: backend that deploys.
        precision: "auto" (fp32 on a CPU, fp16 on a GPU), "fp32" or "fp16".
        device: "auto", "cpu" or "cuda".
        threads: CPU threads of the engine; none: the runtime's default.
        statistic: which statistic targets and prices are.
        clock: "device" measures; "nominal" prices by formula, for trials.
        seed: of the networks that are drawn to judge the table by.
    """

    engine: str = "onnxruntime"
    precision: str = "auto"
    device: str = "auto"
    threads: int | None = None
    statistic: Statistic = "p50"
    clock: Literal["device", "nominal"] = "device"
    seed: int = 0


@dataclass(frozen=True, slots=True)
class SplitSettings:
    """How the training pictures are divided; the search sees no others.

    Attributes:
        held_out: share that networks are scored on.
        architecture: share that the logits of method fasterseg learn from.
    """

    held_out: float = HELD_OUT
    architecture: float = ARCHITECTURE


@dataclass(frozen=True, slots=True, kw_only=True)
class SupernetSettings(TrainSettings):
    """The training of the supernet: everything of `TrainSettings`, and what is drawn in a step.

    Attributes:
        random_subnets: networks of a step besides the largest and the smallest.
        distill: weight of what these learn from the largest one.
    """

    dataset: str = ""
    random_subnets: int = 2
    distill: float = 1.0


@dataclass(frozen=True, slots=True)
class MixtureStage:
    """One of the two trainings of method fasterseg; see `MixtureSettings`.

    Attributes:
        config: settings of a mixture: a packaged name or a `.toml` file.
        overrides: keys of these that have other values here; space, target, data set and seed are
            those of the run.
    """

    config: str
    overrides: Mapping[str, Any] = field(default_factory=dict)

    def mixture(
        self, space: SearchSpace, dataset: str, seed: int, target_ms: float = 0.0
    ) -> MixtureSettings:
        """The settings of the training.

        Raises:
            ConfigError: an override is no key of such settings, or its value does not fit.
        """
        # Torch comes with it, which the rest of a run's settings does without.
        from fasterseg.search.cosettings import MixtureSettings, load_mixture

        values = _merged(load_mixture(self.config).to_json(), self.overrides)
        settings = from_mapping({**values, "space": dataclasses.asdict(space)}, MixtureSettings, "")
        return dataclasses.replace(
            settings,
            train=dataclasses.replace(settings.train, dataset=dataset, seed=seed),
            cosearch=dataclasses.replace(settings.cosearch, target_ms=target_ms),
        )


@dataclass(frozen=True, slots=True)
class StandaloneSettings:
    """The training of the chosen network, and of those it is compared with: one recipe for all.

    Attributes:
        config: training settings: a packaged name or a `.toml` file.
        overrides: keys of these that have other values here.
        inherit: begin with the supernet's weights wherever a network is one of its own.
        teacher: trained model to distil from; "searched" is the teacher that method fasterseg
            finds, trained first; empty: none.
        compare: models whose architectures are trained beside.
        compare_random: random networks of equal latency that are trained beside.
        seeds: every network is trained once with each.
        judged_on: the split that the trained networks are compared on, once.
    """

    config: str = "camvid-student"
    overrides: Mapping[str, Any] = field(default_factory=dict)
    inherit: bool = True
    teacher: str = ""
    compare: tuple[str, ...] = ()
    compare_random: int = 0
    seeds: tuple[int, ...] = (1,)
    judged_on: Literal["val", "test"] = "val"

    def training(self, dataset: str, seed: int) -> TrainSettings:
        """The settings of one training.

        Raises:
            ConfigError: an override is no key of training settings, or its value does not fit.
            UnknownNameError: no such packaged configuration.
        """
        base = load_settings(self.config).to_json()
        values = _merged(base, {**self.overrides, "dataset": dataset, "seed": seed})
        return from_mapping(values, TrainSettings, "[train.overrides]")


@dataclass(frozen=True, slots=True)
class ExportSettings:
    """What is handed over.

    Attributes:
        precisions: of the ONNX files, at the size of the run.
    """

    precisions: tuple[Literal["fp32", "fp16"], ...] = ("fp32",)


@dataclass(frozen=True, slots=True)
class RetargetSettings:
    """One run.

    Attributes:
        dataset: name in `datasets.DATASETS`, or a `.toml` file that describes one.
        size: of the frames where the network will run, "HxW".
        method: "evolve" or "fasterseg".
        seed: of everything that is drawn.
        targets_ms: milliseconds that a network may take; each gets a network of its own.
        target_fps: the same as frames per second.
        target_share: the same as a share of what `target_model` takes on the device.
        target_model: see `target_share`.
        space: see there.
        measure: see there.
        split: see there.
        supernet: of method evolve.
        search: of method evolve.
        pretrain: of method fasterseg.
        cosearch: of method fasterseg.
        train: see there.
        export: see there.
    """

    dataset: str
    size: str
    method: Method = "evolve"
    seed: int = 1
    targets_ms: tuple[float, ...] = ()
    target_fps: float | None = None
    target_share: float | None = None
    target_model: str = "fasterseg-camvid"
    space: SpaceSettings = field(default_factory=SpaceSettings)
    measure: MeasureSettings = field(default_factory=MeasureSettings)
    split: SplitSettings = field(default_factory=SplitSettings)
    supernet: SupernetSettings | None = None
    search: EvolveSettings = field(default_factory=EvolveSettings)
    pretrain: MixtureStage = MixtureStage("paper/pretrain")
    cosearch: MixtureStage = MixtureStage("paper/search")
    train: StandaloneSettings = field(default_factory=StandaloneSettings)
    export: ExportSettings = field(default_factory=ExportSettings)

    def __post_init__(self) -> None:
        given = [bool(self.targets_ms), self.target_fps is not None, self.target_share is not None]
        if sum(given) != 1:
            raise ConfigError(
                "a run needs one kind of target: --target-latency-ms MS (again for more), "
                "--target-fps N, or targets_ms, target_fps or target_share in its settings"
            )
        aims = (*self.targets_ms, self.target_fps, self.target_share)
        if not all(aim > 0 for aim in aims if aim is not None):
            raise ConfigError("targets must be above 0")
        if self.method == "evolve" and self.supernet is None:
            raise ConfigError('method "evolve" needs a table [supernet] with images and crop')
        if len(self.targets_ms) > 1 and self.method == "fasterseg":
            raise ConfigError(
                'method "fasterseg" searches for one target at a time; give one, or method "evolve"'
            )
        _ = self.frame_size

    @property
    def frame_size(self) -> Size:
        """`size`, parsed."""
        return Size.parse(self.size)

    def targets(self, price: Callable[[str], float]) -> tuple[float, ...]:
        """The targets in milliseconds.

        Args:
            price: model name -> milliseconds on the device.
        """
        if self.target_fps is not None:
            return (round(1000 / self.target_fps, 4),)
        if self.target_share is not None:
            return (round(self.target_share * price(self.target_model), 4),)
        return self.targets_ms

    def to_json(self) -> dict[str, Any]:
        """All settings as plain JSON values."""
        plain: dict[str, Any] = json.loads(json.dumps(dataclasses.asdict(self)))
        return plain


def packaged_runs() -> dict[str, Path]:
    """Packaged runs by name."""
    return {path.stem: path for path in sorted(RECIPES.glob("*.toml"))}


def load_run(
    name: str, changes: Mapping[str, Any] | None = None, space: Path | None = None
) -> RetargetSettings:
    """Read the settings of a run.

    Args:
        name: a `.toml` file, or a packaged run.
        changes: keys that have other values than in the file; a target takes the place of all.
        space: a `.toml` file with a search space, in place of the file's.

    Raises:
        UnknownNameError: neither; the message lists the packaged ones.
        ConfigError: the file does not hold the settings of a run.
    """
    path = Path(name)
    if not name.endswith(".toml"):
        known = packaged_runs()
        if name not in known:
            raise UnknownNameError(unknown("run", name, known))
        path = known[name]
    values = {**read_toml(path), **(changes or {})}
    if changes and (aims := _AIMS & changes.keys()):
        values = {key: value for key, value in values.items() if key not in _AIMS - aims}
    if space is not None:
        chosen = dataclasses.asdict(load_toml(space, SearchSpace))
        values["space"] = {key: value for key, value in chosen.items() if key != "num_classes"}
    return _seeded(values, str(path))


_AIMS: Final = frozenset({"targets_ms", "target_fps", "target_share"})


def _seeded(values: Mapping[str, Any], where: str) -> RetargetSettings:
    """The settings, with the seed of the run in the stages that have their own."""
    for table in ("supernet", "search"):
        for key in ("seed", "dataset"):
            if key in values.get(table, {}):
                raise ConfigError(f"{where}: [{table}] has a {key}; give it once, above all tables")
    settings = from_mapping(values, RetargetSettings, where)
    supernet = settings.supernet and dataclasses.replace(settings.supernet, seed=settings.seed)
    search = dataclasses.replace(settings.search, seed=settings.seed)
    return dataclasses.replace(settings, supernet=supernet, search=search)


def _merged(base: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """One mapping over another, table by table."""
    merged = dict(base)
    for key, value in changes.items():
        old = base.get(key)
        both = isinstance(value, Mapping) and isinstance(old, Mapping)
        merged[key] = _merged(old, value) if both else value  # type: ignore[arg-type]
    return merged
