"""JSON for values that a function hands over: it never fails on a value's type.

Promise: an object with `__log__()` is encoded as what that returns, any other unknown object as its `repr`;
not-a-number is "NaN", infinities are "Infinity" and "-Infinity". Ordinary values take the standard library's
C encoder; only a value with such a float in it pays for the slow one.
"""

from __future__ import annotations

import json
import json.encoder

TYPE_CHECKING = False  # in place of typing's: its import would be a third of the start
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from typing import Any


class Encoder(json.JSONEncoder):
    """The encoder of dict results and of log fields; also usable as `json.dumps(value, cls=Encoder)`."""

    nan_str = "NaN"

    def default(self, o: Any) -> Any:
        try:
            return o.__log__()
        except Exception:  # code of the user's: whatever it does, the record is written
            pass
        for text_of in (repr, str):
            try:
                return text_of(o)
            except Exception as error:
                problem = error
        return f"Unable to serialize object: {problem}"

    def encode(self, o: Any) -> str:
        fast = self.__dict__.get("_fast")
        if fast is None:
            fast = self._fast = self._standard()
        try:
            return fast(o)
        except ValueError:  # a float that JSON cannot say, or a circular value: the slow way tells them apart
            return super().encode(o)

    def iterencode(self, o: Any, _one_shot: bool = False) -> Iterator[str]:
        markers: dict[int, Any] | None = {} if self.check_circular else None
        texts = json.encoder.encode_basestring_ascii if self.ensure_ascii else json.encoder.encode_basestring
        make: Callable[..., Any] = json.encoder._make_iterencode  # type: ignore[attr-defined]  # as json itself does
        encode: Callable[[Any, int], Iterator[str]] = make(
            markers,
            self.default,
            texts,
            self.indent,
            self._float,
            self.key_separator,
            self.item_separator,
            self.sort_keys,
            self.skipkeys,
            _one_shot,
        )
        return encode(o, 0)

    def _standard(self) -> Callable[[Any], str]:
        return json.JSONEncoder(
            skipkeys=self.skipkeys,
            ensure_ascii=self.ensure_ascii,
            check_circular=self.check_circular,
            allow_nan=False,
            sort_keys=self.sort_keys,
            indent=self.indent,
            separators=(self.item_separator, self.key_separator),
            default=self.default,
        ).encode

    def _float(self, value: float) -> str:
        if value != value:
            return f'"{self.nan_str}"'
        if value in (float("inf"), float("-inf")):
            return '"Infinity"' if value > 0 else '"-Infinity"'
        return float.__repr__(value)
