"""``details``: what is printed in the book. Version 2 asks a book service outside the mesh."""

from __future__ import annotations

import os
import re
import urllib.error
import urllib.request

import msgspec

from nats_mesh import Service

from .model import FIRST, Details, ProductId, UnavailableError

__all__ = ["details", "v1", "v2"]

#: Where version 2 asks; the ISBN is appended.
URL_VARIABLE = "BOOKINFO_BOOK_SERVICE"
_DEFAULT_URL = "https://www.googleapis.com/books/v1/volumes?q=isbn:"
_ISBN = "0486424618"  # an edition of which Shakespeare is the only author
_TIMEOUT_S = 5.0
_MAX_BYTES = 1024 * 1024

v1 = Service("details", version="1.0.0", labels={"version": "v1"}, description="What is printed in the book.")
v2 = Service(
    "details", version="2.0.0", labels={"version": "v2"}, description="The same, from a book service."
)
details = v1


@v1.endpoint("get", timeout=3.0, idempotent=True)
async def get(wanted: ProductId = FIRST) -> Details:
    """The details of a product; the sample has the same for each."""
    return Details(
        id=wanted.id,
        author="William Shakespeare",
        year=1595,
        type="paperback",
        pages=200,
        publisher="PublisherA",
        language="English",
        isbn_10="1234567890",
        isbn_13="123-1234567890",
    )


class _Identifier(msgspec.Struct):
    type: str
    identifier: str


class _Volume(msgspec.Struct, rename="camel"):
    authors: list[str]
    published_date: str
    publisher: str = "unknown"
    print_type: str = ""
    page_count: int = 0
    language: str = ""
    industry_identifiers: list[_Identifier] = []


class _Item(msgspec.Struct, rename="camel"):
    volume_info: _Volume


class _Answer(msgspec.Struct):
    items: list[_Item]


@v2.endpoint("get", timeout=6.0, idempotent=True, raises=UnavailableError)
def get_from_book_service(wanted: ProductId = FIRST) -> Details:
    """The details that the book service knows of one fixed ISBN. It blocks, so it runs in a thread."""
    url = os.environ.get(URL_VARIABLE, _DEFAULT_URL)
    if not url.startswith(("http://", "https://")):
        raise UnavailableError(f"${URL_VARIABLE} is no http address", service_name="book service")
    try:
        with urllib.request.urlopen(url + _ISBN, timeout=_TIMEOUT_S) as reply:
            book = msgspec.json.decode(reply.read(_MAX_BYTES), type=_Answer).items[0].volume_info
        year = re.match(r"[0-9]{4}", book.published_date)
        return Details(
            id=wanted.id,
            author=book.authors[0],
            year=int(year[0]) if year else 0,
            type="paperback" if book.print_type == "BOOK" else "unknown",
            pages=book.page_count,
            publisher=book.publisher,
            language="English" if book.language == "en" else "unknown",
            isbn_10=_isbn(book, "ISBN_10"),
            isbn_13=_isbn(book, "ISBN_13"),
        )
    except (OSError, msgspec.MsgspecError, IndexError) as error:
        raise UnavailableError(
            f"the book service did not answer as it should: {error}", service_name="book service"
        ) from error


def _isbn(book: _Volume, kind: str) -> str:
    return next(
        each.identifier for each in (*book.industry_identifiers, _Identifier(kind, "")) if each.type == kind
    )
