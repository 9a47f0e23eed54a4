"""C++ source as the checks read it: without comments and literals, with line numbers kept."""

import os
import subprocess

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))


def tracked_files(root=ROOT):
    """Files of the tree that git knows or would add, relative to root, in order. Without git (a tree from an archive, or one
    of another user's): all but what is hidden or below build/."""
    try:
        listed = subprocess.run(["git", "-C", root, "ls-files", "-co", "--exclude-standard", "-z"], check=True,
                                capture_output=True, text=True).stdout.split("\0")
    except (OSError, subprocess.CalledProcessError):
        listed = []
        for where, folders, files in os.walk(root):
            folders[:] = [f for f in folders if not f.startswith(".") and f not in ("build", "__pycache__")]
            listed += [os.path.relpath(os.path.join(where, f), root) for f in files]
    return sorted(f for f in set(listed) if f and os.path.isfile(os.path.join(root, f)))


def read(root, path):
    with open(os.path.join(root, path), encoding="utf-8", errors="replace") as file:
        return file.read()


def without_comments_and_literals(text):
    """The same text with the inside of comments, strings and characters blanked; lines stay where they are.
    Include directives keep their names."""
    out = []
    i, n = 0, len(text)

    def blank(piece):
        return "".join(c if c == "\n" else " " for c in piece)

    line_start = True
    while i < n:
        c = text[i]
        if line_start and c == "#":
            end = text.find("\n", i)
            end = n if end < 0 else end
            if text[i:end].lstrip("# \t").startswith("include"):
                out.append(text[i:end].split("//")[0])
                out.append(blank(text[i + len(text[i:end].split("//")[0]) : end]))
                i = end
                continue
        if c == "\n":
            line_start = True
            out.append(c)
            i += 1
            continue
        if not c.isspace():
            line_start = False
        if text.startswith("//", i):
            end = text.find("\n", i)
            end = n if end < 0 else end
            out.append(blank(text[i:end]))
            i = end
        elif text.startswith("/*", i):
            end = text.find("*/", i + 2)
            end = n if end < 0 else end + 2
            out.append(blank(text[i:end]))
            i = end
        elif text.startswith('R"', i) and not (i and (text[i - 1].isalnum() or text[i - 1] == "_")):
            open_paren = text.find("(", i)
            closing = ")" + text[i + 2 : open_paren] + '"'
            end = text.find(closing, open_paren)
            end = n if end < 0 else end + len(closing)
            out.append('""' + blank(text[i + 2 : end]))
            i = end
        elif c == '"' or (c == "'" and not (i and (text[i - 1].isalnum() or text[i - 1] == "_"))):
            end = i + 1
            while end < n and text[end] != c and text[end] != "\n":
                end += 2 if text[end] == "\\" else 1
            end = min(end + 1, n)
            out.append(c + blank(text[i + 1 : end - 1]) + c if end - i >= 2 else text[i:end])
            i = end
        else:
            out.append(c)
            i += 1
    return "".join(out)


def line_of(text, offset):
    return text.count("\n", 0, offset) + 1


def closing(text, start, open_char, close_char):
    """Offset of the bracket that closes the one at `start`, or -1."""
    depth = 0
    for i in range(start, len(text)):
        if text[i] == open_char:
            depth += 1
        elif text[i] == close_char:
            depth -= 1
            if depth == 0:
                return i
    return -1
