"""What Bookinfo's services say to each other, in the shapes of the sample's published API."""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec

from nats_mesh import ApplicationError

__all__ = [
    "FIRST",
    "Color",
    "Details",
    "NewRatings",
    "NoSuchProductError",
    "Page",
    "Product",
    "ProductId",
    "Rating",
    "Ratings",
    "Review",
    "Reviews",
    "UnavailableError",
]

Color = Literal["black", "red"]
_Int32 = Annotated[int, msgspec.Meta(ge=0, le=2**31 - 1)]


class ProductId(msgspec.Struct, frozen=True):
    """Which product is asked for."""

    id: _Int32 = 0


#: The one product of the catalogue, which is meant where nothing is said.
FIRST = ProductId()


class Product(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """A line of the catalogue. ``description_html`` may hold tags."""

    id: int
    title: str
    description_html: str


class Details(msgspec.Struct, frozen=True, kw_only=True):
    """What is printed on a book's second page."""

    id: int
    author: str
    year: int
    type: str
    pages: int
    publisher: str
    language: str
    isbn_10: str = msgspec.field(name="ISBN-10")
    isbn_13: str = msgspec.field(name="ISBN-13")


class Ratings(msgspec.Struct, frozen=True):
    """Stars by reviewer."""

    id: int
    ratings: dict[str, int]


class NewRatings(msgspec.Struct, frozen=True):
    """Ratings to put in the place of a product's present ones: 1 to 5 stars by reviewer."""

    id: _Int32
    ratings: Annotated[dict[str, Annotated[int, msgspec.Meta(ge=1, le=5)]], msgspec.Meta(max_length=100)]


class Rating(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Stars and their colour, or the reason why there are none."""

    stars: int | None = None
    color: Color | None = None
    error: str | None = None


class Review(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What a reviewer wrote; ``rating`` is missing where reviews come without ratings."""

    reviewer: str
    text: str
    rating: Rating | None = None


class Reviews(msgspec.Struct, frozen=True, kw_only=True):
    """All reviews of a product. ``podname`` is the instance that answered, ``clustername`` its namespace."""

    id: int
    podname: str
    clustername: str
    reviews: tuple[Review, ...]


class Page(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """The whole page. What could not be had is missing, and ``errors`` says so under its name."""

    product: Product
    details: Details | None = None
    reviews: Reviews | None = None
    errors: dict[str, str] = {}


class NoSuchProductError(ApplicationError, status="NOT_FOUND"):
    """The catalogue has no product of this number."""

    id: int


class UnavailableError(ApplicationError, status="UNAVAILABLE"):
    """A service that the page is made of did not answer as it should; the status is that service's."""

    service_name: str
