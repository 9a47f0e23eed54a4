#!/usr/bin/python3
"""Counts tests in folders of results: `N passed, N failed[, N skipped]`.

A folder holds what one group of `./dev test` left: ctest.xml (one test case per test program), PRESET/NAME.xml
(what the GoogleTest program NAME itself wrote) and pytest.xml. A program that wrote its own file counts as the tests
in it, any other as one. A program that ended badly though each of its tests passed (a sanitizer's report at exit,
a crash after the last test) counts one failure more.

    count_results.py [--any-failed] [--plus-failed N] FOLDER...
"""

import argparse
import os
import sys
import xml.etree.ElementTree as ElementTree


def cases(path):
    """(passed, failed, skipped) of a file in the JUnit or GoogleTest form."""
    passed = failed = skipped = 0
    for case in ElementTree.parse(path).getroot().iter("testcase"):
        status, result = case.get("status"), case.get("result")
        if case.find("failure") is not None or case.find("error") is not None or status == "fail":
            failed += 1
        elif case.find("skipped") is not None or result in ("skipped", "suppressed") or status in ("notrun", "disabled"):
            skipped += 1
        else:
            passed += 1
    return passed, failed, skipped


def add(*counts):
    return tuple(map(sum, zip(*counts)))


def folder(path):
    total = (0, 0, 0)
    own = {}
    for where, _, files in os.walk(path):
        for name in files:
            if name.endswith(".xml") and where != path.rstrip("/"):
                try:
                    own[name[:-4]] = cases(os.path.join(where, name))
                except ElementTree.ParseError:  # the program died while it wrote
                    pass
    ctest = os.path.join(path, "ctest.xml")
    if os.path.exists(ctest):
        for case in ElementTree.parse(ctest).getroot().iter("testcase"):
            bad = case.find("failure") is not None or case.get("status") == "fail"
            skipped = case.find("skipped") is not None or case.get("status") in ("notrun", "disabled")
            if case.get("name") in own:
                counts = own[case.get("name")]
                if bad and counts[1] == 0:
                    counts = add(counts, (0, 1, 0))
            else:
                counts = (0, 1, 0) if bad else (0, 0, 1) if skipped else (1, 0, 0)
            total = add(total, counts)
    pytest = os.path.join(path, "pytest.xml")
    if os.path.exists(pytest):
        total = add(total, cases(pytest))
    return total


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--any-failed", action="store_true", help="exit status 0 if a test failed, else 1; prints nothing")
    parser.add_argument("--plus-failed", type=int, default=0, help="failures found elsewhere")
    parser.add_argument("folders", nargs="*")
    arguments = parser.parse_args()
    passed, failed, skipped = add((0, arguments.plus_failed, 0), *(folder(f) for f in arguments.folders if os.path.isdir(f)))
    if arguments.any_failed:
        return 0 if failed else 1
    print(f"{passed} passed, {failed} failed" + (f", {skipped} skipped" if skipped else ""))
    return 0


if __name__ == "__main__":
    sys.exit(main())
