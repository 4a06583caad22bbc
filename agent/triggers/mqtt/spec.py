"""Keys of the mqtt trigger, and the checks that need neither a socket nor a file.

Flow: function.yaml -> `agent.model.load` -> MqttSpec -> [mqtt trigger]. What a check here finds wrong is a ValueError
whose text starts with the key; the loader turns it into a SpecError that knows file and line.
"""

from __future__ import annotations

from typing import Annotated, ClassVar, NamedTuple
from urllib.parse import unquote, urlsplit

from msgspec import Meta, field

from agent.model.spec import Delivery, Duration, Spec, TriggerSpec

Qos = Annotated[int, Meta(ge=0, le=2)]

PORTS = {"tcp": 1883, "mqtt": 1883, "ssl": 8883, "mqtts": 8883, "tls": 8883}
TLS_SCHEMES = ("ssl", "mqtts", "tls")
VERSIONS = {"4": 4, "3.1.1": 4, "5": 5, "5.0": 5}
MAX_TEXT_BYTES = 65535
"""Of a topic, a filter or a client id: their length travels in two bytes."""


class Address(NamedTuple):
    """A broker's URL, taken apart. `text` is the URL without user and password: fit for logs and events."""

    host: str
    port: int
    tls: bool
    text: str
    username: str
    password: str


class Subscription(Spec, frozen=True, kw_only=True):
    """One topic filter; `qos` is the most the broker may deliver with. Default 0, as in nuclio."""

    topic: str
    qos: Qos = 0


class Announcement(Spec, frozen=True, kw_only=True):
    """A message of the trigger itself: its will, birth or goodbye."""

    topic: str
    payload: str = ""
    qos: Qos = 0
    retain: bool = False


class MqttSpec(TriggerSpec, frozen=True, kw_only=True):
    """nuclio's keys (`subscriptions`, `clientID`, `protocolVersion`) and what it lacks."""

    default_delivery: ClassVar[Delivery] = "at-least-once"
    default_order_key: ClassVar[str] = "topic"
    default_id_from: ClassVar[str] = "header:id"

    subscriptions: list[Subscription] = field(default_factory=list)
    client_id: str = ""  # empty: headrace-<function>-<trigger>-<device>
    protocol_version: int | float | str = 4
    password_file: str = ""
    clean_session: bool = False
    session_expiry: Duration = Duration(7 * 86400.0)  # MQTT 5 only
    receive_maximum: Annotated[int, Meta(ge=1, le=65535)] = 256  # unacknowledged messages, MQTT 5 only
    max_packet_bytes: Annotated[int, Meta(ge=1024, le=1 << 28)] = (16 << 20) + (128 << 10)
    keep_alive: Duration = Duration(30.0)
    connect_timeout: Duration = Duration(10.0)
    reconnect_delay: Duration = Duration(1.0)
    max_reconnect_delay: Duration = Duration(60.0)
    ca_file: str = ""
    cert_file: str = ""
    key_file: str = ""
    server_name: str = ""
    insecure_skip_verify: bool = False
    will: Announcement | None = None
    birth: Announcement | None = None
    goodbye: Announcement | None = None

    def __post_init__(self) -> None:
        address = self.address
        self._check_tls(address)
        self._check_credentials(address)
        self._check_version_and_times()
        if not self.subscriptions:
            raise ValueError("subscriptions: none given; give a list such as [{topic: sensors/#, qos: 1}]")
        for item in self.subscriptions:
            check_filter(item.topic)
        for key in ("will", "birth", "goodbye"):
            announcement = getattr(self, key)
            if announcement:
                check_topic(announcement.topic, f"{key}.topic")

    def __repr__(self) -> str:
        """Names the trigger and the broker; never the password, which may also stand in the URL."""
        return f"MqttSpec(name={self.name!r}, url={self.address.text!r}, client_id={self.client_id!r})"

    @property
    def address(self) -> Address:
        """The broker. Raises ValueError when `url` is not one."""
        return parse_url(self.url)

    @property
    def version(self) -> int:
        """4 for MQTT 3.1.1, 5 for MQTT 5."""
        return VERSIONS[str(self.protocol_version)]

    def _check_tls(self, address: Address) -> None:
        keys = {"caFile": self.ca_file, "certFile": self.cert_file, "keyFile": self.key_file}
        given = [key for key, value in keys.items() if value]
        if given and not address.tls:
            raise ValueError(f"{given[0]}: has no effect with url {address.text!r}; write ssl:// to use TLS")
        if self.key_file and not self.cert_file:
            raise ValueError("keyFile: is of no use without certFile; give both")

    def _check_credentials(self, address: Address) -> None:
        if self.password and self.password_file:
            raise ValueError("passwordFile: given together with password; keep one of them")
        if (self.password or self.password_file) and not (self.username or address.username):
            raise ValueError("username: missing, though a password is given; MQTT has no password without a user")

    def _check_version_and_times(self) -> None:
        if str(self.protocol_version) not in VERSIONS:
            raise ValueError(
                f"protocolVersion: {self.protocol_version!r} is not spoken here; use 4 (MQTT 3.1.1) or 5 (MQTT 5)"
            )
        if len(self.client_id.encode()) > MAX_TEXT_BYTES:
            raise ValueError("clientID: longer than 65535 bytes")
        if self.keep_alive and not 1 <= self.keep_alive <= 65535:
            raise ValueError("keepAlive: must be 0 (none) or from 1s to 65535s")
        for key, value in (("connectTimeout", self.connect_timeout), ("reconnectDelay", self.reconnect_delay)):
            if value <= 0:
                raise ValueError(f"{key}: must be more than 0s")
        if self.max_reconnect_delay < self.reconnect_delay:
            raise ValueError("maxReconnectDelay: is less than reconnectDelay")


def parse_url(url: str) -> Address:
    """`tcp://user:password@host:port` and its kin. Raises ValueError; the text never repeats a password."""
    if not url:
        raise ValueError("url: missing; give the broker as tcp://host:1883 or ssl://host:8883")
    if "://" not in url:
        raise ValueError(f"url: {url.rpartition('@')[2]!r} has no scheme; write tcp://host:1883 or ssl://host:8883")
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError as error:
        raise ValueError("url: the port is not a number from 1 to 65535, or a bracket is missing") from error
    if parts.scheme in ("ws", "wss"):
        raise ValueError("url: MQTT over websockets is not supported; use the broker's tcp:// or ssl:// listener")
    if parts.scheme not in PORTS:
        raise ValueError(f"url: unknown scheme {parts.scheme!r}; known: {', '.join(PORTS)}")
    if not parts.hostname or port == 0 or parts.path.strip("/") or parts.query or parts.fragment:
        raise ValueError("url: must be scheme://host or scheme://host:port and nothing behind it")
    port = port or PORTS[parts.scheme]
    host = f"[{parts.hostname}]" if ":" in parts.hostname else parts.hostname
    text = f"{parts.scheme}://{host}:{port}"
    user, password = unquote(parts.username or ""), unquote(parts.password or "")
    return Address(parts.hostname, port, parts.scheme in TLS_SCHEMES, text, user, password)


def check_filter(text: str) -> None:
    """Raises ValueError unless `text` is a topic filter, or a shared one (`$share/group/filter`)."""
    where = f"subscriptions: topic {text!r}"
    rest = text
    if text.startswith("$share/"):
        group, slash, rest = text.removeprefix("$share/").partition("/")
        if not group or not slash or not rest or "+" in group or "#" in group:
            raise ValueError(f"{where}: a shared subscription is $share/<group>/<filter>, the group without + and #")
    if not rest or "\0" in rest or len(text.encode()) > MAX_TEXT_BYTES:
        raise ValueError(f"{where}: a filter has 1 to 65535 bytes and no zero byte")
    levels = rest.split("/")
    if any("#" in level for level in levels[:-1]) or ("#" in levels[-1] and levels[-1] != "#"):
        raise ValueError(f"{where}: # stands alone as the last level, as in sensors/#")
    if any("+" in level and level != "+" for level in levels):
        raise ValueError(f"{where}: + stands alone in its level, as in sensors/+/temperature")


def check_topic(text: str, key: str) -> None:
    """Raises ValueError unless a message can be published to `text`."""
    if not text or "\0" in text or "+" in text or "#" in text or len(text.encode()) > MAX_TEXT_BYTES:
        raise ValueError(f"{key}: {text!r} is not a topic; it has 1 to 65535 bytes and none of + # or zero")
