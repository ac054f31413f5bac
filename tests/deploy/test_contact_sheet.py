"""The demo's contact sheet."""

from PIL import Image

from deploy.contact_sheet import GAP, TILE, contact_sheet


def plain(colour: str, size: tuple[int, int] = (64, 64)) -> Image.Image:
    return Image.new("RGB", size, colour)


def test_there_is_a_column_for_the_photo_and_one_for_each_prompt() -> None:
    columns = {"a [V] face": [plain("red"), plain("lime")], "a mosaic of a [V] face": [plain("blue"), plain("black")]}
    sheet = contact_sheet(plain("yellow", (640, 480)), columns)
    assert sheet.width == GAP + 3 * (TILE + GAP)
    colours = {colour for _, colour in sheet.getcolors(sheet.width * sheet.height) or []}
    assert {(255, 255, 0), (255, 0, 0), (0, 255, 0), (0, 0, 255), (0, 0, 0)} <= colours


def test_captions_stay_above_the_pictures_and_long_ones_are_cut() -> None:
    long = contact_sheet(plain("white"), {"a very long prompt " * 40: [plain("white")]})
    short = contact_sheet(plain("white"), {"a [V] face": [plain("white")]})
    assert long.size == short.size
    assert long.tobytes() != short.tobytes()


def test_a_photo_on_its_side_is_turned_upright() -> None:
    photo = plain("white")
    photo.paste("red", (0, 0, 64, 8))
    photo.getexif()[0x0112] = 3  # upside down
    sheet = contact_sheet(photo, {"a [V] face": [plain("white")]})
    middle = [sheet.getpixel((GAP + TILE // 2, y)) for y in range(sheet.height - GAP - TILE, sheet.height)]
    red = [y for y, colour in enumerate(middle) if colour == (255, 0, 0)]
    assert red
    assert min(red) > TILE // 2
