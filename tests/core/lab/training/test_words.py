"""Words for what is to be seen in a picture."""

import pytest

from core.hyperdreambooth.faces.photo_words import mirrored
from core.hyperdreambooth.styles.styles import PHOTO, STYLES
from core.lab.training.words import visible_in, words_of


def test_words_come_from_all_columns_and_once():
    columns = {"attributes": ["man", "smiling", "mouth open"], "words": ["mouth open", "looking left"]}
    assert words_of(columns) == ("man", "smiling", "mouth open", "looking left")
    assert words_of({"attributes": ["woman"]}) == ("woman",)


@pytest.mark.parametrize(
    ("yaw", "said"),
    [
        (-9.0, ("looking slightly left",)),
        (9.0, ("looking slightly right",)),
        (3.0, ()),
        (-20.0, ()),
    ],
)
def test_small_turns_are_named_by_their_degrees(yaw, said):
    assert words_of({"attributes": [], "words": [], "yaw": yaw, "mouth_open": 0.06}) == said


def test_a_turn_that_is_named_is_not_named_slight():
    assert words_of({"words": ["looking left"], "yaw": -14.9}) == ("looking left",)


def test_who_does_not_smile_is_serious_only_where_smiles_are_labelled():
    closed = {"attributes": [], "mouth_open": 0.01}
    assert words_of({**closed, "source": "celeba"}) == ("mouth closed", "serious")
    assert words_of({**closed, "source": "omi"}) == ("mouth closed",)
    assert words_of({**closed, "source": "lfw", "attributes": ["smiling"]}) == ("smiling", "mouth closed")


def test_the_mirror_swaps_left_and_right():
    words = ("man", "looking left", "lit from the right", "looking slightly right")
    assert mirrored(words) == ("man", "looking right", "lit from the left", "looking slightly left")
    assert mirrored(mirrored(words)) == words


def test_what_a_style_paints_over_is_not_said():
    words = ("man", "beard", "blond hair", "on a blue background", "lipstick", "dark")
    assert visible_in(words, PHOTO) == words
    assert visible_in(words, STYLES["oil painting"]) == (
        "man",
        "beard",
        "blond hair",
        "on a blue background",
        "lipstick",
    )
    assert visible_in(words, STYLES["black and white photograph"]) == ("man", "beard", "blond hair")
    assert visible_in(words, STYLES["blueprint"]) == ("man", "beard")
