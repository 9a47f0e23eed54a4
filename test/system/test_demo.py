"""The demo keeps what it promises, also where nothing can be mounted."""

import os
import subprocess

import pytest

from udmtest import BIN, ROOT


@pytest.mark.parametrize("mount", ["yes", "no"])
def test_the_demo_ends_by_itself_and_all_is_as_promised(mount):
    if not os.path.samefile(BIN, os.path.join(ROOT, "build/release/bin")):
        pytest.skip("the demo shows the release build")
    done = subprocess.run([os.path.join(ROOT, "tools/demo.sh")], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                          stderr=subprocess.STDOUT, text=True, timeout=280, env={**os.environ, "UDM_DEMO_MOUNT": mount})
    assert done.returncode == 0, done.stdout
    assert "Everything was as promised" in done.stdout
