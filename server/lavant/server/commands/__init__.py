"""Commands of `lavant` that need the server's dependencies; they import them only when they run."""

import typer

from lavant.client.cli.groups import Entry


def serve(context: typer.Context) -> None:
    """Run the server; `lavant serve --help` lists its options."""
    from lavant.server.commands.stores import server_only

    with server_only("server"):
        from lavant.server.__main__ import main
    raise typer.Exit(main(context.args))


def _entry(name: str, summary: str, *examples: str) -> Entry:
    return Entry(name=name, panel="Server", home=f"{__name__}.stores:{name}", summary=summary, examples=examples)


SERVER = (
    Entry(
        name="serve",
        panel="Server",
        home=f"{__name__}:serve",
        summary="Run the server; `lavant serve --help` lists its options.",
        settings={
            # The server reads its own options, --help included.
            "context_settings": {"allow_extra_args": True, "ignore_unknown_options": True, "help_option_names": []},
            "add_help_option": False,
        },
    ),
    _entry(
        "backup",
        "Back up a store into one file, even while a server uses it.",
        "lavant backup /backups/lavant.db",
        "lavant backup --store sqlite:////var/lib/lavant.db /backups/monday.db",
    ),
    _entry(
        "restore",
        "Restore a store from a backup; its server must be stopped.",
        "lavant restore /backups/lavant.db --store sqlite:////var/lib/lavant.db --force",
    ),
    _entry(
        "copy",
        "Copy a store from a file to NATS; its server must be stopped.",
        "lavant copy sqlite:///lavant.db nats://a:4222,b:4222,c:4222",
        "lavant copy sqlite:////var/lib/lavant.db nats://a:4222,b:4222,c:4222/prod --keep-epoch",
    ),
    _entry("store", "Create and check a store on NATS, and rotate the key of any store."),
)
