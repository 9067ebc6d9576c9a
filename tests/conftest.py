"""Settings shared by all tests: the event loop and Hypothesis' profiles."""

import os

import pytest
from hypothesis import HealthCheck, settings

from tests.compiled import PURE_ONLY, UNDER_TEST, problem_of_this_run
from tests.harness import KNOWN_LIMITS
from tests.tools import is_full_run

# Derandomised, so that a run is repeatable; no database, so that it leaves nothing behind; no deadline,
# because nothing is timed on a wall clock that other programs share.
settings.register_profile(
    "ci",
    max_examples=50,
    stateful_step_count=30,
    derandomize=True,
    database=None,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow],
)
settings.register_profile(
    "full", parent=settings.get_profile("ci"), max_examples=2000, stateful_step_count=100
)
# Neither this process nor those it starts leave policies in the user's cache.
os.environ.setdefault("MESH_CACHE_DIR", "off")

settings.load_profile("full" if is_full_run() else "ci")


@pytest.fixture(scope="session")
def anyio_backend() -> str:
    """The one event loop there is to test on: nats-py knows asyncio alone.

    Of session scope, so that fixtures of any scope may be async.
    """
    return "asyncio"


def pytest_sessionstart() -> None:
    """A run that is to test the compiled modules tests no others."""
    if os.environ.get(UNDER_TEST) and (problem := problem_of_this_run()):
        pytest.exit(f"this run would not test the compiled modules: {problem}", returncode=4)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """What a transport is known not to do must fail; what compiled modules cannot show is skipped. What takes minutes
    comes first: at the end all others would wait for it."""
    items.sort(key=lambda item: "/test_wheel.py::" not in item.nodeid)
    for item in items:
        for end, reason in PURE_ONLY.items() if os.environ.get(UNDER_TEST) else ():
            if item.nodeid.partition("[")[0].endswith(end) or item.nodeid.startswith(end):
                item.add_marker(pytest.mark.skip(reason=f"not for compiled modules: {reason}"))
        for end, reason in KNOWN_LIMITS.items():
            if item.nodeid.endswith(end):
                item.add_marker(pytest.mark.xfail(reason=reason, strict=True))
