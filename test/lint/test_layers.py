"""The layers hold, and the check of them sees what it should."""

import os
import subprocess
import sys

import pytest

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
sys.path.insert(0, os.path.join(ROOT, "tools"))

import check_layers  # noqa: E402


def test_every_include_of_the_tree_is_allowed():
    assert check_layers.check_tree(ROOT) == []


@pytest.fixture
def tree(tmp_path):
    """A function that writes files into a small tree with our layers.txt, and says what the check says."""
    subprocess.run(["git", "init", "-q", tmp_path], check=True)
    (tmp_path / "layers.txt").write_text(open(os.path.join(ROOT, "layers.txt"), encoding="utf-8").read())

    def check(files):
        for name, text in files.items():
            path = tmp_path / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
        return check_layers.check_tree(str(tmp_path))

    return check


REAL = {
    "src/base/units.hpp": "",
    "src/port/disk.hpp": "",
    "src/core/device.hpp": "",
    "src/services/copier.hpp": "",
    "src/targets/all.hpp": "",
    "src/targets/mirror/state.hpp": "",
    "src/targets/snapshot/state.hpp": "",
    "src/exports/nbd/codec.hpp": "",
    "src/ctl/wire.hpp": "",
    "src/engine/ring.hpp": "",
    "src/sim/world.hpp": "",
    "apps/udmd/main.hpp": "",
    "apps/udm/main.hpp": "",
    "test/support/waiting.hpp": "",
}


@pytest.mark.parametrize(
    "file, included",
    [
        ("src/port/io.cpp", "base/units.hpp"),
        ("src/targets/mirror/map.cpp", "services/copier.hpp"),
        ("src/targets/mirror/map.cpp", "targets/mirror/state.hpp"),
        ("src/targets/all.cpp", "targets/snapshot/state.hpp"),
        ("src/exports/nbd/session.cpp", "core/device.hpp"),
        ("src/engine/ring.cpp", "port/disk.hpp"),
        ("src/sim/world.cpp", "targets/all.hpp"),
        ("apps/udmd/main.cpp", "engine/ring.hpp"),
        ("apps/udmd/main.cpp", "apps/udmd/main.hpp"),
        ("test/unit/x_test.cpp", "apps/udm/main.hpp"),
        ("test/unit/x_test.cpp", "test/support/waiting.hpp"),
    ],
)
def test_what_goes_down_is_allowed(tree, file, included):
    assert tree({**REAL, file: f'#include "{included}"\n'}) == []


@pytest.mark.parametrize(
    "file, included, part_of_rule",
    [
        ("src/base/x.cpp", "port/disk.hpp", "layer port"),
        ("src/core/x.cpp", "targets/all.hpp", "layer targets"),
        ("src/targets/mirror/x.cpp", "targets/snapshot/state.hpp", "isolate targets"),
        ("src/targets/mirror/x.cpp", "targets/all.hpp", "isolate targets"),
        ("src/exports/nbd/x.cpp", "targets/all.hpp", "hide targets"),
        ("src/exports/nbd/x.cpp", "services/copier.hpp", "hide targets"),
        ("src/exports/nbd/x.cpp", "ctl/wire.hpp", "layer exports"),
        ("src/ctl/x.cpp", "exports/nbd/codec.hpp", "layer exports"),
        ("src/core/x.cpp", "engine/ring.hpp", "beside engine"),
        ("src/targets/mirror/x.cpp", "sim/world.hpp", "beside sim"),
        ("src/engine/x.cpp", "core/device.hpp", "beside engine"),
        ("src/engine/x.cpp", "sim/world.hpp", "beside engine"),
        ("src/sim/x.cpp", "engine/ring.hpp", "beside sim"),
        ("src/ctl/x.cpp", "apps/udmd/main.hpp", "apps/"),
        ("apps/udm/x.cpp", "apps/udmd/main.hpp", "another"),
        ("apps/udm/x.cpp", "test/support/waiting.hpp", "only test/"),
        ("src/elsewhere/x.cpp", "base/units.hpp", "no layer with elsewhere"),
    ],
)
def test_what_goes_up_or_across_is_named_with_its_line_and_rule(tree, file, included, part_of_rule):
    (complaint,) = tree({**REAL, file: f'// comment\n\n#include "{included}"\n'})
    assert complaint.startswith(f"{file}:3: ")
    assert f'"{included}"' in complaint
    assert part_of_rule in complaint


def test_a_relative_include_is_refused(tree):
    (complaint,) = tree({**REAL, "src/core/x.cpp": '#include "device.hpp"\n'})
    assert "write the path in full" in complaint


def test_reserved_system_headers_stay_where_they_belong(tree):
    assert tree({**REAL, "src/engine/x.cpp": "#include <liburing.h>\n", "src/ctl/x.cpp": "#include <nlohmann/json.hpp>\n"}) == []
    complaints = tree({"src/core/x.cpp": "#include <liburing.h>\n#include <nlohmann/json.hpp>\n"})
    assert len(complaints) == 2 and all("reserve" in c for c in complaints)


def test_an_include_in_a_comment_does_not_count(tree):
    assert tree({**REAL, "src/base/x.cpp": '// #include "port/disk.hpp"\n/*\n#include "port/disk.hpp"\n*/\n'}) == []


def test_a_line_of_the_rules_that_is_not_understood_is_an_error():
    with pytest.raises(check_layers.BadRules, match="layers.txt:1"):
        check_layers.Rules("layers base port\n")
