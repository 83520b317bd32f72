"""Generates lavant.client._sync from lavant.client._async; with `--check`, reports what differs.

The modules in HAND_WRITTEN depend on asyncio or on threads, and are written for each.
"""

import re
import subprocess
import sys
from pathlib import Path

CLIENT = Path(__file__).parent / "lavant" / "client"
HAND_WRITTEN = {Path("alarms.py"), Path("calls.py"), Path("concurrency.py")}
NOTE = "# Generated from {} by client/unasync.py: change that file instead.\n"

WORDS = [
    (r"async (def|with|for)\b", r"\1"),
    (r"\bawait ", ""),
    (r"\b_async\b", "_sync"),
    (r"\bAwaitable\[((?:[^\[\]]|\[[^\[\]]*\])+)\]", r"\1"),
    (r"\bAwaitable, Callable\b", "Callable"),
    (r"\bAsync(Iterator|Iterable|Generator)\b", r"\1"),
    (r"\bStopAsyncIteration\b", "StopIteration"),
    (r"\b__a(enter|exit|iter|next)__\b", r"__\1__"),
    (r"\baclose\b", "close"),
    (r"\banext\b", "next"),
    (r"\baiter\b", "iter"),
    (r"\bAsync([A-Z]\w+)", r"\1"),
    (r"ServiceAsyncStub\b", "ServiceStub"),
    # What docstrings say about event loops and tasks.
    (r"for asyncio\.", "for blocking code."),
    (r"It belongs to the event loop of(.|\n)*?logged\s+once\.", "It may be used from any thread."),
    (r"For one event loop; not thread-safe\.", "Thread-safe; a thread without a step publishes into the run."),
    (r"the\s+event\s+loop\s+or\s+the\s+process\s+ends", "the process ends"),
    (r", also by tasks that are created in it, belong", " belong"),
    (r"\n\n +In another event loop than the client.s, raises RuntimeError with \"raise\"\.", ""),
    (r"\bOne task reads", "One thread reads"),
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
    """Write all modules and remove those without a source; with --check, report what differs instead."""
    source, target = CLIENT / "_async", CLIENT / "_sync"
    wanted = {path.relative_to(source) for path in source.rglob("*.py")} - HAND_WRITTEN
    found = {path.relative_to(target) for path in target.rglob("*.py")} - HAND_WRITTEN
    stale = []
    for name in sorted(wanted | found):
        path = target / name
        made = to_sync((source / name).read_text(), name.as_posix()) if name in wanted else None
        if made != (path.read_text() if name in found else None):
            stale.append(name.as_posix())
            if "--check" in sys.argv:
                continue
            if made is None:
                path.unlink()
            else:
                path.parent.mkdir(exist_ok=True)
                path.write_text(made)
    if "--check" in sys.argv and stale:
        sys.stderr.write("stale, run `make sync`: " + ", ".join(stale) + "\n")
        return 1
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
