"""Limits of credentials, as settings and files have them."""

from pydantic import BaseModel, ConfigDict, Field

from lavant.server.auth.principal import Limits


class CredentialLimits(BaseModel):
    """The most that a credential may use of each kind, as `KeyLimits` of the contract; None: any number."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    streams: int | None = Field(None, ge=1)
    calls: int | None = Field(None, ge=1)
    events_per_second: float | None = Field(None, ge=0.001)
    bytes_per_second: float | None = Field(None, ge=0.001)
    runs_per_second: float | None = Field(None, ge=0.001)

    def limits(self) -> Limits:
        """Return the limits of a principal."""
        return Limits(**self.model_dump())
