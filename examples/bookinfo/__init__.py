"""Istio's Bookinfo as mesh services: a book's page put together from details, reviews and ratings.

The data and the behaviour are those of the public sample; the code is written for the mesh. The modules
import each other relatively, because the command line ships them under another name for its demo.
"""

from __future__ import annotations

import importlib

from nats_mesh import ConfigError, Service

__all__ = ["ALL", "DEFAULT", "load"]

#: What the sample starts by default, callees first: ``module:version``.
DEFAULT = ("ratings:v1", "details:v1", "reviews:v1", "reviews:v2", "reviews:v3", "productpage:v1")
#: Everything there is.
ALL = (*DEFAULT, "ratings:v2", "ratings:v2-mysql", "details:v2")


def load(name: str) -> Service:
    """The service called ``module:version``; :class:`ConfigError` where there is none."""
    if name not in ALL:
        raise ConfigError(f"Bookinfo has no {name!r}; it has: {', '.join(sorted(ALL))}")
    module, _, version = name.partition(":")
    service: Service = getattr(importlib.import_module(f".{module}", __name__), version.replace("-", "_"))
    return service
