"""What the admin listener shows to whoever asks, without a login."""

from __future__ import annotations

import json
from typing import Any

import pytest

from agent.supervisor.admin import pages_of


class Subject:
    stopping = False

    async def statistics(self) -> dict[str, Any]:
        counted = {"kind": "http", "handled": 3, "last": "the customer's name"}
        return {"functions": {"lamp": {"state": "serving", "triggers": {"web": counted}}}}

    def unready(self) -> dict[str, str]:
        return {}


@pytest.mark.parametrize(("show_results", "last"), [(False, ""), (True, "the customer's name")])
async def test_what_functions_replied_is_shown_only_where_it_is_asked_for(show_results: bool, last: str) -> None:
    status, _, body = await pages_of(Subject(), show_results)["/statistics"]()
    shown = json.loads(body)["functions"]["lamp"]["triggers"]["web"]
    assert (status, shown) == (200, {"kind": "http", "handled": 3, "last": last})
