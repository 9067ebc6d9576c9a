"""Levels that operators set: for a while, by logger, and taken back to what was there before anybody came."""

from __future__ import annotations

import logging
from collections.abc import Iterator

import anyio
import pytest

from nats_mesh.discovery.commands import LogLevel, decode_command, encode
from nats_mesh.errors import ConfigError
from nats_mesh.serving.log_levels import LogLevels
from nats_mesh.testing import run_virtual
from nats_mesh_cli.errors import CliError
from nats_mesh_cli.operate import level_command

NAME = "nats_mesh.test_log_levels"


@pytest.fixture(autouse=True)
def logger() -> Iterator[logging.Logger]:
    """A logger of its own, at WARNING, as nobody has touched it; it is again so after the test."""
    logger = logging.getLogger(NAME)
    logger.setLevel("WARNING")
    yield logger
    LogLevels(_nothing).reset(NAME)
    logger.setLevel(logging.NOTSET)


def _nothing(name: str, level: str) -> None:
    """Nobody is told."""


def test_a_level_goes_back_when_its_time_is_over(logger: logging.Logger) -> None:
    """To what it was before, and that is told; a level for good stays."""

    async def main() -> None:
        ended: list[tuple[str, str]] = []
        levels = LogLevels(lambda name, level: ended.append((name, level)))
        said = levels.set(NAME, "DEBUG", 60.0)
        assert "logs DEBUG and above now, before it was WARNING; in 60 s" in said
        await anyio.sleep(59.0)
        assert (logger.level, ended) == (logging.DEBUG, [])
        await anyio.sleep(2.0)
        assert (logger.level, ended) == (logging.WARNING, [(NAME, "WARNING")])
        levels.set(NAME, "ERROR", None)
        await anyio.sleep(36_000.0)
        assert logger.level == logging.ERROR

    run_virtual(main)


def test_a_second_word_replaces_the_first_and_its_time(logger: logging.Logger) -> None:
    """What it goes back to is what was there before the first one."""

    async def main() -> None:
        levels = LogLevels(_nothing)
        levels.set(NAME, "DEBUG", 60.0)
        levels.set(NAME, "ERROR", 600.0)
        await anyio.sleep(100.0)
        assert logger.level == logging.ERROR
        await anyio.sleep(600.0)
        assert logger.level == logging.WARNING

    run_virtual(main)


def test_of_two_instances_of_a_process_the_last_word_counts(logger: logging.Logger) -> None:
    """The time of the first one's word being over changes nothing of what the second said."""

    async def main() -> None:
        first, second = LogLevels(_nothing), LogLevels(_nothing)
        first.set(NAME, "DEBUG", 60.0)
        second.set(NAME, "ERROR", 600.0)
        await anyio.sleep(100.0)
        assert logger.level == logging.ERROR
        first.close()
        assert logger.level == logging.ERROR
        second.close()
        assert logger.level == logging.WARNING

    run_virtual(main)


def test_a_level_is_taken_back_at_once(logger: logging.Logger) -> None:
    """Also one that was set for good; where nobody changed it nothing is done."""
    levels = LogLevels(_nothing)
    levels.set(NAME, "DEBUG", None)
    assert "logs WARNING and above again, before it was DEBUG" in levels.reset(NAME)
    assert logger.level == logging.WARNING
    assert "nobody has changed it" in levels.reset(NAME)


def test_a_logger_that_is_not_there_is_not_made() -> None:
    """It would change nothing and stay for ever; what is near is named."""
    levels = LogLevels(_nothing)
    with pytest.raises(ConfigError, match=f"did you mean {NAME}"):
        levels.set(f"{NAME}s", "DEBUG", None)
    with pytest.raises(ConfigError, match="no logger"):
        levels.reset("zzzz.unheard-of")
    assert f"{NAME}s" not in logging.root.manager.loggerDict


def test_options_become_a_command() -> None:
    """Levels in any case; ``reset``; a time in milliseconds; what is no level is told with those there are."""
    assert level_command("debug", logger="root", for_s=5.0) == LogLevel(
        level="DEBUG", logger="root", for_ms=5000.0
    )
    assert level_command("Reset", logger="a", for_s=5.0) == LogLevel(level="RESET", logger="a")
    command = level_command("INFO", logger="nats_mesh", for_s=None)
    assert decode_command(encode(command)) == LogLevel(level="INFO")
    with pytest.raises(CliError) as caught:
        level_command("loud", logger="nats_mesh", for_s=None)
    assert "debug, info" in caught.value.hint
    with pytest.raises(CliError, match="no name of a logger"):
        level_command("info", logger="a b", for_s=None)


@pytest.mark.parametrize(
    "more", ['"logger":""', '"logger":"a b"', '"for_ms":0', '"for_ms":1e12', '"logger":"' + "x" * 201 + '"']
)
def test_a_command_that_cannot_be_meant_is_told_why(more: str) -> None:
    """Names and times within their bounds."""
    with pytest.raises(ConfigError, match="log-level"):
        decode_command(f'{{"version":1,"command":"log-level","level":"INFO",{more}}}'.encode())
