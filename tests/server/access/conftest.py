"""One server for all credentials of a module, as each of them is refused or served in a moment."""

from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from server.access.credentials import Everyone, called_by_everyone


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def everyone(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Everyone]:
    """A server, and who calls it."""
    async with called_by_everyone(tmp_path_factory.mktemp("access")) as found:
        yield found
