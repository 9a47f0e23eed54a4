#!/usr/bin/python3
"""House rules that no compiler checks (docs/style.md says why each is there).

    tidy.py [--root FOLDER]

Prints `file:line: rule: what` for each breach; exit status 1 if there is one.
"""

import argparse
import re
import sys

from cpp_text import ROOT, closing, line_of, read, tracked_files, without_comments_and_literals

LINES_MAX = 800

# Where a rule does not hold, and why. Keep this short.
EXCEPTIONS = {
    ("tools/tidy.py", "marker"): "names what it looks for",
    ("test/lint/test_tidy.py", "marker"): "names what it looks for",
    ("test/lint/test_tidy.py", "sleep"): "names what it looks for",
    ("test/lint/test_tidy.py", "machine-path"): "names what it looks for",
    ("docs/style.md", "marker"): "names what it forbids",
}

MARKER = re.compile(r"\b(TODO|FIXME|XXX)\b")
MACHINE_PATH = re.compile(r"(?<![\w.$}/-])/(work|root)/[\w.]")
TEXT_FILES = (".hpp", ".cpp", ".py", ".sh", ".md", ".txt", ".json", ".cmake")

# Threads, sharing and everything that makes two runs differ enter through port/ and are implemented in engine/ (and used by the
# control plane and the programs). These words are for nobody else in src/.
THREADED_FOLDERS = ("src/engine/", "src/ctl/", "apps/", "test/")
THREAD_WORDS = re.compile(
    r"\bstd::(mutex|recursive_mutex|shared_mutex|timed_mutex|atomic\w*|thread|jthread|condition_variable\w*|shared_ptr|weak_ptr|"
    r"make_shared|future|promise|async|lock_guard|unique_lock|scoped_lock|call_once|latch|barrier|counting_semaphore)\b"
    r"|#\s*include\s*<(mutex|shared_mutex|atomic|thread|condition_variable|future|semaphore|latch|barrier|pthread\.h)>"
    r"|\bpthread_\w+"
)
CHANCE_WORDS = re.compile(
    r"\b(steady_clock|system_clock|high_resolution_clock|clock_gettime|gettimeofday|random_device|mt19937\w*|default_random_engine|"
    r"srand|random_shuffle|getrandom|arc4random\w*)\b|(?<![\w.>:])(std::)?(rand\s*\(\s*\)|time\s*\(\s*(nullptr|NULL|0|&\w+)\s*\))"
    r"|#\s*include\s*<(chrono|random|ctime|time\.h)>"
)
POINTER_KEY = re.compile(r"\bstd::(unordered_)?(map|set|multimap|multiset)<\s*(const\s+)?[\w:]+\s*(const\s*)?\*")
UNORDERED = re.compile(r"\bstd::unordered_\w+<[^;{}()]*>\s+(\w+)\s*[;{=]")
DYNAMIC_CAST = re.compile(r"\bdynamic_cast\b")

CO_AWAIT = re.compile(r"\bco_await\b")
COROUTINE_WORD = re.compile(r"\bco_(await|return|yield)\b")
LAMBDA = re.compile(r"(?<![\w\])])\[[^\[\]]*\]\s*(?=[({]|mutable\b|noexcept\b|->)")

TEST_HEAD = re.compile(r"^[ \t]*(TEST|TEST_F|TEST_P|TYPED_TEST|TYPED_TEST_P)\s*\(", re.MULTILINE)
SLEEP = re.compile(r"\b(sleep_for|sleep_until|usleep|nanosleep|clock_nanosleep)\b|(?<![\w.>:])(::)?sleep\s*\(")
PYTHON_SLEEP = re.compile(r"\btime\.sleep\s*\(|^\s*from time import .*\bsleep\b", re.MULTILINE)
# Where waiting for a condition is implemented, once for each language.
MAY_SLEEP = ("test/support/",)


def check_text(file, text):
    """Complaints about one file as (line, rule, what)."""
    found = []
    lines = text.count("\n") + (not text.endswith("\n") and text != "")
    if lines > LINES_MAX:
        found.append((lines, "length", f"{lines} lines; {LINES_MAX} are the limit: one subject a file"))
    for match in MARKER.finditer(text):
        found.append((line_of(text, match.start()), "marker", f"{match.group()}: do it, or open an issue"))
    for match in MACHINE_PATH.finditer(text):
        found.append((line_of(text, match.start()), "machine-path", f"{match.group()}…: a path of one machine"))
    if file.endswith(".py") and file.startswith("test/") and not file.startswith(MAY_SLEEP):
        for match in PYTHON_SLEEP.finditer(text):
            found.append((line_of(text, match.start()), "sleep", "a test waits for a condition (test/support), not for time"))
    if file.endswith((".hpp", ".cpp")):
        found += check_cpp(file, text)
    return [f for f in found if (file, f[1]) not in EXCEPTIONS]


def check_cpp(file, text):
    found = []
    code = without_comments_and_literals(text)

    def every(pattern, rule, what):
        for match in pattern.finditer(code):
            found.append((line_of(code, match.start()), rule, f"{match.group().strip()}: {what}"))

    if file.endswith(".hpp"):
        if not re.search(r"^#pragma once$", code, re.MULTILINE):
            found.append((1, "pragma-once", "a header starts with #pragma once"))
        every(re.compile(r"\busing\s+namespace\b"), "using-namespace", "not in a header")
    if file.startswith("src/"):
        if not file.startswith(THREADED_FOLDERS):
            every(THREAD_WORDS, "threads", "only engine/, ctl/ and apps/ know threads; the rest is owned by one reactor")
            every(CHANCE_WORDS, "chance", "time and chance come from Env (Reactor::now, Prng)")
            every(POINTER_KEY, "pointer-order", "an order by address differs from run to run")
            for name in set(UNORDERED.findall(code)):
                every(re.compile(rf":\s*{name}\s*\)|\b{name}\s*\.\s*c?begin\s*\("), "unordered-walk",
                      "walking an unordered container has no stable order")
            every(DYNAMIC_CAST, "dynamic-cast", "ask through an interface")
        every(STATEMENT_EXPRESSION_IN_CALL, "statement-expression", "GCC 12 breaks on these in coroutines")
    found += check_coroutines(code)
    if file.startswith("test/"):
        found += check_tests(file, code)
    return found


# `({` that is no braced argument: it holds a statement.
STATEMENT_EXPRESSION_IN_CALL = re.compile(r"\(\s*\{[^{}]*;[^{}]*\}\s*\)")


def check_coroutines(code):
    """The rules for GCC 12 that src/port/job.hpp explains."""
    found = []
    for match in CO_AWAIT.finditer(code):
        rest = code[match.end() : code.find(";", match.end())]
        line = code[code.rfind("\n", 0, match.start()) + 1 : match.start()]
        if line.lstrip().startswith("#"):
            continue
        if "{" in rest or "[" in rest:
            found.append((line_of(code, match.start()), "co-await",
                          "no { and no [ after co_await: give what is awaited a name first (GCC 12 destroys temporaries twice)"))
    for match in LAMBDA.finditer(code):
        brace = code.find("{", match.end())
        stop = code.find(";", match.end())
        if brace < 0 or (0 <= stop < brace):
            continue
        end = closing(code, brace, "{", "}")
        if end > 0 and COROUTINE_WORD.search(code, brace, end):
            found.append((line_of(code, match.start()), "lambda-coroutine", "its captures may be gone when it goes on: write a function"))
    return found


def check_tests(file, code):
    found = []
    for match in TEST_HEAD.finditer(code):
        end_of_name = closing(code, match.end() - 1, "(", ")")
        brace = code.find("{", end_of_name)
        end = closing(code, brace, "{", "}") if brace >= 0 else -1
        if end > 0 and not code[brace + 1 : end].strip():
            found.append((line_of(code, match.start()), "empty-test", "a test asserts something"))
    if not file.startswith(MAY_SLEEP):
        for match in SLEEP.finditer(code):
            found.append((line_of(code, match.start()), "sleep", f"{match.group().strip()}: a test waits for a condition, not for time"))
    return found


def check_tree(root):
    complaints = []
    for file in tracked_files(root):
        if file.startswith(("test/conformance/kernel-", "test/conformance/recorded/")) or not (
            file.endswith(TEXT_FILES) or file == "dev" or file.startswith(".ci/")
        ):
            continue
        for line, rule, what in check_text(file, read(root, file)):
            complaints.append(f"{file}:{line}: {rule}: {what}")
    return complaints


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--root", default=ROOT)
    complaints = check_tree(parser.parse_args().root)
    for complaint in complaints:
        print(complaint)
    return 1 if complaints else 0


if __name__ == "__main__":
    sys.exit(main())
