"""Representation of an ErrorReason in google.rpc.Status."""

from typing import Final

# ErrorInfo.domain of every error that lavant reports: distinguishes them from those of proxies and cloud services.
ERROR_DOMAIN: Final = "lavant.dev"
# Trailing metadata of a failed call that holds its google.rpc.Status, as gRPC's rich error model has it.
STATUS_DETAILS_KEY: Final = "grpc-status-details-bin"
REASON_PREFIX: Final = "ERROR_REASON_"
