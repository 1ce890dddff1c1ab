"""Command lines that are parsed and not run."""

import argparse

import click
import pytest


class ParsedError(Exception):
    """The arguments were accepted."""


def stop_after_parsing(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let commands of click and of argparse raise ParsedError for arguments that they accept, instead of running."""
    parse = argparse.ArgumentParser.parse_args

    def parse_args(parser, arguments=None, namespace=None):
        parse(parser, arguments, namespace)
        raise ParsedError

    def invoke(command, ctx):
        if not isinstance(command, click.Group):  # a group goes on with the arguments of its subcommand
            raise ParsedError

    monkeypatch.setattr(argparse.ArgumentParser, "parse_args", parse_args)
    monkeypatch.setattr(click.Command, "invoke", invoke)
