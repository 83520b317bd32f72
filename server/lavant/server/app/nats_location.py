"""Location of a store on NATS, from the settings."""

from typing import TYPE_CHECKING

from lavant.server.app.settings import Settings

if TYPE_CHECKING:
    from lavant.server.store.jetstream import Location


def location_of(settings: Settings) -> "Location":
    """Return where the store is and how to get access. Raises ValueError that says what is wrong with the settings."""
    from lavant.server.store.jetstream import Access, Location  # needs an extra

    password = settings.nats_password
    access = Access(
        ca=settings.nats_ca,
        cert=settings.nats_cert,
        key=settings.nats_key,
        user=settings.nats_user,
        password=None if password is None else password.get_secret_value(),
        credentials=settings.nats_credentials,
    )
    try:
        location = Location.parse(settings.store, access)
    except ValueError as error:
        raise ValueError(f"store: {error}") from None
    access.options()
    return location
