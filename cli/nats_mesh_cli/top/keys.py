"""Keys as a terminal sends them, by name: ``up``, ``enter``, ``esc``, ``ctrl-z``, or the character itself. Pure."""

from __future__ import annotations

__all__ = ["KeyReader"]

_SEQUENCES = {
    "[A": "up", "[B": "down", "[C": "right", "[D": "left",
    "OA": "up", "OB": "down", "OC": "right", "OD": "left",
    "[H": "home", "[F": "end", "OH": "home", "OF": "end",
    "[1~": "home", "[7~": "home", "[4~": "end", "[8~": "end",
    "[5~": "pageup", "[6~": "pagedown", "[3~": "delete", "[Z": "backtab",
}  # fmt: skip
_CONTROLS = {
    "\r": "enter",
    "\n": "enter",
    "\t": "tab",
    "\x7f": "backspace",
    "\x08": "backspace",
    "\x0c": "ctrl-l",
    "\x15": "ctrl-u",
    "\x1a": "ctrl-z",
}
_ESCAPE = "\x1b"
_LONGEST = 16


class KeyReader:
    """Takes characters one by one. A sequence that begins with an escape is one key, or none where it is unknown."""

    def __init__(self) -> None:
        self._sequence = ""

    @property
    def waiting(self) -> bool:
        """Whether there is the beginning of a sequence, which may be the key ``esc`` itself: see :meth:`flush`."""
        return self._sequence != ""

    def feed(self, character: str) -> list[str]:
        """One more character; the keys that it completes."""
        if not self._sequence:
            if character == _ESCAPE:
                self._sequence = character
                return []
            name = _CONTROLS.get(character, character)
            return [name] if len(name) > 1 or name.isprintable() else []
        if character == _ESCAPE:
            return [*self.flush(), *self.feed(character)]
        self._sequence += character
        body = self._sequence[1:]
        if len(body) == 1 and character not in "[O":
            self._sequence = ""
            return ["esc", *self.feed(character)]
        if len(body) > 1 and "@" <= character <= "~":
            self._sequence = ""
            # A modifier stands before the letter ("[1;5A"): the key is the same.
            plain = body if body in _SEQUENCES else f"{body[0]}{body[-1]}" if ";" in body else ""
            return [_SEQUENCES[plain]] if plain in _SEQUENCES else []
        if len(self._sequence) > _LONGEST:
            self._sequence = ""
        return []

    def flush(self) -> list[str]:
        """Nothing came for a while: what waits was no sequence."""
        alone = self._sequence == _ESCAPE
        self._sequence = ""
        return ["esc"] if alone else []
