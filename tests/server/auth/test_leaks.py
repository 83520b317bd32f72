"""The check that no secret of a test is logged: what it finds. It runs after each test."""

from pathlib import Path

import pytest

from lavant.server.errors import ServiceError, invalid_field
from lavant.v1.run_service_pb2 import GetRunRequest
from support import leaks
from support.credentials import create_key
from support.issuer import Issuer
from support.server import ServerProcess, connected, serving
from support.status import refused


async def test_secrets_of_servers_and_issuers_are_found_in_texts(tmp_path: Path) -> None:
    async with serving(tmp_path, auth=["keys"], init_key=True) as server:
        _, key = await create_key(server.stubs, "runs:read")
        first = server.app.first_key
    issuer = Issuer(now=1_700_000_000)
    token = issuer.token()
    issuer.close()
    for secret in (key, first, token):
        line = f'call {{"authorization":"Bearer {secret}"}}'
        assert leaks.leaked(["fine\n" + line + "\nfine"]) == [line]
    assert not leaks.leaked([key.rpartition("_")[0], token.rpartition(".")[0], "lvk_aaaaaaaaaaaa_"])


def test_a_secret_in_the_log_or_an_error_fails_the_test() -> None:
    random = leaks.secret("q7Hn2kPz0sXw9VbT4mLr")

    def report(*sections: tuple[str, str]) -> pytest.TestReport:
        made = pytest.TestReport("test", ("", 0, ""), {}, "passed", None, "call", sections)
        leaks.check(made)
        return made

    assert report(("Captured log call", "nothing")).passed
    failed = report(("Captured log call", f"key={random}"))
    assert failed.failed
    assert random in str(failed.longrepr)
    error: ServiceError = invalid_field("token", f"{random} is wrong")
    assert report().failed, error
    assert report().passed


async def test_secrets_are_found_in_logs_of_processes_and_errors_that_clients_receive(tmp_path: Path) -> None:
    process = ServerProcess(tmp_path)
    log = tmp_path / "log"
    with log.open("ab") as stderr:  # both write at its end
        await process.start("--auth", "keys", "--init-key", stderr=stderr)
    words = (await process.line()).split()
    (key,) = [word for word in words if word.startswith("lvk_")]
    async with connected(process.target) as stubs:
        with refused("UNAUTHENTICATED") as refusal:
            await stubs.runs.GetRun(GetRunRequest(run_id="run"))
    assert refusal.status.message in leaks._texts
    with log.open("ab") as written:
        written.write(f"key={key}\n".encode())  # what a server must not do
    await process.kill()
    assert leaks.leaked(leaks._texts) == [f"key={key}"]
    leaks._texts.clear()
