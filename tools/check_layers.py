#!/usr/bin/python3
"""Checks every #include of src/, apps/ and test/ against layers.txt.

    check_layers.py [--root FOLDER]

Prints `file:line: what: the rule that says so` for each include that is not allowed; exit status 1 if there is one.
The language of layers.txt is explained at its top.
"""

import argparse
import os
import re
import sys

from cpp_text import ROOT, line_of, read, tracked_files, without_comments_and_literals

INCLUDE = re.compile(r'^[ \t]*#[ \t]*include[ \t]*(?:"([^"\n]+)"|<([^>\n]+)>)', re.MULTILINE)


class BadRules(Exception):
    pass


class Rules:
    """layers.txt, read. `folders` are the top folders below src/ (and apps, test)."""

    def __init__(self, text):
        self.level = {}  # folder -> (index of its layer, layer's name, line of the rule)
        self.beside = {}  # folder -> (set of folders it may see, rule)
        self.isolated = {}  # folder -> rule: its sub-folders do not see each other
        self.hidden = []  # (hidden folders, from folders, rule)
        self.reserved = []  # (headers, folders, rule)
        layers = 0
        for number, line in enumerate(text.splitlines(), 1):
            words = line.split("#")[0].split()
            if not words:
                continue
            rule = f"layers.txt:{number}: {' '.join(words)}"
            verb, rest = words[0], words[1:]
            if verb == "layer" and len(rest) >= 2 and rest[0].endswith(":"):
                for folder in rest[1:]:
                    self.level[folder] = (layers, rest[0][:-1], rule)
                layers += 1
            elif verb == "beside" and rest[1:3] == ["may", "see"] and rest[0].endswith(":"):
                self.beside[rest[0][:-1]] = (set(rest[3:]), rule)
            elif verb == "isolate" and rest:
                for folder in rest:
                    self.isolated[folder] = rule
            elif verb == "hide" and "from" in rest:
                at = rest.index("from")
                self.hidden.append((rest[:at], rest[at + 1 :], rule))
            elif verb == "reserve" and "for" in rest:
                at = rest.index("for")
                self.reserved.append((rest[:at], rest[at + 1 :], rule))
            else:
                raise BadRules(f"layers.txt:{number}: not understood: {line.strip()}")

    def top(self, path):
        """The folder of the rules that has the file, given relative to src/ (or starting with apps/ or test/)."""
        return path.split("/")[0]

    def check(self, path, target):
        """None, or the rule that forbids `path` to include `target`; both as in layers.txt."""
        here, there = self.top(path), self.top(target)
        if here == "test":
            return None
        if there == "test":
            return "only test/ includes what is in test/"
        for hidden, seekers, rule in self.hidden:
            if any(within(path, f) for f in seekers) and any(within(target, f) for f in hidden):
                return rule
        if here == "apps":
            if there == "apps" and path.split("/")[1] != target.split("/")[1]:
                return "a program does not include another's files"
            return None
        if there == "apps":
            return "nothing below apps/ includes what is in it"
        if here == there:
            if here in self.isolated and len(path.split("/")) > 2 and len(target.split("/")) > 2:
                if path.split("/")[1] != target.split("/")[1]:
                    return self.isolated[here]
            if here in self.isolated and len(path.split("/")) > 2 and len(target.split("/")) == 2:
                return self.isolated[here] + " (the common list knows its members, not the other way round)"
            return None
        if here in self.beside:
            allowed, rule = self.beside[here]
            return None if there in allowed else rule
        if there in self.beside:
            return self.beside[there][1] + " (only apps/ and test/ see it)"
        if here not in self.level:
            return f"layers.txt has no layer with {here}"
        if there not in self.level:
            return f"layers.txt has no layer with {there}"
        if self.level[there][0] < self.level[here][0]:
            return None
        return self.level[here][2] if self.level[there][0] == self.level[here][0] else self.level[there][2] + f" (above {here})"

    def check_system(self, path, header):
        for headers, folders, rule in self.reserved:
            names = [h.strip("<>") for h in headers]
            if any(header == name or (name.endswith("/") and header.startswith(name)) for name in names):
                if not any(within(path, f) for f in folders):
                    return rule
        return None


def within(path, folder):
    return path == folder or path.startswith(folder + "/")


def check_tree(root):
    """A list of complaints about the tree at `root`."""
    rules = Rules(read(root, "layers.txt"))
    complaints = []
    for file in tracked_files(root):
        if not file.endswith((".hpp", ".cpp")) or file.split("/")[0] not in ("src", "apps", "test"):
            continue
        here = file[4:] if file.startswith("src/") else file
        text = read(root, file)
        code = without_comments_and_literals(text)
        for match in INCLUDE.finditer(code):
            where = f"{file}:{line_of(code, match.start())}"
            quoted, system = match.groups()
            if system:
                rule = rules.check_system(here, system)
                if rule:
                    complaints.append(f"{where}: <{system}> may not be included here: {rule}")
                continue
            if os.path.isfile(os.path.join(root, "src", quoted)):
                target = quoted
            elif quoted.startswith(("apps/", "test/")) and os.path.isfile(os.path.join(root, quoted)):
                target = quoted
            else:
                complaints.append(f'{where}: "{quoted}" is not found from src/ (or, in apps/ and test/, from the top): write the path in full')
                continue
            rule = rules.check(here, target)
            if rule:
                complaints.append(f'{where}: {here} may not include "{target}": {rule}')
    return complaints


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--root", default=ROOT)
    arguments = parser.parse_args()
    try:
        complaints = check_tree(arguments.root)
    except BadRules as bad:
        print(bad)
        return 2
    for complaint in complaints:
        print(complaint)
    return 1 if complaints else 0


if __name__ == "__main__":
    sys.exit(main())
