from collections.abc import Iterator

import pytest

from deploy.local import LocalService

FAKE = {"HDB_ENGINE": "worker.testing:FakeEngine", "HDB_WEBHOOKS_ALLOW_PRIVATE": "true"}


@pytest.fixture(scope="session")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalService]:
    """The whole service, with the fake engine in the worker."""
    with LocalService(tmp_path_factory.mktemp("service"), environ=FAKE) as running:
        yield running
