"""The data sets known by name, and the way from a name or a TOML file to a `DatasetSpec`."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Final

from fasterseg.datasets.coding import ColourCoding, IdCoding
from fasterseg.datasets.files import Files
from fasterseg.datasets.layouts import CamvidOriginals, Listing, Patterns
from fasterseg.datasets.own import read_dataset
from fasterseg.datasets.rendered import streets
from fasterseg.datasets.spec import SPLITS, DatasetSpec, Split
from fasterseg.errors import UnknownNameError
from fasterseg.labels import BDD100K, CAMVID, CAMVID_ORIGINAL, CITYSCAPES
from fasterseg.registry import unknown
from fasterseg.types import Size

_LABELLED: Final[tuple[Split, ...]] = ("train", "val")


def _bdd100k(split: Split) -> Patterns:
    return Patterns(f"images/10k/{split}/*.jpg", f"labels/sem_seg/masks/{split}/*.png")


def _cityscapes(split: Split) -> Patterns:
    return Patterns(
        f"leftImg8bit/{split}/*/*_leftImg8bit.png", f"gtFine/{split}/*/*_gtFine_labelIds.png"
    )


_CAMVID_COLOURS: Final = ColourCoding(
    classes=tuple(
        tuple(colour for colour, merged in CAMVID_ORIGINAL.values() if merged == name)
        for name in CAMVID.classes
    ),
    void=frozenset(colour for colour, merged in CAMVID_ORIGINAL.values() if merged is None),
    # A few pixels of the hand-painted originals have colours that no list names.
    tolerant=True,
)

DATASETS: Final[Mapping[str, DatasetSpec]] = {
    "bdd100k": DatasetSpec(
        name="bdd100k",
        labels=BDD100K,
        native_size=Size(720, 1280),
        source=Files({split: _bdd100k(split) for split in _LABELLED}),
        coding=IdCoding.of(BDD100K, void=[255]),
    ),
    "camvid": DatasetSpec(
        name="camvid",
        labels=CAMVID,
        native_size=Size(360, 480),
        # The lists of the SegNet repository carry the absolute path of its Docker image, and its
        # void is 11.
        source=Files({split: Listing(f"{split}.txt", "/SegNet/CamVid/") for split in SPLITS}),
        coding=IdCoding.of(CAMVID, void=[11, 255]),
    ),
    "camvid-720": DatasetSpec(
        name="camvid-720",
        labels=CAMVID,
        native_size=Size(720, 960),
        source=Files({split: CamvidOriginals(f"{split}.txt") for split in SPLITS}),
        coding=_CAMVID_COLOURS,
    ),
    "cityscapes": DatasetSpec(
        name="cityscapes",
        labels=CITYSCAPES,
        native_size=Size(1024, 2048),
        source=Files({split: _cityscapes(split) for split in SPLITS}),
        coding=IdCoding.of(
            CITYSCAPES, void=(frozenset(range(34)) - frozenset(CITYSCAPES.source_ids)) | {255}
        ),
        # The label maps of the test split are blank: the server scores it.
        labelled=_LABELLED,
    ),
    "streets": streets(),
}


def dataset(name: str) -> DatasetSpec:
    """A data set by name, or by the `.toml` file that describes it.

    Args:
        name: a name in `DATASETS`, or a path that ends in `.toml`, relative to the working
            directory wherever it is written; paths inside that file are relative to the file.

    Raises:
        UnknownNameError: it is neither; the message lists the names.
        ConfigError: the file cannot be read, or does not describe a data set.
    """
    if name.lower().endswith(".toml"):
        return read_dataset(Path(name).expanduser())
    if name not in DATASETS:
        raise UnknownNameError(
            f"{unknown('dataset', name, DATASETS)} Or give a .toml file that describes your own "
            "(see the README)"
        )
    return DATASETS[name]
