"""What docs say of tests is so: the names in them are tests of ours."""

import glob
import os
import re

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))


def read(path):
    with open(os.path.join(ROOT, path), encoding="utf-8") as file:
        return file.read()


def all_tests():
    """Suite.Name of all C++ tests."""
    names = set()
    for path in glob.glob(os.path.join(ROOT, "test/*/*_test.cpp")):
        names.update(f"{suite}.{name}" for suite, name in re.findall(r"^TEST(?:_F|_P)?\((\w+), (\w+)\)", read(path), re.MULTILINE))
    return names


def named_in(page):
    """`Suite.Name`, and `Name` after it in the same row."""
    for row in read(page).splitlines():
        suite = None
        for before, name in re.findall(r"`(?:(\w+)\.)?(\w+)`", row):
            suite = before or suite
            if before or (suite and "_" in name):
                yield f"{suite}.{name}"


def test_every_defect_of_the_mirror_has_a_test_that_is_there():
    page = "docs/targets/mirror-defects.md"
    known, named = all_tests(), set(named_in(page))
    assert len(named) > 60
    assert not named - known
    rows = re.findall(r"^\| M(\d+) \|.*\| (.*) \|$", read(page), re.MULTILINE)
    assert [int(number) for number, _ in rows] == list(range(1, 43))
    assert all(f"M{number}_" in told or number == "42" for number, told in rows)
    # None is missing in the page either.
    assert not {name for name in known if re.match(r"(Mirror|Log)Defects\w*\.M(?!30)", name)} - named
