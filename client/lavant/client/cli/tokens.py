"""`lavant tokens`: access tokens, short-lived credentials to read some runs."""

from typing import Annotated

import typer

from lavant.client import AsyncClient
from lavant.client.cli.groups import examples, group
from lavant.client.cli.options import Json, labels_of, seconds_of, usage_error
from lavant.client.cli.output import print_json
from lavant.client.cli.session import command

_Texts = list[str] | None

tokens = group("tokens", "Create access tokens for browsers.")


@tokens.command(
    epilog=examples(
        "lavant tokens create --run 0199...",
        "lavant tokens create --conversation chat-7 --name user-17 --lifetime 15m",
    )
)
@command()
async def create(
    client: AsyncClient,
    run: Annotated[_Texts, typer.Option("--run", metavar="RUN", help="For this run; may be repeated.")] = None,
    run_name: Annotated[
        _Texts, typer.Option("--run-name", metavar="NAME", help="For runs of this name; a trailing * is a wildcard.")
    ] = None,
    label: Annotated[_Texts, typer.Option("--label", metavar="KEY=VALUE", help="For runs with this label.")] = None,
    conversation: Annotated[str, typer.Option("--conversation", metavar="ID", help="For runs of this one.")] = "",
    lifetime: Annotated[
        str, typer.Option("--lifetime", metavar="DURATION", help="Time until it expires, up to 1h, such as 15m.")
    ] = "15m",
    name: Annotated[str, typer.Option("--name", metavar="NAME", help="Whom it is for, such as a user's ID.")] = "",
    json: Json = False,
) -> None:
    """Create an access token to read some runs, and print it."""
    try:
        created = await client.access.create_token(
            run_ids=run or (),
            names=run_name or (),
            labels=labels_of(label),
            conversation_id=conversation,
            lifetime=seconds_of(lifetime, "--lifetime"),
            name=name,
        )
    except ValueError as error:
        raise usage_error(error) from None
    if json:
        print_json(created)
    else:
        print(created.token)


@tokens.callback()
def _group() -> None:
    """Create access tokens for browsers."""
