"""Engine files of TensorRT: the raw plan, and beside it a JSON file that says what it is.

The plan is raw because trtexec, Triton and DeepStream want it raw. A plan behind a length-prefixed
JSON header, as Ultralytics writes it, is read too.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Final, Literal

from fasterseg.cache import write_atomic
from fasterseg.config import from_mapping, parse_json
from fasterseg.errors import ConfigError, EngineError, EngineMismatchError
from fasterseg.runtime.base import EngineSpec, ParityVerdict

SCHEMA: Final = 1
SUFFIXES: Final = (".engine", ".plan")
SIDECAR: Final = ".json"
LAYERS: Final = ".layers.json"
_LONGEST_HEADER: Final = 1 << 20

Hardware = Literal["none", "ampere-plus", "same-compute-capability"]
HARDWARE: Final[tuple[Hardware, ...]] = ("none", "ampere-plus", "same-compute-capability")


@dataclass(frozen=True)
class BuildOptions:
    """How a plan is built; the defaults are those of the runtime.

    Attributes:
        plugins: "auto" (ours where their library is found, else standard layers) or "off".
        workspace_mib: most scratch memory a layer may take, MiB.
        max_aux_streams: further streams inside one run; 0 for none.
        optimization_level: 0 (quick to build) to 5.
        version_compatible: run under newer versions too; embeds a runtime, needs a trusted file.
        hardware: "none" (this GPU), "ampere-plus" or "same-compute-capability".
        targets: compute capabilities ("sm_89") that TensorRT-RTX builds for.
        dynamic: smallest frames, those it is tuned for, and largest, HxW; None for one size.
        max_batch: most frames per call of a dynamic engine.
    """

    plugins: Literal["auto", "off"] = "auto"
    workspace_mib: int | None = None
    max_aux_streams: int | None = None
    optimization_level: int | None = None
    version_compatible: bool = False
    hardware: Hardware = "none"
    targets: tuple[str, ...] = ()
    dynamic: tuple[str, str, str] | None = None
    max_batch: int = 1


@dataclass(frozen=True)
class PlanFacts:
    """What there is to know about a plan; its sidecar.

    Attributes:
        spec: of the engine, with GPU, compute capability, plugins and parity.
        backend: "tensorrt" or "tensorrt-rtx".
        version: of the runtime that built it.
        system: "linux-x86_64".
        targets: compute capabilities it runs on.
        options: how it was built.
        sha256: of the plan.
        bytes: size of the plan.
        onnx_sha256: of the graph it was built from.
        build_s: seconds the build took.
        created: time, ISO 8601, UTC.
        cuda: newest CUDA version of the driver it was built under; None without a GPU.
        layers: kind of layer in the network -> number.
        inputs: name -> type and shape.
        outputs: name -> type and shape.
    """

    spec: EngineSpec
    backend: str
    version: str
    system: str
    targets: tuple[str, ...]
    options: BuildOptions
    sha256: str
    bytes: int
    onnx_sha256: str
    build_s: float
    created: str
    cuda: str | None
    layers: Mapping[str, int] = field(default_factory=dict)
    inputs: Mapping[str, str] = field(default_factory=dict)
    outputs: Mapping[str, str] = field(default_factory=dict)

    def to_json(self) -> str:
        """The sidecar's text; the verdict stands at the top, null when nothing was compared."""
        spec = json.loads(self.spec.to_json())
        parity = spec.pop("parity")
        plain = {name: value for name, value in asdict(self).items() if name != "spec"}
        return json.dumps({"schema": SCHEMA, "parity": parity, **plain, "spec": spec}, indent=2)

    def rebuild(self) -> str:
        """The command that makes such an engine again."""
        if self.spec.genotype is None:
            return f"fasterseg build FILE.onnx --engine {self.backend}"
        size = f" --size {self.spec.size}" if self.spec.size else ""
        return (
            f"fasterseg build {self.spec.name} --engine {self.backend}{size} "
            f"--precision {self.spec.precision}"
        )


@dataclass(frozen=True)
class _Plain:
    """The fields of a sidecar that are read as they are."""

    backend: Literal["tensorrt", "tensorrt-rtx"]
    version: str
    system: str
    targets: tuple[str, ...]
    options: BuildOptions
    sha256: str
    bytes: int
    onnx_sha256: str
    build_s: float
    created: str
    cuda: str | None
    layers: dict[str, int]
    inputs: dict[str, str]
    outputs: dict[str, str]


@dataclass(frozen=True)
class Plan:
    """A plan with its facts.

    Attributes:
        data: as the runtime takes it.
        facts: its sidecar.
        title: what messages call it.
    """

    data: bytes = field(repr=False)
    facts: PlanFacts
    title: str = "the engine"


def sidecar_path(path: Path) -> Path:
    """`x.engine` -> `x.engine.json`."""
    return path.with_name(path.name + SIDECAR)


def layers_path(path: Path) -> Path:
    """`x.engine` -> `x.engine.layers.json`, what the engine inspector said."""
    return path.with_name(path.name + LAYERS)


def write_plan(path: Path, plan: Plan) -> None:
    """Write sidecar and plan, in this order: who finds the plan finds both.

    Raises:
        OutputError: the folder cannot be written, or the disk is full.
    """
    write_facts(path, plan.facts)
    write_atomic(path, plan.data)


def write_facts(path: Path, facts: PlanFacts) -> None:
    """Write the sidecar alone: its verdict has come in."""
    write_atomic(sidecar_path(path), (facts.to_json() + "\n").encode())


def read_facts(path: Path) -> PlanFacts:
    """Read a plan's sidecar.

    Raises:
        EngineError: the plan does not exist.
        EngineMismatchError: there is no sidecar, it is not one, or one of a newer schema.
    """
    if not path.is_file():
        raise EngineError(
            f"engine {path} does not exist. Build one: fasterseg build MODEL --engine tensorrt "
            f"-o {path}"
        )
    sidecar = sidecar_path(path)
    try:
        data = parse_json(sidecar.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise EngineMismatchError(_foreign(path, sidecar)) from None
    except (OSError, ValueError) as error:
        raise EngineMismatchError(
            f"{sidecar} cannot be read ({error}), so nothing is known about the engine. Build it "
            "again: fasterseg build MODEL --engine tensorrt"
        ) from error
    return _facts_from(data, sidecar)


def _facts_from(data: Any, sidecar: Path) -> PlanFacts:
    try:
        schema = int(data.pop("schema"))
        if schema > SCHEMA:
            raise EngineMismatchError(
                f"{sidecar} was written by a newer fasterseg (schema {schema}, this one reads "
                f"{SCHEMA}). Upgrade: pip install -U fasterseg"
            )
        spec = {**data.pop("spec"), "parity": data.pop("parity")}
        plain = from_mapping(data, _Plain, str(sidecar))
    except (
        ConfigError, KeyError, TypeError, ValueError, AttributeError, OverflowError
    ) as error:  # fmt: skip
        raise EngineMismatchError(
            f"{sidecar} is no description of an engine ({error}). Build the engine again: "
            "fasterseg build MODEL --engine tensorrt"
        ) from error
    return PlanFacts(spec=EngineSpec.from_json(json.dumps(spec), str(sidecar)), **vars(plain))


def _foreign(path: Path, sidecar: Path) -> str:
    header, _ = split_header(path.read_bytes())
    whose = (
        f" Its header says: {', '.join(f'{key} {header[key]}' for key in list(header)[:4])}."
        if header
        else ""
    )
    return (
        f"{path} has no description beside it ({sidecar.name}), so its classes, size and GPU are "
        f"unknown.{whose} Keep the two files together, or build it: fasterseg build MODEL "
        "--engine tensorrt"
    )


def read_plan(path: Path) -> Plan:
    """Read a plan and its sidecar, and see that they belong together.

    Raises:
        EngineError: it is missing, cannot be read, or is not whole.
        EngineMismatchError: see `read_facts`.
    """
    facts = read_facts(path)
    try:
        _, data = split_header(path.read_bytes())
    except OSError as error:
        raise EngineError(
            f"cannot read engine {path}: {error.strerror or error}. Mend its permissions"
        ) from error
    if len(data) != facts.bytes:
        raise EngineError(
            f"engine {path} is damaged: {len(data):,} bytes, {facts.bytes:,} were written. Copy it "
            f"again, or build it: {facts.rebuild()}"
        )
    if hashlib.sha256(data).hexdigest() != facts.sha256:
        raise EngineError(
            f"engine {path} is damaged: its SHA-256 is not the one in {sidecar_path(path).name}. "
            f"Copy it again, or build it: {facts.rebuild()}"
        )
    return Plan(data, facts, str(path))


def split_header(data: bytes) -> tuple[Mapping[str, Any] | None, bytes]:
    """Take off a header: four bytes of length, little-endian, and so much JSON; None without."""
    length = int.from_bytes(data[:4], "little")
    if not 2 <= length <= min(_LONGEST_HEADER, len(data) - 4) or data[4:5] != b"{":
        return None, data
    try:
        header = parse_json(data[4 : 4 + length])
    except ValueError:
        return None, data
    return header, data[4 + length :]


def with_parity(facts: PlanFacts, verdict: ParityVerdict | None) -> PlanFacts:
    """The same facts with a verdict."""
    return replace(facts, spec=replace(facts.spec, parity=verdict))
