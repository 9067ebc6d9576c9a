"""Settings shared by all tests: the event loop and Hypothesis' profiles."""

import pytest
from hypothesis import HealthCheck, settings

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
settings.load_profile("full" if is_full_run() else "ci")


@pytest.fixture(scope="session")
def anyio_backend() -> str:
    """The one event loop there is to test on: nats-py knows asyncio alone.

    Of session scope, so that fixtures of any scope may be async.
    """
    return "asyncio"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """What a transport is known not to do must fail; the reasons stand in one table."""
    for item in items:
        for end, reason in KNOWN_LIMITS.items():
            if item.nodeid.endswith(end):
                item.add_marker(pytest.mark.xfail(reason=reason, strict=True))
