"""Which stream objects of a client are one consumer's, one after the other."""

from lavant.client._ids import new_id

_REMEMBERED_SESSIONS = 1_000


class Session:
    """One stream object's session, from `Sessions.begin` until it is closed."""

    __slots__ = ("attempt", "closed", "id", "key", "opened")

    def __init__(self, session_id: str, attempt: int, key: tuple[str, str] | None) -> None:
        self.id = session_id
        self.attempt = attempt
        self.key = key
        self.opened = self.closed = False


class Sessions:
    """Lets a consumer's next stream continue the session of its last one, once that is closed.

    The server lets such a stream in at once, where it would refuse another session until it has
    seen the last one's end. Knows the newest sessions only; without one, a new session begins.
    """

    def __init__(self, limit: int = _REMEMBERED_SESSIONS) -> None:
        self._limit = limit
        self._latest: dict[tuple[str, str], Session] = {}

    def begin(self, run_id: str, consumer: str) -> Session:
        """Begin a session for a new stream: a rival of the consumer's open ones. An unnamed consumer has no others."""
        key = (run_id, consumer) if consumer else None
        latest = self._latest.get(key) if key else None
        if key is None or latest is None or not latest.closed:
            return Session(new_id(), 0, key)
        del self._latest[key]
        return Session(latest.id, latest.attempt, key)

    def opened(self, session: Session) -> None:
        """Note that a session got its consumer's place."""
        session.opened = True
        if session.key is not None:
            self._remember(session.key, session)

    def close(self, session: Session) -> None:
        """Let the consumer's next stream continue the session. May be called again."""
        if session.closed:
            return
        session.closed = True
        # One that was not let in, or not yet, must not hide the session that was.
        if session.key is not None and session.attempt and not session.opened and session.key not in self._latest:
            self._remember(session.key, session)

    def _remember(self, key: tuple[str, str], session: Session) -> None:
        self._latest.pop(key, None)
        self._latest[key] = session
        if len(self._latest) > self._limit:
            del self._latest[next(iter(self._latest))]
