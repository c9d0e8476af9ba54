"""Class names, palettes and ids of the data sets; the only place where they are written down."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from fasterseg.errors import ConfigError, UnknownNameError
from fasterseg.registry import unknown

RGB = tuple[int, int, int]


@dataclass(frozen=True, slots=True)
class LabelSet:
    """The classes of a model or a data set, in train-id order.

    Attributes:
        name: short name ("cityscapes").
        classes: class names; train id i is `classes[i]`.
        palette: (R, G, B) in [0, 255] for each class.
        ignore_id: id of pixels that belong to no class.
        source_ids: train id -> id in the data set's own files (Cityscapes labelIds); the train
            ids themselves where the files hold train ids.

    Raises:
        ConfigError: lengths differ, two classes share a name, there are no classes or more than
            127 (class maps travel as int8 inside engines).
    """

    name: str
    classes: tuple[str, ...]
    palette: tuple[RGB, ...]
    ignore_id: int = 255
    source_ids: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        if not self.source_ids:
            object.__setattr__(self, "source_ids", tuple(range(len(self.classes))))
        counts = {len(self.classes), len(self.palette), len(self.source_ids)}
        if len(counts) != 1:
            raise ConfigError(
                f"label set '{self.name}': {len(self.classes)} classes, {len(self.palette)} "
                f"colours and {len(self.source_ids)} source ids; give one of each per class"
            )
        if not 1 <= len(self.classes) <= 127:
            raise ConfigError(
                f"label set '{self.name}' has {len(self.classes)} classes; 1 to 127 are possible"
            )
        if twice := [name for name, count in Counter(self.classes).items() if count > 1]:
            raise ConfigError(
                f"label set '{self.name}' has several classes named '{twice[0]}'; shares and "
                "statistics are told by name, so give each its own"
            )
        for colour in self.palette:
            if len(colour) != 3 or not all(0 <= channel <= 255 for channel in colour):
                raise ConfigError(
                    f"label set '{self.name}': colour {colour} is not three values in [0, 255]"
                )

    def __len__(self) -> int:
        return len(self.classes)

    @property
    def has_source_ids(self) -> bool:
        """Whether the data set's files use ids other than the train ids."""
        return self.source_ids != tuple(range(len(self.classes)))

    def to_json(self) -> dict[str, Any]:
        """The fields as plain JSON values; `from_json` is the inverse."""
        return {
            "name": self.name,
            "classes": list(self.classes),
            "palette": [list(colour) for colour in self.palette],
            "ignore_id": self.ignore_id,
            "source_ids": list(self.source_ids),
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> LabelSet:
        """Rebuild from `to_json`.

        Raises:
            ConfigError: a field is missing or of the wrong kind.
        """
        try:
            palette = tuple((int(r), int(g), int(b)) for r, g, b in data["palette"])
            return cls(
                name=str(data["name"]),
                classes=tuple(str(name) for name in data["classes"]),
                palette=palette,
                ignore_id=int(data.get("ignore_id", 255)),
                source_ids=tuple(int(i) for i in data.get("source_ids", ())),
            )
        except (KeyError, TypeError, ValueError, OverflowError) as error:
            raise ConfigError(
                f"not a label set ({error!r}); it needs name, classes and a palette of (r, g, b)"
            ) from error


CITYSCAPES: Final = LabelSet(
    name="cityscapes",
    classes=(
        "road", "sidewalk", "building", "wall", "fence", "pole", "traffic light", "traffic sign",
        "vegetation", "terrain", "sky", "person", "rider", "car", "truck", "bus", "train",
        "motorcycle", "bicycle",
    ),
    palette=(
        (128, 64, 128), (244, 35, 232), (70, 70, 70), (102, 102, 156), (190, 153, 153),
        (153, 153, 153), (250, 170, 30), (220, 220, 0), (107, 142, 35), (152, 251, 152),
        (70, 130, 180), (220, 20, 60), (255, 0, 0), (0, 0, 142), (0, 0, 70), (0, 60, 100),
        (0, 80, 100), (0, 0, 230), (119, 11, 32),
    ),
    source_ids=(7, 8, 11, 12, 13, 17, 19, 20, 21, 22, 23, 24, 25, 26, 27, 28, 31, 32, 33),
)  # fmt: skip
"""Cityscapes train ids, 19 classes; `source_ids` are the official labelIds."""

BDD100K: Final = LabelSet(name="bdd100k", classes=CITYSCAPES.classes, palette=CITYSCAPES.palette)
"""BDD100K semantic segmentation: the Cityscapes classes, stored as train ids."""

CAMVID: Final = LabelSet(
    name="camvid",
    classes=(
        "Sky", "Building", "Pole", "Road", "Pavement", "Tree", "SignSymbol", "Fence", "Car",
        "Pedestrian", "Bicyclist",
    ),
    palette=(
        (128, 128, 128), (128, 0, 0), (192, 192, 128), (128, 64, 128), (60, 40, 222),
        (128, 128, 0), (192, 128, 128), (64, 64, 128), (64, 0, 128), (64, 64, 0), (0, 128, 192),
    ),
)  # fmt: skip
"""CamVid with the usual 11 classes in the order of the SegNet split."""

CAMVID_ORIGINAL: Final[Mapping[str, tuple[RGB, str | None]]] = {
    "Animal": ((64, 128, 64), "Pedestrian"),
    "Archway": ((192, 0, 128), "Building"),
    "Bicyclist": ((0, 128, 192), "Bicyclist"),
    "Bridge": ((0, 128, 64), "Building"),
    "Building": ((128, 0, 0), "Building"),
    "Car": ((64, 0, 128), "Car"),
    "CartLuggagePram": ((64, 0, 192), "Pedestrian"),
    "Child": ((192, 128, 64), "Pedestrian"),
    "Column_Pole": ((192, 192, 128), "Pole"),
    "Fence": ((64, 64, 128), "Fence"),
    "LaneMkgsDriv": ((128, 0, 192), "Road"),
    "LaneMkgsNonDriv": ((192, 0, 64), "Road"),
    "Misc_Text": ((128, 128, 64), "SignSymbol"),
    "MotorcycleScooter": ((192, 0, 192), "Bicyclist"),
    "OtherMoving": ((128, 64, 64), "Car"),
    "ParkingBlock": ((64, 192, 128), "Pavement"),
    "Pedestrian": ((64, 64, 0), "Pedestrian"),
    "Road": ((128, 64, 128), "Road"),
    "RoadShoulder": ((128, 128, 192), "Pavement"),
    "SUVPickupTruck": ((64, 128, 192), "Car"),
    "Sidewalk": ((0, 0, 192), "Pavement"),
    "SignSymbol": ((192, 128, 128), "SignSymbol"),
    "Sky": ((128, 128, 128), "Sky"),
    "TrafficCone": ((0, 0, 64), "Pole"),
    "TrafficLight": ((0, 64, 64), "SignSymbol"),
    "Train": ((192, 64, 128), "Car"),
    "Tree": ((128, 128, 0), "Tree"),
    "Truck_Bus": ((192, 128, 192), "Car"),
    "Tunnel": ((64, 0, 64), "Building"),
    "VegetationMisc": ((192, 192, 0), "Tree"),
    "Void": ((0, 0, 0), None),
    "Wall": ((64, 192, 0), "Building"),
}
"""CamVid's 32 original classes: colour in the label files, and which of the 11 each merges into."""

LABEL_SETS: Final[Mapping[str, LabelSet]] = {
    "bdd100k": BDD100K,
    "camvid": CAMVID,
    "cityscapes": CITYSCAPES,
}


def label_set(name: str) -> LabelSet:
    """The label set of that name.

    Raises:
        UnknownNameError: there is none; the message lists the known ones.
    """
    if name not in LABEL_SETS:
        raise UnknownNameError(unknown("label set", name, LABEL_SETS))
    return LABEL_SETS[name]
