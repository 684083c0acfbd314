"""What `skyreels serve` prints is true."""

from __future__ import annotations

import json
import re

from deployments.cli.serve import example
from tests.unit.deployments.api.conftest import Edge


async def test_the_printed_curl_is_accepted(edge: Edge) -> None:
    found = re.search(r"-d '(\{.*\})'", example("http://edge"))
    assert found is not None
    response = await edge.client.post("/v1/videos", json=json.loads(found[1]))
    assert response.status_code == 200, response.text
    assert response.json()["size"] == "112x64"
