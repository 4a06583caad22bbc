"""The outbox's tables: what is written is what is read, and a commit may be made again."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from pathlib import Path

import pytest

from agent.model.outlet import Message, Parcel
from agent.processor.delivery.codec import Damaged
from agent.processor.delivery.recovery import open_or_recover
from agent.processor.delivery.schema import connect, open_database
from agent.processor.outbox.storage import Changes, decode, encode, expire, page, register

MESSAGE = Message("räume/1", b"\x00\xff", 2, True, [("unit", "°C")], "k")


@pytest.fixture
def database(tmp_path: Path) -> Iterator[sqlite3.Connection]:
    found = open_database(tmp_path / "delivery.db")
    yield found
    found.close()


def parcel(number: int, topic: str = "t", size: int = 10, at: int = 5) -> Parcel:
    return Parcel(number, at, Message(topic, b"%d" % number), size)


def insert(database: sqlite3.Connection, target: int, *parcels: Parcel) -> None:
    Changes(inserts=[(target, item) for item in parcels]).write(database)


def test_a_message_comes_back_as_it_was() -> None:
    assert decode(encode(MESSAGE)) == MESSAGE


def test_a_changed_message_is_known_as_such() -> None:
    record = bytearray(encode(MESSAGE))
    record[-1] ^= 1
    with pytest.raises(Damaged):
        decode(bytes(record))


def test_targets_keep_their_numbers_and_count_on(database: sqlite3.Connection) -> None:
    one, two = register(database, ["a", "b"])["a"], register(database, ["a", "b"])["b"]
    assert (one.count, one.next_number, two.next_number) == (0, 1, 1)
    insert(database, one.target, parcel(1), parcel(2, "u"))
    Changes(removed=[(one.target << 40) + 1, (one.target << 40) + 2]).write(database)
    again = register(database, ["b", "a", "c"])
    assert (again["a"].target, again["a"].next_number, again["a"].count) == (one.target, 3, 0)


def test_what_is_there_is_summed_up(database: sqlite3.Connection) -> None:
    number = register(database, ["a", "b"])["b"].target
    insert(database, number, parcel(1, at=9), parcel(2, "u", 20, at=3), parcel(3))
    found = register(database, [])["b"]
    assert (found.count, found.size, found.first_at, found.next_number) == (3, 40, 3, 4)
    assert found.keys == {"t": 2, "u": 1}


def test_pages_go_on_where_the_last_one_ended(database: sqlite3.Connection) -> None:
    targets = register(database, ["a", "b"])
    insert(database, targets["a"].target, *(parcel(n) for n in range(1, 8)))
    insert(database, targets["b"].target, parcel(1))
    first = page(database, targets["a"].target, 0, 3, 1 << 20)
    assert ([p.number for p in first.parcels], first.end) == ([1, 2, 3], 3)
    rest = page(database, targets["a"].target, first.end, 100, 1 << 20)
    assert [p.number for p in rest.parcels] == [4, 5, 6, 7]
    assert [p.number for p in page(database, targets["a"].target, 0, 100, 25).parcels] == [1, 2, 3]


def test_a_damaged_row_is_left_out_and_named(database: sqlite3.Connection) -> None:
    number = register(database, ["a"])["a"].target
    insert(database, number, parcel(1), parcel(2), parcel(3))
    database.execute("UPDATE outbox SET message = x'00112233445566' WHERE seq = ?", ((number << 40) + 2,))
    found = page(database, number, 0, 10, 1 << 20)
    assert ([p.number for p in found.parcels], found.damaged, found.end) == ([1, 3], [2], 3)


def test_a_commit_may_be_made_again(database: sqlite3.Connection) -> None:
    number = register(database, ["a"])["a"].target
    changes = Changes(inserts=[(number, parcel(1)), (number, parcel(2))], removed=[(number << 40) + 9])
    changes.write(database)
    changes.release(number, parcel(1))
    changes.write(database)
    found = page(database, number, 0, 10, 1 << 20).parcels
    assert [p.number for p in found] == [1, 2]
    Changes(released=[(number << 40) + 1]).write(database)
    assert [p.released for p in page(database, number, 0, 10, 1 << 20).parcels] == [True, False]


def test_only_what_is_too_old_expires(database: sqlite3.Connection) -> None:
    number = register(database, ["a"])["a"].target
    insert(database, number, parcel(1, at=1), parcel(2, at=100))
    assert expire(database, number, 50) == 1
    assert register(database, [])["a"].count == 1


def test_a_store_of_the_first_version_gets_the_tables(tmp_path: Path) -> None:
    from agent.processor.delivery.schema import MIGRATIONS

    old = connect(tmp_path / "old.db")
    old.executescript(f"BEGIN; {MIGRATIONS[0]} PRAGMA user_version=1; COMMIT;")
    old.execute("INSERT INTO triggers(name) VALUES('kept')")
    old.close()
    database = open_database(tmp_path / "old.db")
    assert register(database, ["a"])["a"].count == 0
    assert database.execute("SELECT name FROM triggers").fetchall() == [("kept",)]
    database.close()


def test_a_damaged_store_keeps_what_can_be_read(tmp_path: Path) -> None:
    path = tmp_path / "delivery.db"
    database = open_database(path)
    number = register(database, ["a"])["a"].target
    insert(database, number, *(parcel(n, "t" * 100) for n in range(1, 200)))
    database.close()
    data = bytearray(path.read_bytes())
    data[0:100] = bytes(100)  # the head of the file is gone
    path.write_bytes(data)
    database, recovered = open_or_recover(path, connect)
    assert recovered is not None
    assert register(database, ["a"])["a"].count == 199
    database.close()
