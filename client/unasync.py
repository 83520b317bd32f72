"""Writes lavant.client._sync from lavant.client._async, or checks with `--check` that it is so.

What depends on asyncio or on threads is written by hand, once for each: HAND_WRITTEN.
"""

import re
import subprocess
import sys
from pathlib import Path

CLIENT = Path(__file__).parent / "lavant" / "client"
HAND_WRITTEN = {"alarms.py", "calls.py", "concurrency.py", "evaluating.py"}
NOTE = "# Made from {} by client/unasync.py: change that one.\n"

WORDS = [
    (r"async (def|with|for)\b", r"\1"),
    (r"\bawait ", ""),
    (r"\b_async\b", "_sync"),
    (r"\bAwaitable\[([^\[\]]+|\[[^\]]*\])\]", r"\1"),
    (r"\bAwaitable, Callable\b", "Callable"),
    (r"\bAsync(Iterator|Iterable|Generator)\b", r"\1"),
    (r"\bStopAsyncIteration\b", "StopIteration"),
    (r"\b__a(enter|exit|iter|next)__\b", r"__\1__"),
    (r"\baclose\b", "close"),
    (r"\banext\b", "next"),
    (r"\baiter\b", "iter"),
    (r"\bAsync([A-Z]\w+)", r"\1"),
    (r"ServiceAsyncStub\b", "ServiceStub"),
    (r"in one event loop", "from any thread"),
    (r"It belongs to the event loop(.|\n)*?logged once\.", "It may be used from any thread."),
    (
        r"For one event loop;(\s+)not thread-safe\.",
        r"Thread-safe;\1a thread that did not open a step publishes into the run.",
    ),
    (r"in one task", "in one thread"),
    (r"The event loop is closed, or __init__ raised", "__init__ raised"),
]


def to_sync(source: str, name: str) -> str:
    """Return the blocking form of a module."""
    for pattern, replacement in WORDS:
        source = re.sub(pattern, replacement, source)
    return _tidied(NOTE.format(f"_async/{name}") + source, name)


def _tidied(source: str, name: str) -> str:
    for command in (["check", "--fix", "--quiet", "--select", "I"], ["format", "--quiet"]):
        ruff = [sys.executable, "-m", "ruff", *command, "--stdin-filename", str(CLIENT / "_sync" / name), "-"]
        source = subprocess.run(ruff, input=source, capture_output=True, text=True, check=True).stdout  # noqa: S603
    return source


def main() -> int:
    """Write all modules, or tell which are stale."""
    stale = []
    wanted = {path.name: path for path in sorted((CLIENT / "_async").glob("*.py")) if path.name not in HAND_WRITTEN}
    for name, path in wanted.items():
        made, target = to_sync(path.read_text(), name), CLIENT / "_sync" / name
        if not target.exists() or target.read_text() != made:
            stale.append(target)
            if "--check" not in sys.argv:
                target.write_text(made)
    for target in sorted((CLIENT / "_sync").glob("*.py")):
        if target.name not in wanted and target.name not in HAND_WRITTEN:
            stale.append(target)
            if "--check" not in sys.argv:
                target.unlink()
    if "--check" in sys.argv and stale:
        sys.stderr.write("stale, run `make sync`: " + ", ".join(path.name for path in stale) + "\n")
        return 1
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
