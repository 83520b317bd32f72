"""Which runs a command is about."""

from collections.abc import AsyncIterator
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Self

import typer

from lavant.client import AsyncClient, Run
from lavant.client._filter import run_filter
from lavant.client.cli._options import labels_of, since_of


@dataclass(frozen=True, slots=True, kw_only=True)
class Selection:
    """Runs that fulfil all of this; what is empty or None excludes none."""

    states: tuple[str, ...]
    kinds: tuple[str, ...]
    names: tuple[str, ...]
    labels: dict[str, str]
    since: datetime | None

    @classmethod
    def of(
        cls,
        states: list[str] | None,
        kinds: list[str] | None,
        names: list[str] | None,
        labels: list[str] | None,
        since: str | None,
    ) -> Self:
        """Read what was given on the command line. Raises a usage error for what makes no sense."""
        selection = cls(
            states=tuple(states or ()),
            kinds=tuple(kinds or ()),
            names=tuple(names or ()),
            labels=labels_of(labels),
            since=since_of(since, datetime.now(UTC)),
        )
        try:
            run_filter(states=selection.states, kinds=selection.kinds)
        except ValueError as error:
            raise typer.BadParameter(str(error).replace("kinds", "--kind").replace("states", "--state")) from None
        return selection

    @property
    def is_everything(self) -> bool:
        """Whether no run is excluded."""
        return not (self.states or self.kinds or self.names or self.labels or self.since)

    def list(self, client: AsyncClient, page_size: int = 0) -> AsyncIterator[Run]:
        """Give the runs, the newest first."""
        return client.runs.list(
            states=self.states,
            kinds=self.kinds,
            names=self.names,
            labels=self.labels,
            created_after=self.since,
            page_size=page_size,
        )

    def watch(self, client: AsyncClient) -> AsyncIterator[Run]:
        """Give the runs as they stand, then as they change; of any state, so that runs are seen to leave theirs."""
        return client.runs.watch(kinds=self.kinds, names=self.names, labels=self.labels)

    def holds(self, run: Run) -> bool:
        """Tell whether a run that was watched is one of them."""
        is_recent = self.since is None or (run.created is not None and run.created >= self.since)
        return is_recent and (not self.states or run.state.value in self.states)
