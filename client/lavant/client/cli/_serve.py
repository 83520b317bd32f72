"""`lavant serve`: runs the server, where it is installed."""

import typer


def serve(context: typer.Context) -> None:
    """Serve; `lavant serve --help` lists the server's own options."""
    try:
        from lavant.server.__main__ import main
    except ModuleNotFoundError as error:
        typer.echo(f"lavant: {error.name} is missing: pip install 'lavant[server]'", err=True)
        raise typer.Exit(1) from None
    raise typer.Exit(main(context.args))
