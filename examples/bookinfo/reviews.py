"""``reviews``: what two readers wrote. Version 1 comes without ratings, 2 with black stars, 3 with red ones."""

from __future__ import annotations

from nats_mesh import Context, MeshError, Service

from .forwarding import forwarded
from .model import FIRST, Color, ProductId, Rating, Ratings, Review, Reviews

__all__ = ["v1", "v2", "v3"]

_TEXTS = {
    "Reviewer1": "An extremely entertaining play by Shakespeare. The slapstick humour is refreshing!",
    "Reviewer2": "Absolutely fun and entertaining. The play lacks thematic depth when compared to other plays by "
    "Shakespeare.",
}
_NO_RATINGS = Rating(error="Ratings service is currently unavailable")
#: How long to wait for the ratings, in seconds: longer with black stars, a difference that a delay brings to light.
_PATIENCE_S: dict[Color, float] = {"black": 10.0, "red": 2.5}


def _reviews(number: int, color: Color | None) -> Service:
    """One version; with a colour it asks ``ratings`` for the stars."""
    service = Service(
        "reviews",
        version=f"{number}.0.0",
        labels={"version": f"v{number}"},
        description=f"What readers wrote, {f'with {color} stars' if color else 'without ratings'}.",
    )

    @service.endpoint(timeout=11.0, idempotent=True)
    async def get(ctx: Context, wanted: ProductId = FIRST) -> Reviews:
        """All reviews of a product; the sample has the same for each."""
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


v1 = _reviews(1, None)
v2 = _reviews(2, "black")
v3 = _reviews(3, "red")
