"""Output of commands for other programs: any encoding, one record per line, named columns."""

import asyncio
import io
import json
import os
import subprocess
import sys

import pytest

from client.cli.conftest import Lavant
from lavant.client import AsyncClient
from lavant.client.cli.output import json_line
from support.server import Server

ODD = "caf\u00e9 \u2028\u2029\x85 \u4e16\u754c \U0001f600"


@pytest.mark.parametrize("encoding", ["utf-8", "cp1252", "ascii"])
def test_json_says_the_same_in_any_encoding(encoding: str) -> None:
    file = io.TextIOWrapper(io.BytesIO(), encoding=encoding)
    line = json_line(json.dumps(ODD, ensure_ascii=False), file)
    assert line.encode(encoding)
    assert len(line.splitlines()) == 1
    assert json.loads(line) == ODD


async def odd_run(client: AsyncClient) -> None:
    async with client.runs.start(ODD, run_id="odd", labels={"k": ODD}) as run:
        await run.text(ODD)
        async with run.tool("look", {"q": ODD}) as tool:
            tool.result = ODD
        run.output = ODD


@pytest.mark.parametrize("encoding", ["cp1252", "ascii", "utf-8"])
@pytest.mark.parametrize("command", ["tail odd", "runs", "runs --json", "tail odd --json", "export odd", "wait odd"])
async def test_no_encoding_is_a_traceback(server: Server, client: AsyncClient, command: str, encoding: str) -> None:
    await odd_run(client)
    code = "from lavant.client.cli import main; main()"
    done = await asyncio.to_thread(
        subprocess.run,
        [sys.executable, "-c", code, *command.split(), "--target", server.target],
        capture_output=True,
        env={**os.environ, "PYTHONIOENCODING": encoding, "PYTHONUTF8": "0"},
        timeout=30,
        check=False,
    )
    assert (done.returncode, b"Traceback" in done.stderr) == (0, False)
    if "json" in command or "export" in command:
        lines = done.stdout.decode().splitlines()
        assert len(lines) == done.stdout.count(b"\n")
        assert ODD in json.dumps([json.loads(line) for line in lines], ensure_ascii=False)


@pytest.mark.parametrize("around", [(b"", b"\n"), (b"\xef\xbb\xbf", b""), (b"\n\n", b"\r\n \n")])
async def test_blank_lines_and_a_byte_order_mark_are_no_part_of_an_export(
    client: AsyncClient, lavant: Lavant, tmp_path: os.PathLike[str], around: tuple[bytes, bytes]
) -> None:
    await odd_run(client)
    exported = (await lavant("export", "odd")).out.replace('"odd"', '"again"').encode()
    file = f"{os.fspath(tmp_path)}/export.jsonl"
    with open(file, "wb") as written:  # noqa: ASYNC230, PTH123
        written.write(around[0] + exported + around[1])
    assert (await lavant("import", file)).status == 0
    assert (await client.runs.get("again")).name == (await client.runs.get("odd")).name


@pytest.mark.parametrize(
    ("command", "columns"),
    [
        ("runs", "id\tname\tstate\tlabels\tcreated\tevents"),
        ("evaluations", "evaluation\tname\tstate\tscores"),
        ("rules list", "rule\tstate\trate\texamined\tselected\tevaluated\tfailed"),
        ("scores", "time\trun\tname\trule\tevaluator\tscore\texplanation"),
        ("scores --by name", "name\tcount\terrors\terror rate\tmean\tpass\tp50\tp95"),
    ],
)
async def test_columns_are_named_when_asked(lavant: Lavant, command: str, columns: str) -> None:
    assert (await lavant(*command.split(), "--header")).out.splitlines() == [columns]
    assert (await lavant(*command.split())).out == ""
