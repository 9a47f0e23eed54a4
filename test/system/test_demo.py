"""The demos keep what they promise, also where nothing can be mounted."""

import os
import subprocess

import pytest

from udmtest import BIN, ROOT


def run(script, **environment):
    if not os.path.samefile(BIN, os.path.join(ROOT, "build/release/bin")):
        pytest.skip("the demo shows the release build")
    done = subprocess.run([os.path.join(ROOT, "tools", script)], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                          stderr=subprocess.STDOUT, text=True, timeout=280, env={**os.environ, **environment})
    assert done.returncode == 0, done.stdout
    assert "Everything was as promised" in done.stdout
    return done.stdout


@pytest.mark.parametrize("mount", ["yes", "no"])
def test_the_demo_ends_by_itself_and_all_is_as_promised(mount):
    run("demo.sh", UDM_DEMO_MOUNT=mount)


def test_the_mirrors_demo_loses_a_leg_and_gets_it_back():
    said = run("demo_mirror.sh")
    assert "away: " in said and ">" in said and "both legs are equal, byte for byte" in said
    assert said.count("\N{CHECK MARK}") == 5
