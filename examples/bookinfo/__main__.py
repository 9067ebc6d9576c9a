"""`python -m examples.bookinfo [module:version …]`: serve these in one process, or all that start by default.

`python -m examples.bookinfo all` serves every version there is.
"""

import sys

from nats_mesh import ConfigError, Service, run

from . import ALL, DEFAULT, load


def main(names: list[str]) -> None:
    """Serve until SIGINT or SIGTERM; a name that does not exist ends it with exit code 2."""
    if names == ["all"]:
        names = list(ALL)
    try:
        services: list[Service] = [load(name) for name in names or DEFAULT]
    except ConfigError as error:
        print(f"error: {error}", file=sys.stderr)
        raise SystemExit(2) from None
    run(*services)


if __name__ == "__main__":
    main(sys.argv[1:])
