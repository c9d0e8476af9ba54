from __future__ import annotations

import numpy as np

from fasterseg.datasets.coding import ColourCoding, IdCoding
from fasterseg.labels import CAMVID, CAMVID_ORIGINAL, CITYSCAPES

COLOURS = ColourCoding(
    classes=(((10, 20, 30), (1, 2, 3)), ((255, 255, 255),)), void=frozenset({(0, 0, 0)})
)


def test_several_ids_make_one_class() -> None:
    coding = IdCoding(((7, 9), (0,)), frozenset({255}))
    source = np.array([[7, 9, 0], [255, 3, 3]], np.uint8)
    assert coding.decode(source).tolist() == [[0, 0, 1], [255, 255, 255]]
    assert coding.unlisted(source) == {"3": 2}
    assert coding.listed == "ids 0, 7, 9; ignored 255"


def test_a_label_set_gives_one_id_per_class() -> None:
    coding = IdCoding.of(CITYSCAPES, void=[0])
    source = np.arange(34, dtype=np.uint8)[None]
    assert coding.decode(source)[0, [7, 33, 0]].tolist() == [0, 18, 255]
    assert "0" not in coding.unlisted(source)
    assert "1" in coding.unlisted(source)


def test_several_colours_make_one_class_and_red_is_not_blue() -> None:
    source = np.array([[[30, 20, 10], [3, 2, 1], [255, 255, 255], [0, 0, 0]]], np.uint8)
    assert COLOURS.decode(source).tolist() == [[0, 0, 1, 255]]
    assert COLOURS.unlisted(source) == {}
    assert COLOURS.unlisted(source[..., ::-1]) == {"(30, 20, 10)": 1, "(3, 2, 1)": 1}


def test_colours_beside_a_known_one_are_no_class() -> None:
    source = np.array([[[30, 20, 11], [30, 20, 9], [254, 255, 255]]], np.uint8)
    assert COLOURS.decode(source).tolist() == [[255, 255, 255]]
    assert COLOURS.unlisted(source).keys() == {"(9, 20, 30)", "(11, 20, 30)", "(255, 255, 254)"}


def test_colours_beyond_all_known_ones_are_no_class() -> None:
    coding = ColourCoding((((1, 2, 3),),), frozenset())
    assert coding.decode(np.full((1, 1, 3), 255, np.uint8)).tolist() == [[255]]


def test_every_original_class_of_camvid_merges_into_one_of_the_eleven_or_void() -> None:
    assert len(CAMVID_ORIGINAL) == 32
    assert len({colour for colour, _ in CAMVID_ORIGINAL.values()}) == 32
    assert {merged for _, merged in CAMVID_ORIGINAL.values()} == {*CAMVID.classes, None}
    assert [name for name, (_, merged) in CAMVID_ORIGINAL.items() if merged is None] == ["Void"]
