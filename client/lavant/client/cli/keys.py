"""`lavant keys`: API keys of a tenant."""

import re
from collections.abc import Awaitable, Callable, Iterable
from datetime import UTC, datetime, timedelta
from importlib import import_module
from typing import Annotated, Any, get_args

import typer

from lavant.client import APIKey, AsyncClient, CreatedKey, KeyLimits, Restriction
from lavant.client.access import Scope, new_key
from lavant.client.cli.groups import examples, group
from lavant.client.cli.options import Header, Json, labels_of, seconds_of
from lavant.client.cli.output import Listing, age, print_json
from lavant.client.cli.session import CommandError, command
from lavant.client.cli.untrusted import one_line

_SCOPES: tuple[str, ...] = get_args(Scope)
_Tenant = Annotated[
    str,
    typer.Option(
        "--tenant", metavar="TENANT", help="Tenant of the key; by default that of the caller.", show_default=""
    ),
]
_Texts = list[str] | None
_COUNTS = ("streams", "calls")  # of which there are whole numbers
_WHOLE = re.compile(r"\d{1,9}")
_NUMBER = re.compile(r"\d{1,15}(\.\d{1,3})?")

keys = group("keys", "Create, list and revoke API keys.")


@keys.command(
    epilog=examples(
        "lavant keys create billing-agent --scope runs:publish --scope runs:read",
        "lavant keys create admin --all-scopes --store sqlite:////var/lib/lavant.db",
        "lavant keys create dashboard --scope runs:read --run-name 'weather-*' --expires 90d",
        "lavant keys create batch --scope runs:publish --limit calls=10 --limit events_per_second=500",
    )
)
@command()
async def create(
    client: AsyncClient,
    name: Annotated[str, typer.Argument(metavar="NAME", help="Name of the principal.", show_default=False)],
    scope: Annotated[
        _Texts,
        typer.Option("--scope", metavar="SCOPE", help=f"What the key allows; may be repeated: {', '.join(_SCOPES)}."),
    ] = None,
    all_scopes: Annotated[bool, typer.Option("--all-scopes", help="Allow everything.")] = False,
    tenant: _Tenant = "",
    expires: Annotated[
        str | None,
        typer.Option("--expires", metavar="DURATION", help="Time until it expires, such as 12h or 90d."),
    ] = None,
    run: Annotated[_Texts, typer.Option("--run", metavar="RUN", help="Only this run; may be repeated.")] = None,
    run_name: Annotated[
        _Texts, typer.Option("--run-name", metavar="NAME", help="Only runs of this name; a trailing * is a wildcard.")
    ] = None,
    label: Annotated[_Texts, typer.Option("--label", metavar="KEY=VALUE", help="Only runs with this label.")] = None,
    conversation: Annotated[str, typer.Option("--conversation", metavar="ID", help="Only runs of this one.")] = "",
    limit: Annotated[
        _Texts,
        typer.Option(
            "--limit",
            metavar="KIND=NUMBER",
            help=f"The most that its calls may use of a server; may be repeated: {', '.join(KeyLimits.model_fields)}.",
        ),
    ] = None,
    store: Annotated[
        str | None,
        typer.Option(
            "--store",
            metavar="STORE",
            help="Create the key in this store, without a server: sqlite:///PATH, or nats://HOST:PORT,HOST:PORT/NAME.",
        ),
    ] = None,
    json: Json = False,
) -> None:
    """Create an API key, and print its secret, which is shown only now.

    Keys of one name stand for the same principal: create a second one, use it, then revoke the first. With --store, the
    server of a store in a file must be stopped.
    """
    restriction = Restriction(
        run_ids=tuple(run or ()), names=tuple(run_name or ()), labels=labels_of(label), conversation_id=conversation
    )
    create_key = client.access.create_key if store is None else _in_store(store)
    created = await create_key(
        name,
        scopes=wanted_scopes(scope, all_scopes=all_scopes),
        restriction=None if restriction == Restriction() else restriction,
        limits=limits_of(limit),
        expires=None if expires is None else datetime.now(UTC) + timedelta(seconds=seconds_of(expires, "--expires")),
        tenant=tenant,
    )
    if json:
        print_json(created)
    else:
        print(created.secret)


def _in_store(store: str) -> Callable[..., Awaitable[CreatedKey]]:
    """Return what creates a key in a store. Raises CommandError if the server is not installed."""
    try:
        commands = import_module("lavant.server.commands.keys")  # by name: the client works without the server
    except ModuleNotFoundError as error:
        raise CommandError(f"{error.name} is missing: pip install 'lavant[server]'") from None

    async def create_key(name: str, **settings: Any) -> CreatedKey:
        response = await commands.create_in_store(store, new_key(name, **settings))
        return CreatedKey.from_proto(response.key, secret=response.secret)

    return create_key


def wanted_scopes(scopes: Iterable[str] | None, *, all_scopes: bool) -> tuple[str, ...]:
    """Return the scopes of a new key. Raises a usage error without any, or for an unknown one."""
    chosen = _SCOPES if all_scopes else tuple(scopes or ())
    if not chosen:
        raise typer.BadParameter(f"name what the key allows with --scope: {', '.join(_SCOPES)}, or --all-scopes")
    for scope in chosen:
        if scope not in _SCOPES:
            raise typer.BadParameter(f"--scope must be one of {', '.join(_SCOPES)}, not {scope!r}")
    return chosen


def limits_of(pairs: Iterable[str] | None) -> KeyLimits | None:
    """Return the limits of a new key, None without any. Raises a usage error."""
    given = labels_of(pairs, "--limit")
    for kind, number in given.items():
        if kind not in KeyLimits.model_fields:
            raise typer.BadParameter(f"--limit must be one of {', '.join(KeyLimits.model_fields)}, not {kind!r}")
        if not (_WHOLE if kind in _COUNTS else _NUMBER).fullmatch(number) or not float(number):
            expected = "a whole number" if kind in _COUNTS else "a number"
            raise typer.BadParameter(f"--limit {kind} must be {expected} above 0, not {number!r}")
    return KeyLimits.model_validate(given) if given else None


@keys.command("list", epilog=examples("lavant keys list", "lavant keys list --tenant '*' --json"))
@command()
async def list_(client: AsyncClient, tenant: _Tenant = "", json: Json = False, header: Header = False) -> None:
    """List API keys, revoked ones included, without their secrets; tenant * lists those of all tenants."""
    await _KEYS.print(client.access.list_keys(tenant=tenant), json=json, header=header)


@keys.command(epilog=examples("lavant keys revoke aB3xY9kLm2Qr"))
@command()
async def revoke(
    client: AsyncClient,
    key: Annotated[str, typer.Argument(metavar="KEY", help="ID of the key, from its list.", show_default=False)],
    tenant: _Tenant = "",
) -> None:
    """Revoke an API key: servers refuse it within 5 seconds, and end its open streams."""
    revoked = await client.access.revoke_key(key, tenant=tenant)
    print(one_line(f"{revoked.id} ({revoked.name}) is revoked"))


def _state(key: APIKey) -> str:
    if key.revoked is not None:
        return "revoked"
    return "expired" if key.expires is not None and key.expires <= datetime.now(UTC) else "active"


def _row(key: APIKey) -> list[str]:
    return [key.id, key.name, key.tenant, _state(key), ",".join(key.scopes), "some" if key.restriction else "all"]


_COLUMNS = ("key", "name", "tenant", "state", "scopes", "runs")
_KEYS = Listing(
    columns=_COLUMNS,
    row=_row,
    headings=(*map(str.upper, _COLUMNS), "AGE"),
    cells=lambda key: [*_row(key), age(key.created, datetime.now(UTC)) if key.created else ""],
    empty="there are no keys",
)
