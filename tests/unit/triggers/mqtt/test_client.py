"""Pins what `client.py` relies on in paho: its one private name, and how its `loop_*` calls use the pipe."""

from __future__ import annotations

from typing import Any

import paho.mqtt.client as paho
import pytest

from agent.triggers.mqtt.client import Client, Pipe

CONNACK, SUBACK, PINGRESP = b"\x20\x02\x00\x00", b"\x90\x03\x00\x01\x01", b"\xd0\x00"


def opened(**callbacks: Any) -> tuple[Client, list[bytes]]:
    client = Client("me", 4, False)
    for name, function in callbacks.items():
        setattr(client, name, function)
    sent: list[bytes] = []
    client.connect_async("broker.invalid", 1883, 30)
    client.open(sent.append)
    return client, sent


def test_the_private_name_is_there_and_paho_uses_it() -> None:
    assert callable(paho.Client._create_socket)
    client, sent = opened()
    assert client.socket() is client.pipe
    assert sent[0][:10] == b"\x10\x0e\x00\x04MQTT\x04\x00" or sent[0][0] == 0x10


def test_whole_packets_go_out_at_once() -> None:
    client, sent = opened()
    client.handle(CONNACK)
    client.subscribe("a", 1)
    assert [packet[0] for packet in sent] == [0x10, 0x82]
    client.publish("b", b"x" * 100_000, 0)
    assert sent[-1][0] == 0x30 and len(sent[-1]) > 100_000
    assert not client.want_write()


def test_answers_reach_their_callbacks() -> None:
    heard: list[str] = []
    client, _ = opened(
        on_connect=lambda c, d, flags, reason, p: heard.append(f"connect {flags.session_present} {reason.is_failure}"),
        on_subscribe=lambda c, d, mid, codes, p: heard.append(f"subscribe {codes[0].value}"),
    )
    client.handle(b"\x20\x02\x01\x00")
    client.subscribe("a", 1)
    client.handle(SUBACK)
    assert heard == ["connect True False", "subscribe 1"]


def test_publish_from_inside_a_callback_is_sent() -> None:
    client, sent = opened()
    client.on_connect = lambda *_: client.publish("birth", b"", 1)
    client.handle(CONNACK)
    assert sent[-1][0] == 0x32


def test_a_refused_connection_is_told_and_not_retried() -> None:
    heard: list[str] = []
    client, sent = opened(
        on_connect=lambda c, d, flags, reason, p: heard.append(str(reason)),
        on_disconnect=lambda *_: heard.append("disconnected"),
    )
    client.handle(b"\x20\x02\x00\x05")
    assert heard == ["Not authorized", "disconnected"] and len(sent) == 1


def test_nonsense_ends_the_connection() -> None:
    heard: list[str] = []
    client, _ = opened(on_disconnect=lambda c, d, flags, reason, p: heard.append(reason.getName()))
    client.handle(CONNACK)
    client.handle(b"\xf0\x00")
    assert heard == ["Protocol error"]


def test_loss_is_told_once() -> None:
    heard: list[str] = []
    client, _ = opened(on_disconnect=lambda *_: heard.append("gone"))
    client.handle(CONNACK)
    client.lost()
    client.lost()
    assert heard == ["gone"]


def test_unacknowledged_publishes_are_sent_again_on_the_next_connection() -> None:
    client, _ = opened()
    client.handle(CONNACK)
    client.publish("a", b"once", 1)
    client.lost()
    again: list[bytes] = []
    client.open(again.append)
    client.handle(b"\x20\x02\x01\x00")
    assert [packet[0] for packet in again] == [0x10, 0x3A]


def test_pings_and_the_missing_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [1000.0]
    monkeypatch.setattr(paho, "time_func", lambda: now[0])
    heard: list[str] = []
    client, sent = opened(on_disconnect=lambda c, d, flags, reason, p: heard.append(reason.getName()))
    client.handle(CONNACK)
    now[0] += 31
    client.loop_misc()
    assert sent[-1] == b"\xc0\x00"
    client.handle(PINGRESP)
    now[0] += 31
    client.loop_misc()
    assert heard == []
    now[0] += 31
    client.loop_misc()
    assert set(heard) == {"Keep alive timeout"}


def test_pipe() -> None:
    pipe = Pipe()
    pipe.open(lambda data: None)
    with pytest.raises(BlockingIOError):
        pipe.recv(1)
    pipe.feed(b"abc")
    assert (pipe.recv(1), pipe.recv(9)) == (b"a", b"bc")
    pipe.end()
    assert pipe.recv(1) == b""
