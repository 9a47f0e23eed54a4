"""Runs nbdload and reads what it says."""

import json
import subprocess

from .servers import udmtest


class LoadFailed(Exception):
    pass


def load(server, *options, timeout=900):
    """One run against a server of servers.py; the JSON object of nbdload."""
    words = [udmtest.program("nbdload"), "--json", "--pid", str(server.pid), *[str(o) for o in options], server.uri]
    done = subprocess.run(words, capture_output=True, text=True, timeout=timeout)
    if done.returncode != 0:
        raise LoadFailed(f"{server.name}: {done.stderr.strip()}")
    return json.loads(done.stdout)


def interleaved(makers, runs, measure):
    """A B C A B C A B C: name -> list of results. `makers`: name -> what measure(name, maker) takes. A server that fails is
    reported and left out of the rest."""
    results = {name: [] for name in makers}
    broken = {}
    for _ in range(runs):
        for name, maker in makers.items():
            if name in broken:
                continue
            try:
                results[name].append(measure(name, maker))
            except (LoadFailed, RuntimeError, AssertionError, subprocess.TimeoutExpired, udmtest.RpcError) as trouble:
                broken[name] = str(trouble)
                print(f"bench: {name}: {trouble}")
    return {name: r for name, r in results.items() if name not in broken}, broken
