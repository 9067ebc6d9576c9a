"""The README's picture of the web view, from a real run: `python -m tests.dashboard_picture docs/dashboard.png`.

Needs what the browser tests need: node with `npm ci` in tests/interop/js, and a Chromium.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from pathlib import Path

from nats_mesh.testing import NatsServer
from tests.browser import chromium
from tests.cli.program import Background, run_cli
from tests.dashboards import bookinfo

__all__ = ["take"]

#: How long the mesh runs before the picture, so that there is a minute of history to see (seconds).
_WARM_S = 45.0
_TROUBLE_S = 10.0


def take(file: Path, *, warm_s: float = _WARM_S, scheme: str = "dark") -> None:
    """Bookinfo under load; then ratings get into trouble, and one looks."""
    with NatsServer() as server, tempfile.TemporaryDirectory() as folder:
        env = {"NATS_URL": server.url, "MESH_NAMESPACE": "default"}
        with (
            bookinfo(env, Path(folder), rate=30),
            Background(["dashboard", "--port", "0"], env=env) as view,
            chromium() as browser,
        ):
            browser.open(view.wait_for("http://127.0.0.1:"), width=1280, height=660, scheme=scheme)
            browser.until("document.querySelectorAll('g.edge').length >= 4")
            time.sleep(warm_s)
            run_cli("fault", "ratings", "--abort", "UNAVAILABLE", "--share", "12%", "--for", "2m", env=env)
            time.sleep(_TROUBLE_S)
            browser.screenshot(file)


def main() -> None:
    """Write the picture to the file that is named."""
    parser = argparse.ArgumentParser(description="Take a picture of the web view.")
    parser.add_argument("file", type=Path, help="where to write the PNG")
    parser.add_argument("--seconds", type=float, default=_WARM_S, help="how long the mesh runs before")
    parser.add_argument("--scheme", choices=("dark", "light"), default="dark")
    chosen = parser.parse_args()
    take(chosen.file.resolve(), warm_s=chosen.seconds, scheme=chosen.scheme)
    sys.stderr.write(f"{chosen.file}: {chosen.file.stat().st_size} bytes\n")


if __name__ == "__main__":
    main()
