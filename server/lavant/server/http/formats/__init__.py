"""Formats of a run's stream other than lavant's own: the protocols that other front ends read."""

from lavant.server.http.formats.ag_ui import AgUiProjection
from lavant.server.http.formats.ai_sdk import AiSdkProjection
from lavant.server.http.formats.projection import Projection

FORMATS: dict[str, type[Projection]] = {"ag-ui": AgUiProjection, "ai-sdk": AiSdkProjection}
