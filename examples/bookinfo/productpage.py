"""``productpage``: the page of a book, made of what ``details`` and ``reviews`` answer.

Where one of them fails the page comes without that part and says so, as the sample does.
"""

from __future__ import annotations

from typing import NoReturn, TypeVar

import anyio

from nats_mesh import CallError, Context, MeshError, Service, Status

from .forwarding import forwarded
from .model import (
    FIRST,
    Details,
    NoSuchProductError,
    Page,
    Product,
    ProductId,
    Ratings,
    Reviews,
    UnavailableError,
)

__all__ = ["productpage", "v1"]

T = TypeVar("T")

v1 = Service(
    "productpage",
    version="1.0.0",
    labels={"version": "v1"},
    description="A book's page: details, reviews, ratings.",
)
productpage = v1

_CATALOGUE = (
    Product(
        id=0,
        title="The Comedy of Errors",
        description_html='<a href="https://en.wikipedia.org/wiki/The_Comedy_of_Errors">Wikipedia Summary</a>: '
        "The Comedy of Errors is one of <b>William Shakespeare's</b> early plays. It is his shortest and one of his "
        "most farcical comedies, with a major part of the humour coming from slapstick and mistaken identity, in "
        "addition to puns and word play.",
    ),
)
#: How long to wait for each answer (seconds), and how often reviews are asked. Together the reviews may take
#: longer than a caller is used to wait: the sample has this mistake on purpose, for a delay to reveal.
_PATIENCE_S = 3.0
_REVIEW_TRIES = 2
#: Twice what a page may take: a call that is tried again gives each attempt half of its time.
_PAGE_TIMEOUT_S = 14.0


@v1.endpoint(timeout=_PAGE_TIMEOUT_S, idempotent=True, raises=NoSuchProductError)
async def page(ctx: Context, wanted: ProductId = FIRST) -> Page:
    """The whole page; details and reviews are asked at the same time."""
    product = _product(wanted)
    details: Details | None = None
    reviews: Reviews | None = None
    errors: dict[str, str] = {}

    async def with_details() -> None:
        nonlocal details
        try:
            details = await _details(ctx, wanted)
        except UnavailableError as error:
            errors["details"] = error.message

    async def with_reviews() -> None:
        nonlocal reviews
        try:
            reviews = await _reviews(ctx, wanted)
        except UnavailableError as error:
            errors["reviews"] = error.message

    async with anyio.create_task_group() as both:
        both.start_soon(with_details)
        both.start_soon(with_reviews)
    return Page(product=product, details=details, reviews=reviews, errors=errors)


@v1.endpoint(idempotent=True)
async def products() -> tuple[Product, ...]:
    """The catalogue."""
    return _CATALOGUE


@v1.endpoint(timeout=4.0, idempotent=True, raises=UnavailableError)
async def product(ctx: Context, wanted: ProductId = FIRST) -> Details:
    """The details of one product."""
    return await _details(ctx, wanted)


@v1.endpoint(timeout=_PAGE_TIMEOUT_S, idempotent=True, raises=UnavailableError)
async def reviews(ctx: Context, wanted: ProductId = FIRST) -> Reviews:
    """Its reviews, with ratings where the version that answers has them."""
    return await _reviews(ctx, wanted)


@v1.endpoint(timeout=4.0, idempotent=True, raises=UnavailableError)
async def ratings(ctx: Context, wanted: ProductId = FIRST) -> Ratings:
    """Its ratings alone."""
    return await _ask(ctx, "ratings", wanted, Ratings)


def _product(wanted: ProductId) -> Product:
    if wanted.id >= len(_CATALOGUE):
        raise NoSuchProductError(f"there is no product {wanted.id}", id=wanted.id)
    return _CATALOGUE[wanted.id]


async def _details(ctx: Context, wanted: ProductId) -> Details:
    return await _ask(ctx, "details", wanted, Details)


async def _reviews(ctx: Context, wanted: ProductId) -> Reviews:
    for _ in range(_REVIEW_TRIES - 1):
        try:
            return await _ask(ctx, "reviews", wanted, Reviews)
        except UnavailableError:
            continue  # logged where it was raised, and tried once more
    return await _ask(ctx, "reviews", wanted, Reviews)


async def _ask(ctx: Context, service: str, wanted: ProductId, returns: type[T]) -> T:
    try:
        # The patience is this program's, as in the sample, and not the call's: what policies say of the call holds.
        with anyio.fail_after(_PATIENCE_S):
            return await ctx.call(
                f"{service}.get",
                wanted,
                returns=returns,
                headers=forwarded(ctx),
                idempotent=False,  # all of that time for one attempt, as the sample's client gives it
            )
    except (MeshError, TimeoutError) as error:
        _give_up(ctx, service, error)


def _give_up(ctx: Context, service: str, error: MeshError | TimeoutError) -> NoReturn:
    ctx.log.warning("no %s: %s", service, str(error) or f"no answer within {_PATIENCE_S:g} s")
    status = error.status if isinstance(error, CallError) else Status.INTERNAL
    raise UnavailableError(
        f"Sorry, product {service} are currently unavailable for this book.",
        service_name=service,
        status=Status.DEADLINE_EXCEEDED if isinstance(error, TimeoutError) else status,
    ) from error
