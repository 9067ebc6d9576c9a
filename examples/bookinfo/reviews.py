"""``reviews``: what two readers wrote. Version 1 comes without ratings, 2 with black stars, 3 with red ones.

Version 3 can be made bad, for a rollout to find out: ``BOOKINFO_REVIEWS_V3=errors`` fails its calls, ``slow`` delays
them, and ``errors:30%`` or ``slow:30%`` so many of them.
"""

from __future__ import annotations

import os
import random
import re
from typing import Literal

import anyio

from nats_mesh import ApplicationError, ConfigError, Context, MeshError, Service, Status

from .forwarding import forwarded
from .model import FIRST, Color, ProductId, Rating, Ratings, Review, Reviews

__all__ = ["TROUBLE_VARIABLE", "Trouble", "make", "trouble", "v1", "v2", "v3"]

#: What is wrong with version 3.
TROUBLE_VARIABLE = "BOOKINFO_REVIEWS_V3"
#: How long a slow answer takes (seconds): less than the page waits, and much more than usual.
_SLOW_S = 1.0
_TROUBLE = re.compile(r"(errors|slow)(?::(\d{1,3})%)?")

#: A kind of trouble, and which share of the calls has it.
Trouble = tuple[Literal["errors", "slow"], float]

_TEXTS = {
    "Reviewer1": "An extremely entertaining play by Shakespeare. The slapstick humour is refreshing!",
    "Reviewer2": "Absolutely fun and entertaining. The play lacks thematic depth when compared to other plays by "
    "Shakespeare.",
}
_NO_RATINGS = Rating(error="Ratings service is currently unavailable")
#: How long to wait for the ratings, in seconds: longer with black stars, a difference that a delay brings to light.
_PATIENCE_S: dict[Color, float] = {"black": 10.0, "red": 2.5}


def trouble(text: str) -> Trouble | None:
    """What ``errors``, ``slow``, ``errors:30%`` … means; nothing where nothing is said."""
    if not text:
        return None
    match = _TROUBLE.fullmatch(text)
    if match is None or not 0 < int(match[2] or 100) <= 100:
        raise ConfigError(f"{TROUBLE_VARIABLE} is {text!r}; use errors, slow, errors:30% or slow:30%")
    return ("errors" if match[1] == "errors" else "slow", int(match[2] or 100) / 100)


def make(number: int, color: Color | None, bad: Trouble | None = None) -> Service:
    """One version; with a colour it asks ``ratings`` for the stars. ``bad`` is what is wrong with it."""
    service = Service(
        "reviews",
        version=f"{number}.0.0",
        labels={"version": f"v{number}"},
        description=f"What readers wrote, {f'with {color} stars' if color else 'without ratings'}.",
    )

    @service.endpoint(timeout=11.0, idempotent=True)
    async def get(ctx: Context, wanted: ProductId = FIRST) -> Reviews:
        """All reviews of a product; the sample has the same for each."""
        if bad is not None and random.random() < bad[1]:
            if bad[0] == "errors":
                raise ApplicationError("this version is broken", status=Status.INTERNAL)
            await anyio.sleep(_SLOW_S)
        stars = None if color is None else await _stars(ctx, wanted, color)
        return Reviews(
            id=wanted.id,
            podname=ctx.instance,
            clustername=ctx.namespace,
            reviews=tuple(
                Review(
                    reviewer=reviewer,
                    text=text,
                    rating=None if stars is None else stars.get(reviewer, _NO_RATINGS),
                )
                for reviewer, text in _TEXTS.items()
            ),
        )

    return service


async def _stars(ctx: Context, wanted: ProductId, color: Color) -> dict[str, Rating]:
    """The ratings by reviewer; empty where the service has none for us, which is no reason to hide the texts."""
    try:
        found = await ctx.call(
            "ratings.get",
            wanted,
            returns=Ratings,
            headers=forwarded(ctx),
            timeout=_PATIENCE_S[color],
            idempotent=False,  # all of that time for one attempt: that is the mistake which the sample shows
        )
    except MeshError as error:
        ctx.log.warning("no ratings: %s", error)
        return {}
    return {reviewer: Rating(stars=stars, color=color) for reviewer, stars in found.ratings.items()}


v1 = make(1, None)
v2 = make(2, "black")
v3 = make(3, "red", trouble(os.environ.get(TROUBLE_VARIABLE, "")))
