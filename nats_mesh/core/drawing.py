"""The rules of one route, prepared once, so that a call asks each of its headers once and not each rule all of them.

:func:`nats_mesh.core.router.draw` says what a call matches; this says the same, and tests hold the two against each
other. Every distinct condition is a bit. What a call without headers meets is known beforehand; for each header that a
call has, the values, beginnings and ends that are looked for are found in dictionaries, and only regular expressions
and ranges are asked one by one, when a match needs them. A match is then one comparison.

Rejected: a tree over the headers. Rules are ordered, and the first one counts: with 200 of them the comparisons are a
few microseconds, and a tree that keeps their order would be most of this module.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Final

from nats_mesh.core.matcher import HeaderTest
from nats_mesh.core.router import Match, Rule, Values, key_of, standing

__all__ = ["Draws"]


class _Name:
    """The conditions on one header, as bits."""

    __slots__ = ("absent", "all", "begins", "ends", "exact", "inverted", "present", "slow")

    def __init__(self) -> None:
        self.all = 0
        #: Those that hold where the header is missing, and those that hold because it is there.
        self.absent = 0
        self.present = 0
        #: Those that look for one value, by that value; for a beginning or an end, by its length and itself. Of all
        #: three, those that hold where no value is so.
        self.exact: dict[str, int] = {}
        self.begins: dict[int, dict[str, int]] = {}
        self.ends: dict[int, dict[str, int]] = {}
        self.inverted = 0
        #: Those that have to be asked.
        self.slow = 0

    def held(self, values: Sequence[str]) -> int:
        """Those that hold for these values, of which there is one at least; without those that have to be asked."""
        met = 0
        for value in values:
            met |= self.exact.get(value, 0)
            for length, begins in self.begins.items():
                met |= begins.get(value[:length], 0)
            for length, ends in self.ends.items():
                met |= ends.get(value[max(0, len(value) - length) :], 0)
        return met ^ self.inverted | self.present


class _Match:
    """What a match needs: all of these bits, of which those have to be asked with their headers and tests."""

    __slots__ = ("match", "need", "slow")

    def __init__(self, match: Match, need: int, slow: tuple[tuple[int, str, HeaderTest], ...]) -> None:
        self.match = match
        self.need = need
        self.slow = slow


class Draws:
    """The first of ``rules`` that a call matches, as :func:`~nats_mesh.core.router.draw` has it."""

    def __init__(self, rules: Sequence[Rule]) -> None:
        self._bits: dict[HeaderTest, int] = {}
        self._names: dict[str, _Name] = {}
        #: What holds for a call that has none of these headers.
        self._bare = 0
        self._rules: Final = [(rule, [self._match(match) for match in rule.matches]) for rule in rules]
        for name in self._names.values():
            self._bare |= name.absent

    def first(
        self,
        names: Iterable[str],
        values: Values,
        caller: str,
        service: str,
        chance: Callable[[], float],
    ) -> Rule | None:
        """The rule for a call that has headers of these ``names`` and ``values``; see :func:`~.router.draw`."""
        held, unasked = self._bare, 0
        asked: dict[str, Sequence[str]] = {}
        known = self._names
        for name in names:
            lower = name.lower()
            about = known.get(lower)
            if about is None:
                continue
            found = values(name)
            if not found:
                continue
            held = held & ~about.all | about.held(found)
            if about.slow:
                unasked |= about.slow
                asked[lower] = found
        for rule, matches in self._rules:
            if not matches:
                return rule
            for each in matches:
                need = each.need
                if unasked & need:
                    if held & need != need & ~unasked:
                        continue
                    for bit, name, test in each.slow:
                        if unasked & bit:
                            unasked &= ~bit
                            if test.holds(asked[name]):
                                held |= bit
                            else:
                                break
                if held & need == need and _shared(rule, each.match, values, caller, service, chance):
                    return rule
        return None

    def _match(self, match: Match) -> _Match:
        need = 0
        slow: list[tuple[int, str, HeaderTest]] = []
        for test in match.headers:
            bit = self._bit(test)
            need |= bit
            if _is_slow(test):
                slow.append((bit, test.name.lower(), test))
        return _Match(match, need, tuple(slow))

    def _bit(self, test: HeaderTest) -> int:
        known = self._bits.get(test)
        if known is not None:
            return known
        bit = self._bits[test] = 1 << len(self._bits)
        name = self._names.setdefault(test.name.lower(), _Name())
        name.all |= bit
        if test.holds(()):
            name.absent |= bit
        if test.present is not None:
            if test.holds(("",)):
                name.present |= bit
        elif _is_slow(test):
            name.slow |= bit
        else:
            if test.exact is not None:
                _note(name.exact, test.exact, bit)
            elif test.prefix is not None:
                _note(name.begins.setdefault(len(test.prefix), {}), test.prefix, bit)
            elif test.suffix is not None:
                _note(name.ends.setdefault(len(test.suffix), {}), test.suffix, bit)
            if test.invert:
                name.inverted |= bit
        return bit


def _is_slow(test: HeaderTest) -> bool:
    """Whether it has to be asked of each value."""
    return test.present is None and test.exact is None and test.prefix is None and test.suffix is None


def _note(bits: dict[str, int], text: str, bit: int) -> None:
    bits[text] = bits.get(text, 0) | bit


def _shared(
    rule: Rule, match: Match, values: Values, caller: str, service: str, chance: Callable[[], float]
) -> bool:
    """Whether a call that meets all else is one of the share that a match is about."""
    if match.share is None:
        return True
    key = key_of(rule.sticky, values, caller)
    if key is None:
        return chance() < match.share
    return standing(rule, key, service) < match.share
