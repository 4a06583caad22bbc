"""What a function is, as frozen values: nuclio's `function.yaml`, plus keys of our own where nuclio has none.

Values of these types have been checked by `agent.model.load`; the rest of the code trusts them. Keys in files are
camelCase and match without regard to case; fields here are the same names in snake_case.
"""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Literal

from msgspec import Meta, Struct, convert, field

from agent.model.quantity import Quantity, amount

Port = Annotated[int, Meta(ge=0, le=65535)]
"""TCP port; 0 means: pick a free one."""


class Duration(float):
    """Seconds, written in files as a Go duration ("500ms", "1s", "2m30s", "1h"). See `agent.model.duration`."""

    __slots__ = ()


class Spec(Struct, frozen=True, kw_only=True, rename="camel"):
    """Base of everything read from a file. Unknown keys are reported by `load`, which knows where they stand."""


class Batch(Spec, frozen=True, kw_only=True):
    """Collect events and hand them to the handler as one list."""

    mode: Literal["enable", "disable"] = "disable"
    batch_size: Annotated[int, Meta(ge=1, le=10_000)] = 10
    timeout: Duration = Duration(1.0)

    @property
    def enabled(self) -> bool:
        return self.mode == "enable"


class AsyncMode(Spec, frozen=True, kw_only=True):
    """Bounds of `mode: async`: how many events may be in flight in one worker at once."""

    max_connections_number: Annotated[int, Meta(ge=1, le=100_000)] = 1000


Delivery = Literal["at-most-once", "at-least-once", "effectively-once"]
"""at-most-once: acknowledged to the source before the handler runs. at-least-once: after it has succeeded.
effectively-once: the same, and an event whose id was handled before is acknowledged without running the handler.
"""

OrderKey = Annotated[str, Meta(pattern=r"^(topic|path|none|(header|field|body):.+)?$")]
"""Which events keep their order: those that agree in this. `body:NAME` is a member of a JSON body."""

IdSource = Annotated[str, Meta(pattern=r"^(message-id|(header|field|body):.+)?$")]
"""Where the id of an event stands that is the same when the source sends it again."""


class Journal(Spec, frozen=True, kw_only=True):
    """`journal`: events are on disk before they are acknowledged or dispatched."""

    commit_window: Duration | None = None  # events of so long share one write; None: 10ms where the source waits for
    # its acknowledgement, else 100ms
    max_bytes: Annotated[int, Meta(ge=65536, le=1 << 40)] = 64 << 20  # of events not handled yet
    max_age: Duration = Duration(7 * 86400.0)  # of an event not handled yet; time without power does not count
    when_full: Literal["block", "drop-oldest", "drop-newest"] = "block"
    share: Annotated[float, Meta(ge=0, le=1)] = 0.5  # of live events while older ones wait; 0: strictly in order
    min_free_bytes: Annotated[int, Meta(ge=0)] = 32 << 20  # of the disk: with less, intake stops
    min_free_percent: Annotated[float, Meta(ge=0, le=90)] = 1.0

    def __post_init__(self) -> None:
        if self.commit_window is not None and not 0 <= self.commit_window <= 1:
            raise ValueError("commitWindow: must be from 0s to 1s")
        if self.max_age <= 0:
            raise ValueError("maxAge: must be more than 0s")


class DeadLetters(Spec, frozen=True, kw_only=True):
    """`deadLetters`: bounds of what is kept of events whose last attempt has failed; the oldest goes first."""

    max_count: Annotated[int, Meta(ge=1, le=1_000_000)] = 1000
    max_bytes: Annotated[int, Meta(ge=65536, le=1 << 40)] = 16 << 20
    max_age: Duration = Duration(30 * 86400.0)


class IdWindow(Spec, frozen=True, kw_only=True):
    """`ids`: how long the ids of finished events are kept, under effectively-once."""

    max_count: Annotated[int, Meta(ge=1, le=10_000_000)] = 10_000  # about 120 bytes of memory each
    max_age: Duration = Duration(86400.0)
    max_answer_bytes: Annotated[int, Meta(ge=0, le=1 << 24)] = 65536  # of a reply kept for a repeated HTTP request


class TriggerSpec(Spec, frozen=True, kw_only=True):
    """The keys every trigger has. A kind adds its own by subclassing; in files those may stand under `attributes`, as
    nuclio writes them, or beside the common keys.
    """

    name: str = ""
    kind: str
    class_: str = field(default="", name="class")
    disabled: bool = False
    num_workers: Annotated[int, Meta(ge=1, le=100_000)] = 1
    worker_availability_timeout_milliseconds: int | None = None
    worker_allocator_name: str = ""
    worker_termination_timeout: Duration = Duration(10.0)
    explicit_ack_mode: Literal["enable", "disable", "explicitOnly"] = "disable"
    batch: Batch = Batch()
    mode: Literal["sync", "async"] = "sync"
    async_: AsyncMode = field(default=AsyncMode(), name="async")
    url: str = ""
    username: str = ""
    password: str = ""
    annotations: dict[str, str] = {}
    delivery: Delivery | None = None  # None: the kind's default, see `default_delivery`
    max_attempts: Annotated[int, Meta(ge=1, le=1000)] = 5
    retry_delay: Duration = Duration(0.2)  # of the second attempt; doubles, jittered, up to max_retry_delay
    max_retry_delay: Duration = Duration(30.0)
    queue_size: Annotated[int, Meta(ge=1, le=1_000_000)] = 1024  # events waiting in front of the workers
    order_key: OrderKey = ""  # empty: the kind's default
    journal: bool | Journal = False
    dead_letters: bool | DeadLetters = True
    id_from: IdSource = ""  # empty: the kind's default
    ids: IdWindow = IdWindow()
    shares_workers_of: str = ""  # name of the trigger whose workers this one uses; set on the added `default-http`

    default_delivery: ClassVar[Delivery] = "at-most-once"  # overridden where the source can redeliver
    default_order_key: ClassVar[str] = "none"  # overridden where the source has an order
    default_id_from: ClassVar[str] = ""  # overridden where the source has ids

    @property
    def availability_timeout_s(self) -> float:
        """Seconds to wait for a free worker: nuclio's rule, null or negative means 10 s, 0 means fail at once."""
        given = self.worker_availability_timeout_milliseconds
        return 10.0 if given is None or given < 0 else given / 1000

    @property
    def in_flight_limit(self) -> int:
        """Events one worker may have started and not answered."""
        return self.async_.max_connections_number if self.mode == "async" else 1

    @property
    def promise(self) -> Delivery:
        """The delivery that holds: the given one, else the kind's default; out of a journal, at least once."""
        if self.delivery is None and self.journal and self.default_delivery == "at-most-once":
            return "at-least-once"
        return self.delivery or self.default_delivery

    @property
    def journal_keys(self) -> Journal:
        """What `journal` says, or its defaults where it is `true` or `false`."""
        return self.journal if isinstance(self.journal, Journal) else Journal()

    @property
    def redelivers(self) -> bool:
        """The source keeps what was not acknowledged."""
        return self.default_delivery != "at-most-once"


class EnvironmentVariable(Spec, frozen=True, kw_only=True):
    """One entry of `env`."""

    name: Annotated[str, Meta(min_length=1)]
    value: str = ""


class Build(Spec, frozen=True, kw_only=True):
    """How code becomes a running function. Keys that only make sense for container images are accepted and ignored."""

    path: str = ""
    function_source_code: str = ""  # base64
    code_entry_type: str = ""
    code_entry_attributes: dict[str, Any] = {}
    function_config_path: str = ""
    commands: list[str] = []
    dependencies: list[str] = []
    offline: bool = False


class LoggerSink(Spec, frozen=True, kw_only=True):
    """One entry of `loggerSinks`; the first one's level is the level of the function's log."""

    level: Literal["debug", "info", "warn", "warning", "error"] = "info"
    sink: str = ""


class RestartPolicy(Spec, frozen=True, kw_only=True):
    """`platform.attributes.restartPolicy`: what the agent does when the processor ends by itself."""

    name: Literal["always", "on-failure", "unless-stopped", "no"] = "always"
    maximum_retry_count: int = 0


class ResourceLimits(Spec, frozen=True, kw_only=True):
    """`resources.limits`: what all workers of the function together may use."""

    memory: Quantity | None = None  # bytes
    cpu: Quantity | None = None  # cores

    @property
    def memory_bytes(self) -> int:
        """0: no limit."""
        return int(amount(self.memory))

    @property
    def cores(self) -> float:
        """0: no limit."""
        return amount(self.cpu)


class Resources(Spec, frozen=True, kw_only=True):
    """nuclio's `resources`."""

    limits: ResourceLimits = ResourceLimits()


class ProcessLimits(Spec, frozen=True, kw_only=True):
    """`limits`: of each worker by itself. None: what the agent itself may."""

    open_files: Annotated[int, Meta(ge=16, le=1 << 20)] | None = None
    processes: Annotated[int, Meta(ge=1, le=1 << 20)] | None = None  # the worker, its children and all their threads
    file_size: Quantity | None = None  # bytes, of any file it writes
    cpu_time: Duration | None = None  # that one process may use in its life

    @property
    def file_bytes(self) -> int:
        """0: no limit."""
        return int(amount(self.file_size))


Account = (
    Annotated[str, Meta(pattern=r"^[A-Za-z0-9_][A-Za-z0-9_.-]*$", description="a name such as www-data")]
    | Annotated[int, Meta(ge=0, le=(1 << 32) - 2)]
)
"""Number or name of a user or group."""


class SecurityContext(Spec, frozen=True, kw_only=True):
    """Whom the workers run as. Numbers, or names that this device knows."""

    run_as_user: Account | None = None
    run_as_group: Account | None = None  # None: the user's own
    supplemental_groups: list[Account] = []


class Recycle(Spec, frozen=True, kw_only=True):
    """When a worker is replaced by a fresh one, between two events. None: never for that reason."""

    events: Annotated[int, Meta(ge=1)] | None = None
    age: Duration | None = None
    memory: Quantity | None = None  # bytes that it holds by itself (PSS)

    @property
    def memory_bytes(self) -> int:
        """0: no limit."""
        return int(amount(self.memory))


class Binding(Spec, frozen=True, kw_only=True):
    """One entry of `bindings`. The keys of a kind itself stand under `attributes`: see bindings/KIND/README.md."""

    name: str = ""
    class_: str = field(default="", name="class")
    kind: str = ""  # empty: `class`, as in nuclio
    url: str = ""
    path: str = ""
    query: str = ""
    secret: str = ""
    username: str = ""
    password: str = ""
    topic: str = ""  # of what is published without one
    attributes: dict[str, Any] = {}

    def __repr__(self) -> str:
        """Never the password, which may also stand in the URL."""
        return f"Binding(name={self.name!r}, kind={self.kind!r})"


class Outbox(Spec, frozen=True, kw_only=True):
    """`outbox`: what is kept of what the function publishes until the broker has it. Bounds are of each target."""

    durable: bool = True  # on disk; false: in memory, lost with the processor
    commit_window: Duration = Duration(0.01)  # what was published within so long shares one write
    max_bytes: Annotated[int, Meta(ge=65536, le=1 << 40)] = 64 << 20
    max_age: Duration = Duration(7 * 86400.0)  # time without power does not count
    when_full: Literal["block", "drop-oldest", "drop-newest"] = "block"
    share: Annotated[float, Meta(ge=0, le=1)] = 0.5  # of fresh messages while older ones of other keys wait
    historical_after: Duration = Duration(60.0)  # what waited longer is marked so
    min_free_bytes: Annotated[int, Meta(ge=0)] = 32 << 20  # of the disk: with less, it counts as full
    min_free_percent: Annotated[float, Meta(ge=0, le=90)] = 1.0

    def __post_init__(self) -> None:
        if not 0 <= self.commit_window <= 1:
            raise ValueError("commitWindow: must be from 0s to 1s")
        for key, value in (("maxAge", self.max_age), ("historicalAfter", self.historical_after)):
            if value <= 0:
                raise ValueError(f"{key}: must be more than 0s")


class Metadata(Spec, frozen=True, kw_only=True):
    """Name and labels. The name is lower-case letters, digits and dashes, at most 63 characters."""

    name: str
    namespace: str = "default"
    labels: dict[str, str] = {}
    annotations: dict[str, str] = {}


class FunctionSpec(Spec, frozen=True, kw_only=True):
    """The `spec` of a function. `triggers` holds each kind's own subclass of TriggerSpec, by name."""

    description: str = ""
    disable: bool = False
    disable_default_http_trigger: bool | None = field(default=None, name="disableDefaultHTTPTrigger")
    handler: str = ""
    runtime: str = ""
    env: list[EnvironmentVariable] = []
    triggers: dict[str, TriggerSpec] = {}
    build: Build = Build()
    runtime_attributes: dict[str, Any] = {}
    logger_sinks: list[LoggerSink] = []
    readiness_timeout_seconds: Annotated[int, Meta(ge=0)] = 0
    event_timeout: Duration | None = None
    platform: dict[str, Any] = {}
    ring_bytes: Annotated[int, Meta(ge=65536, le=1 << 28)] = 1 << 18  # of each ring of each worker; a power of two
    max_body_bytes: Annotated[int, Meta(ge=1, le=1 << 30)] = 16 << 20  # of one event or reply, on every trigger
    resources: Resources = Resources()
    limits: ProcessLimits = ProcessLimits()
    security_context: SecurityContext = SecurityContext()
    recycle: Recycle = Recycle()
    bindings: dict[str, Binding] = {}
    data_bindings: dict[str, Binding] = {}  # nuclio's name for the same; empty once the function is complete
    outbox: Outbox = Outbox()

    @property
    def readiness_timeout_s(self) -> float:
        """Seconds the workers have to get ready; nuclio's platform default where 0."""
        return float(self.readiness_timeout_seconds or 120)

    @property
    def restart_policy(self) -> RestartPolicy:
        """`platform.attributes.restartPolicy`, checked by `agent.model.load`; the default where it is not given."""
        attributes = self.platform.get("attributes") or {}
        return convert(attributes.get("restartPolicy") or {}, RestartPolicy)

    @property
    def log_level(self) -> str:
        """Lowest level of the function's log that is kept: debug, info, warn or error."""
        level = self.logger_sinks[0].level if self.logger_sinks else "debug"
        return "warn" if level == "warning" else level


class Function(Spec, frozen=True, kw_only=True):
    """One function as written: metadata and spec. `apiVersion`, `kind` and `status` are accepted and ignored."""

    metadata: Metadata
    spec: FunctionSpec
