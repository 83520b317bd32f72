"""The checks of names and texts that follow from docs/glossary.md.

`.venv/bin/python tests/tree/words.py server/lavant/server/store` lists the faults of the files below some paths.
"""

import ast
import re
import sys
from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from lavant import client

ROOT = Path(__file__).parents[2]

# Words and phrases that the glossary replaces. Each stands for one thing only, so none has an innocent use in prose.
DRAWING = r"draw(?:s|n|er|ing)?"
BANNED = re.compile(
    r"\b(?:"
    r"tells?|telling|told"  # report, return, raise, show
    r"|(?:gives?|gave|giving)(?! (?:up|way)\b)|given back"  # return, pass, release
    r"|look(?:s|ed|ing)? at"  # read, examine, select
    r"|anew|for ever"  # again, from the start; forever, without limit
    r"|(?:go|goes|going|went) on|(?:come|comes|coming|came) back"  # continue, resume, return
    r"|(?:hear|hears|heard) (?:of|from|about)|to be heard"  # receive
    r"|hand(?:s|ed|ing)? out|to be had|(?:has|have|had) room"  # assign, return, available
    r"|as it st(?:ands|ood)|signs? of life"  # snapshot, heartbeat
    r"|(?:take|takes|taken|took|taking) back|lets? go"  # acquire, release
    r"|bookmarks?|desks?|drawers?|eras?|seats?|mend(?:s|ed|ing)?"  # token, coordinator, sampler, epoch, lease, fix
    r"|(?:new|another|other|earlier) life|lives of"  # store epoch, run
    r"|judged|judg(?:e|es|ing) (?:a|an|the|it|them|all|what|runs?)"  # evaluate
    r"|(?:nothing|none|any|all|but) but|but for"  # only, except
    r"|(?:its|their|consumer's|own|a stream's) places?"  # lease, position
    r"|behind (?:the (?:last|next|first)|it|them|that|this|an? event|event|one|what|those|a position|its?)"  # after
    rf"|{DRAWING}"  # select, sample
    r")\b",
    re.IGNORECASE,
)
CHARTS = re.compile(rf"\b{DRAWING}\b", re.IGNORECASE)  # a chart is drawn
# Parts of names.
BANNED_NAMES = frozenset({
    "anew", "bookmark", "bookmarks", "desk", "desks", "draw", "drawer", "drawing", "drawn", "draws", "face", "faces",
    "heard", "judged", "measures", "seat", "standing", "tell", "telling", "tells", "told",
})  # fmt: skip
# The first line of a docstring: a noun phrase for a class or module, an imperative verb for a function.
QUESTION = re.compile(r"(What|How|Whether|Which|Where|When|Who|Whoever|Whatever|All that)\b")
QUOTED_QUESTION = re.compile(rf'"""{QUESTION.pattern}')
DEFINITION = re.compile(r"^ *(?:async def|def|class) (\w+)", re.MULTILINE)
LONGEST_FILE = 600
WRITTEN = {".py", ".proto", ".md", ".js", ".ts", ".go", ".java", ".rs", ".html", ".yaml"}
NOT_WRITTEN = ("_sync", "__pycache__", "gen", "lavantpb", "node_modules", "build")  # but generated, installed or built
EXPORTED = frozenset(client.__all__)
ONE_CONCEPT = frozenset({"FieldViolation", "Principal", "Restriction"})  # at both ends of a call
COMMENT = re.compile(r"(?:^|\s\s)#.*")
SQL = re.compile(r"\s*(SELECT|INSERT|UPDATE|DELETE|CREATE|WITH|PRAGMA|DROP|REPLACE|ALTER)\b")


@dataclass(frozen=True, slots=True, order=True)
class Fault:
    """A text, a name or a file that the rules refuse."""

    path: str
    line: int
    what: str

    def __str__(self) -> str:
        return f"{self.path}:{self.line}: {self.what}"


def plain(text: str) -> str:
    """Return a text without code, links' targets and dotted names, whose words are not prose."""
    text = re.sub(r"```.*?```|``?[^`]+``?|\]\([^)]*\)|https?://\S+", "` `", text, flags=re.DOTALL)
    return re.sub(r"\w+(?:\.\w+)+|\w*_\w+|--[\w-]+", "`", text)


def banned_parts(name: str) -> set[str]:
    """Return the banned words of which an identifier is made."""
    return {part.lower() for part in re.findall(r"[A-Z]?[a-z]+", name)} & BANNED_NAMES


def is_property(node: ast.AST) -> bool:
    decorators = getattr(node, "decorator_list", [])
    return any(ast.unparse(decorator).endswith("property") for decorator in decorators)


def python_faults(path: str, source: str) -> Iterator[Fault]:
    """Yield the faults of a module: words of docstrings, comments and literals, names, first lines of docstrings."""
    product = not path.startswith("tests/")
    for part in sorted(banned_parts(Path(path).stem)):
        yield Fault(path, 1, f"the module's name has {part!r}")
    for name in DEFINITION.finditer(source):
        for part in sorted(banned_parts(name.group(1))):
            yield Fault(path, line_of(source, name.start()), f"the name {name.group(1)} has {part!r}")
    if not BANNED.search(" ".join(source.split())) and not QUOTED_QUESTION.search(source):
        return  # as for most files; parsing takes long
    for number, line in enumerate(source.splitlines(), 1):
        if comment := COMMENT.search(line):
            yield from said(path, number, comment.group())
    docstrings = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str):
            docstrings.add(id(node.value))
            yield from said(path, node.lineno, node.value.value)
        elif isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in docstrings:
            if product and " " in node.value.strip() and not SQL.match(node.value):  # tests quote anything
                yield from said(path, node.lineno, node.value)
        elif isinstance(node, (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)):
            question = QUESTION.match(ast.get_docstring(node) or "")
            if product and question and not (is_property(node) and question.group() == "Whether"):  # a boolean one
                yield Fault(path, getattr(node, "lineno", 1), f"the docstring begins with {question.group()!r}")


def line_of(source: str, position: int) -> int:
    return source.count("\n", 0, position) + 1


def said(path: str, line: int, text: str) -> Iterator[Fault]:
    """Yield the banned words of a text as faults."""
    for word in BANNED.finditer(" ".join(plain(text).split())):
        yield Fault(path, line, f"says {word.group().lower()!r}")


def comments(source: str) -> Iterator[tuple[int, str]]:
    """Yield each comment of a contract's file as one text, with the number of the line that it describes."""
    words: list[str] = []
    for number, line in enumerate(source.splitlines(), 1):
        if line.lstrip().startswith("//"):
            words += line.lstrip().removeprefix("//").split()
        elif words:
            yield number, " ".join(words)
            words = []


def paragraphs(markdown: str) -> Iterator[tuple[int, str]]:
    """Yield the paragraphs of a text, without blocks of code, with the numbers of their first lines."""
    prose = re.sub(r"```.*?```", lambda block: "\n" * block.group().count("\n"), markdown, flags=re.DOTALL)
    for found in re.finditer(r"(?:.+\n?)+", prose):
        yield prose.count("\n", 0, found.start()) + 1, found.group()


def javascript_texts(source: str) -> Iterator[tuple[int, str]]:
    """Yield the comments and the literals of more than one word, with their lines."""
    for number, line in enumerate(source.splitlines(), 1):
        texts = " ".join(re.findall(r'//.*|^\s*/?\*.*|"[^"]* [^"]*"|`[^`]* [^`]*`', line))
        yield number, CHARTS.sub("", texts).replace("`", " ")


TEXTS = {".proto": comments, **dict.fromkeys((".js", ".ts", ".go", ".java", ".rs"), javascript_texts)}


def faults(path: str, source: str) -> Iterator[Fault]:
    """Yield the faults of one file."""
    if source.count("\n") > LONGEST_FILE and Path(path).suffix in {".py", ".proto", ".js"}:
        yield Fault(path, LONGEST_FILE, f"the file has more than {LONGEST_FILE} lines")
    if path.endswith(".py"):
        yield from python_faults(path, source)
        return
    for line, text in TEXTS.get(Path(path).suffix, paragraphs)(source):
        yield from said(path, line, text)


def files() -> Iterator[str]:
    """Yield the paths of all files that people read, from the root of the repository."""
    for folder in ("client", "server", "protos/lavant", "docs", "tests"):
        for path in sorted((ROOT / folder).rglob("*")):
            name = path.relative_to(ROOT).as_posix()
            generated = any(f"/{folder}/" in name for folder in NOT_WRITTEN)
            # The glossary lists the words, and these tests have them as examples.
            lists = name == "docs/glossary.md" or name.startswith("tests/tree/")
            if path.suffix in WRITTEN and not generated and not lists:
                yield name
    yield from (path.name for path in sorted(ROOT.glob("*.md")))


def all_faults() -> list[Fault]:
    """Return the faults of the whole tree."""
    sources = {path: (ROOT / path).read_text(encoding="utf-8") for path in files()}
    found = [fault for path, source in sources.items() for fault in faults(path, source)]
    product = (item for item in sources.items() if item[0].endswith(".py") and not item[0].startswith("tests/"))
    return sorted([*found, *duplicates(product)])


def duplicates(sources: Iterable[tuple[str, str]]) -> Iterator[Fault]:
    """Yield public classes of one process, and public names of the client, that another class has too."""
    defined: dict[tuple[str, str], list[tuple[str, int]]] = defaultdict(list)
    for path, source in sources:
        for found in re.finditer(r"^class ([A-Z]\w*)", source, re.MULTILINE):
            name = found.group(1)
            if name not in ONE_CONCEPT:
                # Each engine has a reader, a writer and so on of its own.
                engine = re.match(r"server/lavant/server/store/(\w+)/", path)
                process = "client" if path.startswith("client/") or name in EXPORTED else "server"
                defined[engine.group(1) if engine else process, name].append((path, line_of(source, found.start())))
    for (_, name), at in sorted(defined.items()):
        for path, line in at if len(at) > 1 else []:
            others = ", ".join(other for other, _ in at if other != path)
            yield Fault(path, line, f"the class {name} is also in {others}")


def main(prefixes: list[str]) -> None:
    found = [fault for fault in all_faults() if not prefixes or fault.path.startswith(tuple(prefixes))]
    print(*found, f"{len(found)} faults", sep="\n")


if __name__ == "__main__":
    main(sys.argv[1:])
