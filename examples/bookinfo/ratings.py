"""``ratings``: stars by reviewer. Version 1 keeps them in memory, version 2 reads them from a database.

Version 2 is there twice, as in the sample: ``v2``, and ``v2-mysql`` for the policies that name that subset. Here both
read SQLite.
"""

from __future__ import annotations

import contextlib
import os
import sqlite3
import tempfile
from collections.abc import AsyncIterator
from pathlib import Path

from nats_mesh import ApplicationError, Context, Service

from .model import FIRST, NewRatings, ProductId, Ratings

__all__ = ["make_v2", "ratings", "v1", "v2", "v2_mysql"]

#: The SQLite file that version 2 reads; without it, one with the sample's two rows is made for as long as it runs.
DATABASE_VARIABLE = "BOOKINFO_RATINGS_DB"
_REVIEWERS = ("Reviewer1", "Reviewer2")
_STARS = (5, 4)
_MAX_PRODUCTS = 1000


@contextlib.asynccontextmanager
async def _memory(_: Service) -> AsyncIterator[dict[int, dict[str, int]]]:
    yield {}


@contextlib.asynccontextmanager
async def _database(_: Service) -> AsyncIterator[Path]:
    named = os.environ.get(DATABASE_VARIABLE)
    if named:
        yield Path(named)
        return
    with tempfile.TemporaryDirectory(prefix="bookinfo-") as folder:
        path = Path(folder, "ratings.db")
        with contextlib.closing(sqlite3.connect(path)) as made:
            made.execute("CREATE TABLE ratings (review_id INTEGER PRIMARY KEY, rating INTEGER)")
            made.executemany("INSERT INTO ratings VALUES (?, ?)", enumerate(_STARS, 1))
            made.commit()
        yield path


v1 = Service(
    "ratings", version="1.0.0", labels={"version": "v1"}, lifespan=_memory, description="Stars by reviewer."
)
ratings = v1


@v1.endpoint("get", timeout=3.0, idempotent=True)
async def get(ctx: Context, wanted: ProductId = FIRST) -> Ratings:
    """The ratings that were put, or the sample's own."""
    return Ratings(wanted.id, ctx.state.get(wanted.id) or dict(zip(_REVIEWERS, _STARS, strict=True)))


@v1.endpoint("put", timeout=3.0, idempotent=True)
async def put(new: NewRatings, ctx: Context) -> Ratings:
    """Replace a product's ratings, at this instance and until it ends."""
    if new.id not in ctx.state and len(ctx.state) >= _MAX_PRODUCTS:
        raise ApplicationError(f"{_MAX_PRODUCTS} products have ratings already", status="RESOURCE_EXHAUSTED")
    ctx.state[new.id] = dict(new.ratings)
    return Ratings(new.id, ctx.state[new.id])


def make_v2(label: str) -> Service:
    """Version 2, with its label ``version``."""
    service = Service(
        "ratings",
        version="2.0.0",
        labels={"version": label},
        lifespan=_database,
        description="The same, from a database.",
    )

    @service.endpoint("get", timeout=3.0, idempotent=True)
    def get_from_database(ctx: Context, wanted: ProductId = FIRST) -> Ratings:
        """The first two ratings of the database, 0 where it has none. It blocks, so it runs in a thread."""
        try:
            with contextlib.closing(
                sqlite3.connect(f"{ctx.state.absolute().as_uri()}?mode=ro", uri=True)
            ) as database:
                rows = database.execute("SELECT rating FROM ratings ORDER BY review_id LIMIT 2").fetchall()
        except sqlite3.Error as error:
            ctx.log.warning("the ratings database cannot be read: %s", error)
            raise ApplicationError("could not connect to ratings database", status="INTERNAL") from error
        stars = [row[0] for row in rows] + [0, 0]
        return Ratings(wanted.id, dict(zip(_REVIEWERS, stars, strict=False)))

    @service.endpoint("put", timeout=3.0, idempotent=True)
    async def put_into_database(new: NewRatings) -> Ratings:
        """Refused, as in the sample."""
        raise ApplicationError("Post not implemented for database backed ratings", status="UNIMPLEMENTED")

    return service


v2 = make_v2("v2")
v2_mysql = make_v2("v2-mysql")
