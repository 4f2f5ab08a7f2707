"""docs/architecture.md is true: every module is named once, with what it says of itself."""

from __future__ import annotations

import re

import pytest

from tests.support import house


def test_every_room_is_described() -> None:
    assert {*house.rooms()} == {*house.ROOMS}


def test_the_page_names_every_module_once_with_its_own_words() -> None:
    assert house.written() == house.described(), "run `python -m tests.support.house`"


def test_every_module_says_what_it_is_in_one_line() -> None:
    for files in house.rooms().values():
        for file in files:
            assert house.first_line(file), file
            assert house.first_line(file).endswith("."), f"{file}: the first line is no sentence"


@pytest.mark.untraced
def test_the_text_names_classes_and_functions_that_exist() -> None:
    """In backquotes, and written as a class's name, a method's or a function's."""
    text = house.PAGE.read_text(encoding="utf-8").partition(house.BEGIN)[0]
    source = "\n".join(
        file.read_text(encoding="utf-8") for files in house.rooms().values() for file in files
    )
    defined = re.findall(r"\b(?:class|def) (\w+)|^\s+(\w+) = ", source, re.MULTILINE)
    known = {name for names in defined for name in names}
    for name in re.findall(r"`([A-Z][A-Za-z0-9]*[a-z][A-Za-z0-9]*(?:\.\w+)*|\w+\(\))`", text):
        for part in name.removesuffix("()").split("."):
            assert part in known, f"{name}: there is no {part}"
