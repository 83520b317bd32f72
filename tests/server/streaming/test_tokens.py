"""Resume tokens are accepted unchanged only."""

from pathlib import Path

import grpc
import pytest

from lavant.server.auth.signing import MAX_TEXT_LENGTH, Signer
from lavant.server.model import RunKey, beside
from lavant.server.streaming.tokens import Listing, PageTokens, Position, ResumeTokens
from lavant.v1.event_service_pb2 import ListEventsRequest
from lavant.v1.run_service_pb2 import ListRunsRequest, WatchRunsRequest
from support.engines import KEY, refused
from support.events import a_run_of
from support.server import Server, serving
from support.streams import append, create, described, streamed
from support.streams import refused as stream_refused

OLD, NEW = {"2024": b"o" * 32}, {"2025": b"n" * 32}
EPOCH = "0123456789abcdef"
ALPHABET = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
HERE = Position(sequence=7, types=1 << 31 | 1 << 71, created_ns=1_700_000_000_000_000_001)


def tokens(keys: dict[str, bytes] = OLD, epoch: str = EPOCH) -> ResumeTokens:
    return ResumeTokens(Signer(keys), epoch)


def issued(by: ResumeTokens, key: RunKey = KEY, position: Position = HERE) -> str:
    return by.issuer(key, position.types, position.created_ns).at(position.sequence).decode()


def damaged(token: str) -> list[str]:
    """The token with each bit of its text flipped, each end cut off, and things put before and behind."""
    flips = [
        token[:index] + chr(ord(character) ^ 1 << bit) + token[index + 1 :]
        for index, character in enumerate(token)
        for bit in range(8)
    ]
    cuts = [token[:length] for length in range(len(token))]
    tails = [token[length:] for length in range(1, len(token))]
    additions = [token + more for more in (*ALPHABET, "=", "==", "\n", " ", "\0", "AAAA", token)]
    others = ["not base64 at all!", "é" * 40, "A" * MAX_TEXT_LENGTH, "A" * (MAX_TEXT_LENGTH + 1), "=" + token]
    return [*flips, *cuts, *tails, *additions, *others]


@pytest.mark.parametrize("sequence", [0, 1, 2**31, 2**62])
@pytest.mark.parametrize("types", [0, 1 << 20, (1 << 128) - 1])
def test_a_token_comes_back_as_it_was_issued(sequence: int, types: int) -> None:
    position = Position(sequence, types, 1_700_000_000_000_000_001)
    assert tokens().read(issued(tokens(), position=position), KEY) == position


def test_prefix_makes_a_token_of_each_position() -> None:
    prefix = tokens().issuer(KEY, HERE.types, HERE.created_ns).prefix().decode()
    for sequence in (0, 1, 7, 2**32 - 1):
        assert tokens().read(f"{prefix}{sequence}", KEY) == HERE._replace(sequence=sequence)
    for text in damaged(prefix.removesuffix(".")):
        with refused("RESUME_TOKEN_INVALID"):
            tokens().read(f"{text}.7", KEY)


def test_no_damaged_token_is_taken() -> None:
    by = tokens()
    for text in damaged(issued(by)):
        with refused("RESUME_TOKEN_INVALID"):
            by.read(text, KEY)


def test_no_character_of_a_token_can_be_replaced() -> None:
    by = tokens()
    token = issued(by)
    for index in range(len(token)):
        for character in set(ALPHABET) - {token[index]}:
            with refused("RESUME_TOKEN_INVALID"):
                by.read(token[:index] + character + token[index + 1 :], KEY)


def test_a_token_has_one_spelling() -> None:
    """Standard base64, padding and stray bits at the end would decode to the same bytes."""
    by = tokens()
    lengths = set()
    for size in range(1, 5):
        key = KEY._replace(run_id="r" * size)
        token = issued(by, key)
        lengths.add(len(token) % 4)
        assert set(token) <= set(ALPHABET)
        by.read(token, key)
        padded = token + "=" * (-len(token) % 4)
        for other in {padded, token.replace("-", "+").replace("_", "/"), f"{token[:4]}\n{token[4:]}"} - {token}:
            with refused("RESUME_TOKEN_INVALID"):
                by.read(other, key)
    assert len(lengths) > 1


def test_a_token_is_of_one_run_tenant_and_store() -> None:
    token = issued(tokens())
    with refused("RESUME_TOKEN_INVALID"):
        tokens().read(token, KEY._replace(run_id="other"))
    with refused("PERMISSION_DENIED"):
        tokens().read(token, KEY._replace(tenant="other"))
    with refused("STORE_EPOCH_CHANGED"):
        tokens(epoch="fedcba9876543210").read(token, KEY)
    with refused("PERMISSION_DENIED"):
        tokens(epoch="fedcba9876543210").read(token, KEY._replace(tenant="other"))


def test_a_token_for_samples_is_none_of_a_run_with_the_same_id_and_the_reverse() -> None:
    of_samples = KEY._replace(tenant=beside(KEY.tenant, "rules"))
    for issued_for, presented_for in ((KEY, of_samples), (of_samples, KEY)):
        with refused("RESUME_TOKEN_INVALID"):
            tokens().read(issued(tokens(), issued_for), presented_for)
        with refused("PERMISSION_DENIED"):
            tokens().read(issued(tokens(), issued_for), presented_for._replace(tenant="other"))


def test_the_parts_of_a_token_cannot_be_shifted() -> None:
    token = issued(tokens(), RunKey("ab", "c"))
    with refused("PERMISSION_DENIED"):
        tokens().read(token, RunKey("a", "bc"))


def test_keys_are_rotated() -> None:
    token = issued(tokens(OLD))
    both = tokens({**NEW, **OLD})
    assert both.read(token, KEY) == HERE
    assert tokens(NEW).read(issued(both), KEY) == HERE
    for reader in (tokens(NEW), tokens({"2024": b"x" * 32}), tokens({"2023": OLD["2024"]})):
        with refused("RESUME_TOKEN_INVALID"):
            reader.read(token, KEY)


def test_the_longest_token_is_short_enough() -> None:
    longest = tokens({"k" * 16: b"k" * 64}, epoch="e" * 32)
    key = RunKey("t" * 128, "r" * 128)
    token = issued(longest, key, Position(2**63 - 1, (1 << 128) - 1, 2**63 - 1))
    assert len(token) <= MAX_TEXT_LENGTH
    longest.read(token, key)


def test_a_cursor_is_no_resume_token_and_a_resume_token_no_cursor() -> None:
    signer = Signer(OLD)
    by, page_tokens = ResumeTokens(signer, EPOCH), PageTokens(signer, EPOCH)
    for listing in Listing:
        cursor = page_tokens.issue(listing, KEY.tenant, 7)
        with refused("RESUME_TOKEN_INVALID"):
            by.read(cursor, KEY)
        with refused("INVALID_FIELD"):
            page_tokens.read(listing, KEY.tenant, issued(by), "page_token")
        for other in Listing:
            for tenant in {KEY.tenant, "other"}:
                if (other, tenant) != (listing, KEY.tenant):
                    with refused("INVALID_FIELD"):
                        page_tokens.read(other, tenant, cursor, "page_token")
        assert page_tokens.read(listing, KEY.tenant, cursor, "page_token") == 7
        with refused("INVALID_FIELD"):
            PageTokens(signer, "another").read(listing, KEY.tenant, cursor, "page_token")


async def test_bad_tokens_over_the_network(server: Server) -> None:
    await create(server.stubs)
    await create(server.stubs, "other")
    await append(server.stubs, a_run_of(6))
    token = (await streamed(server.stubs)).last.resume_token
    texts = [text for text in damaged(token)[::97] if not any("\ud800" <= character <= "\udfff" for character in text)]
    for text in ("", "=", *texts):
        problem = await stream_refused(server.stubs, resume_token=text)
        assert (problem.code, problem.reason) == (grpc.StatusCode.INVALID_ARGUMENT, "RESUME_TOKEN_INVALID"), text
        assert not text or text not in problem.message
    problem = await stream_refused(server.stubs, resume_token=token, run_id="other")
    assert (problem.code, problem.reason) == (grpc.StatusCode.INVALID_ARGUMENT, "RESUME_TOKEN_INVALID")


async def test_tokens_of_lists_and_of_streams_over_the_network(server: Server) -> None:
    stubs = server.stubs
    for run_id in ("run", "other"):
        await create(stubs, run_id)
        await append(stubs, a_run_of(6), run_id=run_id)
    runs = await stubs.runs.ListRuns(ListRunsRequest(page_size=1))
    assert (await stream_refused(stubs, resume_token=runs.next_page_token)).reason == "RESUME_TOKEN_INVALID"
    token = (await streamed(stubs)).all[0].resume_token
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await stubs.runs.ListRuns(ListRunsRequest(page_token=token))
    assert described(caught.value).reason == "INVALID_FIELD"
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await stubs.runs.WatchRuns(WatchRunsRequest(resume_token=token)).read()
    assert described(caught.value).reason == "INVALID_FIELD"
    page = await stubs.events.ListEvents(ListEventsRequest(run_id="run", page_size=4, page_token=token))
    assert [event.sequence for event in page.events] == [1, 2, 3, 4]
    assert (await streamed(stubs, resume_token=page.next_page_token)).sequences == [5, 6]


async def test_tokens_of_another_store_over_the_network(tmp_path: Path) -> None:
    keys = {"shared": "ab" * 16}
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
    async with serving(tmp_path / "one", token_keys=keys) as one:
        await create(one.stubs)
        token = (await streamed(one.stubs, stop=2)).last.resume_token
    async with serving(tmp_path / "two", token_keys=keys) as two:
        await create(two.stubs)
        problem = await stream_refused(two.stubs, resume_token=token)
    assert (problem.code, problem.reason) == (grpc.StatusCode.FAILED_PRECONDITION, "STORE_EPOCH_CHANGED")


async def test_keys_are_rotated_by_restarts(tmp_path: Path) -> None:
    old, new = {"old": "ab" * 16}, {"new": "cd" * 16}
    async with serving(tmp_path) as server:
        await create(server.stubs)
        await append(server.stubs, a_run_of(6))
        token = (await streamed(server.stubs)).all[0].resume_token
    for keys in (old, {**new, **old}, new):
        async with serving(tmp_path, token_keys=keys) as server:
            frames = await streamed(server.stubs, resume_token=token)
            assert frames.sequences == [1, 2, 3, 4, 5, 6]
            token = frames.all[0].resume_token
    async with serving(tmp_path, token_keys=old) as server:
        assert (await stream_refused(server.stubs, resume_token=token)).reason == "RESUME_TOKEN_INVALID"
