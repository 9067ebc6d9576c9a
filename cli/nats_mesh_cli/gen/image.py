"""How the image of the compose stack's services is built, as texts."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

__all__ = ["IMAGE"]

_DOCKERFILE: Final = """\
# nats-mesh with the Bookinfo example: every package from a lock file with hashes, \
run by a user without rights.
# Build context: the checkout (compose.yaml names it).

FROM python:3.11.13-slim-bookworm AS build
WORKDIR /build
COPY requirements/dev.lock requirements/
RUN pip install --no-cache-dir --disable-pip-version-check --require-hashes -r requirements/dev.lock
COPY pyproject.toml hatch_build.py README.md LICENSE ./
COPY nats_mesh nats_mesh
COPY cli cli
COPY examples examples
RUN pip wheel --no-cache-dir --no-deps --no-build-isolation --wheel-dir /wheels .

FROM python:3.11.13-slim-bookworm
ENV PYTHONUNBUFFERED=1
COPY requirements/runtime.lock /tmp/
RUN pip install --no-cache-dir --disable-pip-version-check --require-hashes -r /tmp/runtime.lock
COPY --from=build /wheels /wheels
RUN pip install --no-cache-dir --disable-pip-version-check --no-deps /wheels/*.whl \\
    && useradd --system --no-create-home --uid 10001 mesh
WORKDIR /app
COPY examples examples
USER mesh
ENTRYPOINT ["nats-mesh"]
"""
#: Docker reads it beside the Dockerfile, by its name.
_IGNORED: Final = """\
# Only what the image is built from is sent to the builder.
*
!cli
!examples
!nats_mesh
!requirements
!LICENSE
!README.md
!hatch_build.py
!pyproject.toml
**/__pycache__
"""
#: The files by their names.
IMAGE: Final[Mapping[str, str]] = {"Dockerfile": _DOCKERFILE, "Dockerfile.dockerignore": _IGNORED}
