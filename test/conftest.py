"""Fixtures of all Python tests. The helpers themselves are in test/support."""

import os
import shutil
import sys
import tempfile

import pytest

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "support"))

import udmtest  # noqa: E402


@pytest.fixture
def folder():
    """A new folder with a short path (sockets allow 107 bytes), removed afterwards."""
    path = tempfile.mkdtemp(prefix="udm-")
    yield path
    shutil.rmtree(path, ignore_errors=True)


@pytest.fixture
def daemon(folder):
    """A running udmd of its own, stopped afterwards; the test fails if it ended badly."""
    with udmtest.Daemon(folder) as running:
        yield running
