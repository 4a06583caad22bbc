"""What the agent says of the five functions, and what that means beside what was sent.

Flow: agent's `/statistics` -> [observe] -> a row for each source -> table, report.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from agent.demo.producers import read_reply
from agent.model.errors import SourceUnavailable

SOURCES = ("http", "mqtt", "serial", "file", "cron")
ANSWER_S = 5.0


@dataclass(frozen=True, slots=True)
class Row:
    """One source as the agent sees it. Latencies in microseconds."""

    source: str
    function: str = ""
    up: bool = False
    why: str = "not started"
    address: str = ""
    handled: int = 0
    errors: int = 0
    p50_us: float = 0.0
    p99_us: float = 0.0
    last: str = ""


def rows_of(statistics: Mapping[str, Any]) -> dict[str, Row]:
    """One row for each source, in the order of SOURCES; an empty one where the agent does not know it yet."""
    rows = {source: Row(source) for source in SOURCES}
    for name, function in statistics.get("functions", {}).items():
        for trigger in function.get("triggers", {}).values():
            if trigger.get("kind") in rows:
                rows[trigger["kind"]] = _row(name, trigger)
    return rows


def _row(function: str, trigger: Mapping[str, Any]) -> Row:
    return Row(
        source=trigger["kind"],
        function=function,
        up=bool(trigger.get("up")),
        why=str(trigger.get("why", "")),
        address=str(trigger.get("address", "")),
        handled=int(trigger.get("handled", 0)),
        errors=int(trigger.get("failed", 0)),
        p50_us=float(trigger.get("p50_us", 0)),
        p99_us=float(trigger.get("p99_us", 0)),
        last=str(trigger.get("last", "")),
    )


def lost(row: Row, sent: int) -> int:
    """Events that left their source and that no handler has finished, for better or worse."""
    return max(0, sent - row.handled - row.errors)


def report(rows: Mapping[str, Row], sent: Mapping[str, int]) -> dict[str, Any]:
    """The document that `--json` prints."""
    return {
        "sources": {
            source: {
                "handled": row.handled,
                "errors": row.errors,
                "lost": lost(row, sent.get(source, 0)),
                "p50_us": round(row.p50_us),
                "p99_us": round(row.p99_us),
            }
            for source, row in rows.items()
        }
    }


def succeeded(document: Mapping[str, Any]) -> bool:
    """Every source was handled, and nothing was lost."""
    return all(source["handled"] > 0 and source["lost"] == 0 for source in document["sources"].values())


async def fetch_statistics(run: Path) -> dict[str, Any]:
    """Of the agent whose run folder this is; an empty document while it is still starting. Raises SourceUnavailable."""
    try:
        admin = json.loads((run / "admin.json").read_text())
        async with asyncio.timeout(ANSWER_S):
            return await _get(admin["host"], admin["port"], "/statistics")
    except (FileNotFoundError, ConnectionRefusedError):
        return {}
    except (OSError, ValueError, KeyError, asyncio.IncompleteReadError) as error:
        raise SourceUnavailable(f"the agent does not say how it is: {error!r}", where=str(run)) from error


async def _get(host: str, port: int, path: str) -> dict[str, Any]:
    reader, writer = await asyncio.open_connection(host, port)
    try:
        writer.write(f"GET {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n".encode())
        document = json.loads(await read_reply(reader))
        return document if isinstance(document, dict) else {}
    finally:
        writer.close()
