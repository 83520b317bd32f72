"""The commands."""

import typer

app = typer.Typer(name="lavant", help="Durable, resumable streams of what agents do.", no_args_is_help=True)


@app.callback()
def _commands() -> None:
    """Durable, resumable streams of what agents do."""


@app.command(
    context_settings={"allow_extra_args": True, "ignore_unknown_options": True, "help_option_names": []},
    add_help_option=False,
)
def serve(context: typer.Context) -> None:
    """Serve; `lavant serve --help` lists the server's own options."""
    try:
        from lavant.server.__main__ import main
    except ModuleNotFoundError as error:
        typer.echo(f"lavant: {error.name} is missing; pip install 'lavant[server]'", err=True)
        raise typer.Exit(1) from None
    raise typer.Exit(main(context.args))
