from collections.abc import Iterator
from typing import Any

import pytest

from tests.stand_ins import SmtpStandIn


@pytest.fixture
def post(settings: Any, db: None) -> Iterator[Any]:
    """The mail of a site that hands everything to a real SMTP server."""
    from tests.compliance.post import Post  # models can be imported only now

    with SmtpStandIn() as server:
        server.configure(settings)
        yield Post(server)
