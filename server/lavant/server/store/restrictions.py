"""Restrictions: the runs of a tenant that a credential is for."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from lavant.contract.limits import OWN_RUNS
from lavant.server.errors import run_not_found
from lavant.v1.run_pb2 import Run, RunSettings


@dataclass(frozen=True, slots=True, kw_only=True)
class Restriction:
    """The runs that a credential is for: those that match every field that is not empty, and no system run.

    A trailing `*` of a name matches any ending. What a restriction depends on never changes after a run's creation.
    """

    run_ids: tuple[str, ...] = ()
    names: tuple[str, ...] = ()
    labels: Mapping[str, str] = field(default_factory=dict)
    conversation_id: str = ""

    def allows(self, run: Run) -> bool:
        """Return whether the credential is for a run."""
        return self.allows_new(run.run_id, run)

    def allows_new(self, run_id: str, settings: Run | RunSettings) -> bool:
        """Return whether the credential is for a run with this ID and these settings."""
        return (
            not run_id.startswith(OWN_RUNS)
            and (not self.run_ids or run_id in self.run_ids)
            and (not self.names or any(_matches(settings.name, name) for name in self.names))
            and all(settings.labels.get(key) == value for key, value in self.labels.items())
            and self.conversation_id in ("", settings.conversation_id)
        )


def check_within(restriction: Restriction | None, run: Run) -> Run:
    """Return a run that a restriction allows; None allows all. Raises RUN_NOT_FOUND, as if there were no such run."""
    if restriction is not None and not restriction.allows(run):
        raise run_not_found(run.run_id)
    return run


def restricted_settings(run_id: str, run: Run) -> Run:
    """Return a run with only its ID and the settings that restrictions depend on."""
    return Run(run_id=run_id, name=run.name, labels=run.labels, conversation_id=run.conversation_id)


def _matches(name: str, pattern: str) -> bool:
    return name.startswith(pattern[:-1]) if pattern.endswith("*") else name == pattern
