"""`make quick`: the core, and what the change at hand touches, within 45 seconds.

    python tests/quick.py            # what differs from main, and what is not committed
    python tests/quick.py --list     # only name the files

A test file is chosen where it changed, where it imports a module that changed, or where it bears the name of one, or
of a module that imports one.
What does not fit into the time is said, and left to `make test`.
"""

from __future__ import annotations

import ast
import os
import signal
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parent.parent
CORE = ["tests/balancing/test_balancer.py", "tests/test_method_registry.py", "tests/test_import.py"]
CONTRACT = ["tests/testing", "-k", "[equal] or [uw] or [mgda] or [db-mtl] or [graddrop]"]
SECONDS = 28, 14


def changed() -> list[Path]:
    """Files that differ from where this branch left main, and those not yet committed."""

    def lines(*words: str) -> list[str]:
        return subprocess.run(["git", *words], cwd=ROOT, capture_output=True, text=True, check=False).stdout.split("\n")

    base = lines("merge-base", "HEAD", "origin/main")[0] or lines("merge-base", "HEAD", "main")[0] or "HEAD"
    names = {*lines("diff", "--name-only", base), *lines("ls-files", "--others", "--exclude-standard")}
    return sorted(ROOT / name for name in names if name.endswith(".py"))


def imports(path: Path) -> set[str]:
    """Modules and names that a file imports, dotted."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.module:
            found |= {node.module, *(f"{node.module}.{name.name}" for name in node.names)}
        elif isinstance(node, ast.Import):
            found |= {name.name for name in node.names}
    return found


def chosen(files: list[Path]) -> list[str]:
    """Test files for a change."""
    source, tests = ROOT / "src", ROOT / "tests"
    modules = {".".join(path.relative_to(source).with_suffix("").parts) for path in files if source in path.parents}
    stems = {path.stem for path in files if source in path.parents}
    stems |= {path.stem for path in source.rglob("*.py") if imports(path) & modules}
    found = []
    for path in sorted(tests.rglob("test_*.py")):
        touched = path in files or path.stem.removeprefix("test_") in stems or imports(path) & modules
        if touched and "integrations" not in path.parts:
            found.append(str(path.relative_to(ROOT)))
    return [name for name in found if name not in CORE]


def main() -> int:
    files = changed()
    touched = chosen(files)
    print(f"{len(files)} files differ; {len(touched)} test files are theirs: {' '.join(touched) or '-'}")
    if "--list" in sys.argv:
        return 0
    return max(tested(words, seconds) for words, seconds in zip(([*touched, *CORE], CONTRACT), SECONDS, strict=True))


def tested(words: list[str], seconds: int) -> int:
    """Pytest stops by itself after a test; one that goes on and on is stopped with all that it has started."""
    options = ["-q", "-n", "2", "-m", "not slow", "--maxfail=5", f"--session-timeout={seconds - 3}"]
    command = [sys.executable, "-m", "pytest", *options, *words]
    process = subprocess.Popen(command, cwd=ROOT, start_new_session=True)
    try:
        return process.wait(seconds)
    except subprocess.TimeoutExpired:
        print(f"\nstopped after {seconds} s in the middle of a test: the rest is left to make test")
        return 1
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()


if __name__ == "__main__":
    raise SystemExit(main())
