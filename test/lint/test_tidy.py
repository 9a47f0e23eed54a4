"""The house rules hold, and the check of them sees what it should."""

import os
import sys

import pytest

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
sys.path.insert(0, os.path.join(ROOT, "tools"))

import tidy  # noqa: E402


def test_the_tree_is_tidy():
    assert tidy.check_tree(ROOT) == []


def rules(file, text):
    return sorted({rule for _, rule, _ in tidy.check_text(file, text)})


@pytest.mark.parametrize(
    "file, text, rule",
    [
        ("src/core/x.cpp", "int a;\n" * 801, "length"),
        ("src/core/x.cpp", "// TODO: later\n", "marker"),
        ("docs/x.md", "FIXME\n", "marker"),
        ("tools/x.py", "path = '/work/here'\n", "machine-path"),
        ("src/core/x.hpp", "int a;\n", "pragma-once"),
        ("src/core/x.hpp", "#pragma once\nusing namespace std;\n", "using-namespace"),
        ("src/core/x.cpp", "std::mutex m;\n", "threads"),
        ("src/core/x.cpp", "#include <atomic>\n", "threads"),
        ("src/targets/a/x.cpp", "std::shared_ptr<int> p;\n", "threads"),
        ("src/sim/x.cpp", "std::jthread t;\n", "threads"),
        ("src/core/x.cpp", "auto t = std::chrono::steady_clock::now();\n", "chance"),
        ("src/core/x.cpp", "int a = rand();\n", "chance"),
        ("src/core/x.cpp", "auto a = std::time(nullptr);\n", "chance"),
        ("src/core/x.cpp", "std::set<Device*> all;\n", "pointer-order"),
        ("src/core/x.cpp", "std::unordered_map<int, int> seen_;\nvoid f() {\n    for (auto& s : seen_) use(s);\n}\n", "unordered-walk"),
        ("src/core/x.cpp", "auto* p = dynamic_cast<B*>(a);\n", "dynamic-cast"),
        ("src/core/x.cpp", "co_await f(Options{1});\n", "co-await"),
        ("src/core/x.cpp", "co_await f([p] { return p; });\n", "co-await"),
        ("src/core/x.cpp", "if (co_await f()) {\n}\n", "co-await"),
        ("src/core/x.cpp", "auto f = [this](int a) -> Job<void> {\n    auto j = g(a);\n    co_await j;\n};\n", "lambda-coroutine"),
        ("src/core/x.cpp", "int a = ({ int b = f(); b; });\n", "statement-expression"),
        ("test/unit/x_test.cpp", "TEST(A, IsNothing) {\n    // nothing\n}\n", "empty-test"),
        ("test/unit/x_test.cpp", "std::this_thread::sleep_for(1ms);\n", "sleep"),
        ("test/unit/x_test.cpp", "sleep(1);\n", "sleep"),
        ("test/system/test_x.py", "time.sleep(1)\n", "sleep"),
    ],
)
def test_a_breach_is_seen(file, text, rule):
    assert rules(file, text) == [rule]


@pytest.mark.parametrize(
    "file, text",
    [
        ("src/core/x.cpp", "int a;\n" * 800),
        ("src/core/x.cpp", '// a std::mutex would be wrong here, and rand() too\nconst char* s = "std::mutex";\n'),
        ("src/engine/x.cpp", "#include <atomic>\nstd::mutex m;\nauto t = std::chrono::steady_clock::now();\n"),
        ("src/core/x.cpp", "auto job = f(a);\nauto r = co_await job;\nvoid g() { a[1] = 2; }\n"),
        ("src/core/x.cpp", "auto order = [](int a, int b) { return a < b; };\nJob<void> f() {\n    co_return;\n}\n"),
        ("src/core/x.cpp", "int values[4] = {};\nvalues[i] = g({1, 2});\n"),
        ("src/core/x.cpp", "std::unordered_map<int, int> seen_;\nauto a = seen_.find(1);\n"),
        ("src/core/x.cpp", "std::map<int, Device*> by_number;\n"),
        ("src/core/x.cpp", "Nanoseconds time() const;\nauto t = reactor.time();\n"),
        ("test/unit/x_test.cpp", "TEST(A, IsSomething) {\n    EXPECT_TRUE(f());\n}\n"),
        ("test/support/wait.py", "import time\ntime.sleep(0.01)\n"),
        ("docs/x.md", "See /run/udm/udmd.sock and build/work/here.\n"),
    ],
)
def test_what_is_fine_is_left_alone(file, text):
    assert rules(file, text) == []


def test_a_breach_is_named_with_its_line():
    assert tidy.check_text("src/core/x.cpp", "int a;\n/* std::mutex\n*/\nstd::mutex m;\n")[0][:2] == (4, "threads")
