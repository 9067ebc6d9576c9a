"""Pages with terminal sessions in them, run as they stand there and held against what they show.

A block ```` ```console ```` has commands behind `$ ` (and `> ` where they go on) and what they print, stdout and
stderr as they come. `…` stands for anything within a line, and alone on a line for any lines. A tally (`     20 black`,
as `uniq -c` writes it) and a share (`12%`) may be off by five points.
"""

from __future__ import annotations

import re
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path

import msgspec

__all__ = ["Command", "blocks_of", "check", "commands_of", "run_commands", "sections_of", "unlike"]

#: By how much a share may be off (of 1).
TOLERANCE = 0.05
#: How long all commands of one session may take before it fails instead of hanging (seconds).
PATIENCE_S = 240.0

_TALLY = re.compile(r" +(\d+) (\w+)")
_SHARE = re.compile(r"\d+(?: +)\((\d+(?:\.\d+)?)%\)")
_MARK = "\x1e"


class Command(msgspec.Struct, frozen=True):
    """A command, and the lines that it is said to print."""

    text: str
    shown: tuple[str, ...]


def sections_of(page: str, level: str) -> dict[str, str]:
    """The sections of a page under their headings of one level (`## `); what is above the first is left out."""
    parts = re.split(rf"^{level} *([^#\n].*)$", page, flags=re.M)[1:]
    return {title.strip(): text for title, text in zip(parts[::2], parts[1::2], strict=True)}


def blocks_of(text: str, language: str) -> list[str]:
    """The fenced blocks of one language."""
    return re.findall(rf"^```{language}\n(.*?)^```", text, re.S | re.M)


def commands_of(text: str) -> list[Command]:
    """The commands of all `console` blocks, in order."""
    found: list[tuple[list[str], list[str]]] = []
    for block in blocks_of(text, "console"):
        assert block.startswith("$ "), f"a block begins with a command: {block[:60]!r}"
        for line in block.splitlines():
            if line.startswith("$ "):
                found.append(([line[2:]], []))
            elif line.startswith("> "):
                found[-1][0].append(line[2:])
            else:
                found[-1][1].append(line)
    return [Command("\n".join(lines), tuple(shown)) for lines, shown in found]


def run_commands(
    commands: Sequence[Command], env: Mapping[str, str], cwd: Path, patience_s: float = PATIENCE_S
) -> list[list[str]]:
    """Run the commands one after the other in one bash; what each printed."""
    script = "exec 2>&1\n" + "".join(f"{each.text}\nprintf '{_MARK}'\n" for each in commands)
    done = subprocess.run(
        ["bash", "-c", script],
        env=dict(env),
        cwd=cwd,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        text=True,
        check=False,
        timeout=patience_s,
    )
    outputs = done.stdout.split(_MARK)
    assert len(outputs) == len(commands) + 1, f"bash ended early: {done.stdout[-2000:]}"
    return [text.splitlines() for text in outputs[:-1]]


def check(commands: Sequence[Command], outputs: Sequence[Sequence[str]]) -> None:
    """Fail with everything that was shown and not seen."""
    wrong = []
    for command, printed in zip(commands, outputs, strict=True):
        if reason := unlike(command.shown, printed):
            shown = "\n".join(command.shown)
            seen = "\n".join(printed)
            wrong.append(f"$ {command.text}\n-- {reason}; shown:\n{shown}\n-- printed:\n{seen}\n")
    assert not wrong, "\n" + "\n".join(wrong)


def unlike(shown: Sequence[str], printed: Sequence[str]) -> str:
    """Why this is not what is shown; empty where it is."""
    tally, seen = _tally(shown), _tally(printed)
    if tally is not None:
        if seen is None or set(tally) != set(seen):
            return "another tally"
        total, total_seen = sum(tally.values()), sum(seen.values())
        if total != total_seen:
            return f"counts {total_seen} and not {total}"
        off = [name for name in tally if abs(tally[name] - seen[name]) > TOLERANCE * total]
        return f"off by more than {TOLERANCE:.0%} at {', '.join(off)}" if off else ""
    return "" if _match(shown, printed) else "other lines"


def _tally(lines: Sequence[str]) -> dict[str, int] | None:
    found = [_TALLY.fullmatch(line) for line in lines]
    if not found or None in found:
        return None
    return {match[2]: int(match[1]) for match in found if match is not None}


def _match(shown: Sequence[str], printed: Sequence[str]) -> bool:
    """Line by line; `…` alone takes as many lines as it must."""
    if not shown:
        return not printed
    if shown[0].strip() == "…":
        return any(_match(shown[1:], printed[skip:]) for skip in range(len(printed) + 1))
    return bool(printed) and _alike(shown[0], printed[0]) and _match(shown[1:], printed[1:])


def _alike(shown: str, printed: str) -> bool:
    pattern = re.escape(_SHARE.sub("@SHARE@", shown)).replace("…", ".*")
    match = re.fullmatch(pattern.replace("@SHARE@", r"\d+ +\((\d+(?:\.\d+)?)%\)"), printed)
    if match is None:
        return False
    shares = zip(_SHARE.findall(shown), match.groups(), strict=True)
    return all(abs(float(one) - float(other)) <= 100 * TOLERANCE for one, other in shares)
