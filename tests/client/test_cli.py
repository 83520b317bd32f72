"""The command `lavant`."""

import pytest
from typer.testing import CliRunner

from lavant.client.cli._app import app


def test_serve_hands_its_flags_to_the_server(capsys: pytest.CaptureFixture[str]) -> None:
    result = CliRunner().invoke(app, ["serve", "--listen", "nowhere"])
    assert result.exit_code == 2
    assert "listen" in result.output + capsys.readouterr().err


def test_help_lists_the_commands() -> None:
    result = CliRunner().invoke(app, ["--help"])
    assert result.exit_code == 0
    assert "serve" in result.output
