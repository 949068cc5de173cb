"""MessagePack-RPC messages: [0, id, method, params], [1, id, error, result] and [2, method, params]."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Any, Final, Literal, NamedTuple

import msgspec

from ...placement.types.errors import HostlerError, InvalidValue
from ..engine_commands import decode_params
from ..errors import ErrorValue, from_value, to_value
from ..tenancy.commands import PATTERNS
from .framing import BadFrame
from .tls import HANDSHAKE

ErrorStyle = Literal["list", "map", "text"]
"""list: [code, message]. map: {code, message, field, hint, extra}. text: ``code: message``."""

encode: Final = msgspec.msgpack.Encoder().encode
_CALL: Final = msgspec.msgpack.Decoder(tuple[int, int, str, msgspec.Raw])
_NOTIFICATION: Final = msgspec.msgpack.Decoder(tuple[int, str, msgspec.Raw])
_ANSWER: Final = msgspec.msgpack.Decoder(tuple[int, int, msgspec.Raw, msgspec.Raw])
_ONE_MAP: Final[dict[type[Any], msgspec.msgpack.Decoder[tuple[Any]]]] = {}
"""By type of parameters: what reads ``[{name: value}]``, as most calls have them."""
_LIST: Final = msgspec.msgpack.Decoder(list[msgspec.Raw])
_MALFORMED: Final = (msgspec.ValidationError, msgspec.DecodeError, RecursionError, UnicodeDecodeError)
MAX_ID: Final = 2**32 - 1
MAX_KEY: Final = 255
NIL: Final = msgspec.Raw(b"\xc0")


class Call(NamedTuple):
    """A call; ``id`` None: a notification, which gets no answer."""

    id: int | None
    method: str
    params: msgspec.Raw


class Answer(NamedTuple):
    """An answer, of which error or result is nil."""

    id: int
    error: HostlerError | None
    result: msgspec.Raw


class Notification(NamedTuple):
    """An unsolicited message."""

    method: str
    params: msgspec.Raw


class Options(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, forbid_unknown_fields=True):
    """Options after the parameters of a command. ``key`` makes repetition safe: a user's command with the same key is
    applied once, and each repetition gets the first answer. ``timeout``: seconds after which a queued command is
    refused with ``deadline_exceeded``. Of a question: ``stale_ms``, the age in milliseconds that the state it is
    answered from may have at a member of a cluster that follows another one; older: ``too_stale``."""

    key: Annotated[str, msgspec.Meta(min_length=1, max_length=MAX_KEY)] | None = None
    timeout: Annotated[float, msgspec.Meta(ge=0, le=86_400)] | None = None
    stale_ms: Annotated[float, msgspec.Meta(ge=0)] | None = None


class Params(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Base of parameters that are neither a command nor a question."""


class _ErrorMap(msgspec.Struct, omit_defaults=True):
    code: str
    message: str
    field: str | None = None
    hint: str | None = None
    extra: dict[str, Any] = {}


class AnswerTooLong(HostlerError):
    """The answer has more bytes than the service sends in one message."""

    code = "answer_too_long"


NO_OPTIONS: Final = Options()
Reply = Callable[[Any, HostlerError | None], None]
"""Called once with the result or the error of a call."""


def read_call(frame: bytes) -> Call:
    """A call or notification. BadFrame for anything else."""
    try:
        kind, number, method, params = _CALL.decode(frame)
    except _MALFORMED:
        return _read_unusual_call(frame)
    if kind != 0 or not 0 <= number <= MAX_ID:
        raise BadFrame("a message of four must be [0, id, method, params] with an id of 32 bits")
    return Call(number, method, params)


def _read_unusual_call(frame: bytes) -> Call:
    """A notification, or a call of one of the clients that send names as bytes."""
    if frame == HANDSHAKE:
        raise BadFrame("this is TLS, which is not spoken on this port")
    try:
        parts = _LIST.decode(frame)
        head = [msgspec.msgpack.decode(part) for part in parts[:-1]]
    except _MALFORMED as error:
        raise BadFrame(f"not a call: {error}") from None
    if head and isinstance(head[-1], bytes):
        head[-1] = head[-1].decode(errors="replace")
    match head:
        case [0, int(number), str(method)] if 0 <= number <= MAX_ID:
            return Call(number, method, parts[-1])
        case [2, str(method)]:
            return Call(None, method, parts[-1])
    raise BadFrame("this is neither [0, id, method, params] nor [2, method, params]")


def read_answer(frame: bytes) -> Answer | Notification:
    """An answer or notification from a server. BadFrame for anything else."""
    try:
        kind, number, error, result = _ANSWER.decode(frame)
    except _MALFORMED:
        try:
            kind, method, params = _NOTIFICATION.decode(frame)
        except _MALFORMED as problem:
            raise BadFrame(f"not an answer: {problem}") from None
        return Notification(method, params)
    if kind != 1:
        raise BadFrame("a message of four must be [1, id, error, result]")
    return Answer(number, None if error == NIL else read_error(error), result)


def read_error(raw: msgspec.Raw) -> HostlerError:
    """An error in the style ``map`` or ``list``, or anything else as text."""
    try:
        value = msgspec.msgpack.decode(raw, type=_ErrorMap | tuple[str, str])
    except _MALFORMED:
        return HostlerError(f"the server says {msgspec.msgpack.decode(raw)!r:.500}")
    if isinstance(value, tuple):
        return from_value(ErrorValue(*value))
    return from_value(ErrorValue(value.code, value.message, value.field, value.hint, value.extra))


def error_object(error: HostlerError, style: ErrorStyle) -> Any:
    """An error in the style of a connection."""
    if style == "text":
        return f"{error.code}: {error}"
    if style == "list":
        return [error.code, str(error)]
    value = to_value(error)
    return _ErrorMap(value.code, value.message, value.field, value.hint, value.extra)


def read_params(raw: msgspec.Raw, kind: type[Any]) -> tuple[Any, Options]:
    """A method's parameters, and the options after them: ``[]``, ``[{name: value}]``, ``[{name: value}, options]``, or
    the values in the order of the fields. InvalidValue, naming the field, for anything else."""
    decoder = _ONE_MAP.get(kind)
    if decoder is None:
        decoder = _ONE_MAP[kind] = msgspec.msgpack.Decoder(tuple[kind])  # type: ignore[valid-type]  # a type at run time
    try:
        return decoder.decode(raw)[0], NO_OPTIONS
    except _MALFORMED:
        pass  # another form, or an error that is yet to be named
    try:
        return _read_params(raw, kind)
    except InvalidValue as error:
        raise _readable(error) from None


def _readable(error: InvalidValue) -> InvalidValue:
    """The error, in words where it would show a pattern."""
    problem = str(error.args[0])
    before, regex, pattern = problem.partition("Expected `str` matching regex ")
    if not regex:
        return error
    return InvalidValue(f"{before}{PATTERNS.get(pattern[1:-1], 'the text has a wrong form')}", field=error.field)


def _read_params(raw: msgspec.Raw, kind: type[Any]) -> tuple[Any, Options]:
    try:
        given = _LIST.decode(raw)
    except _MALFORMED:
        raise InvalidValue("params must be a list", field="params") from None
    if len(given) == 1 and _is_map(memoryview(given[0])[0]):
        return decode_params(given[0], kind), NO_OPTIONS
    if len(given) == 2 and _is_map(memoryview(given[0])[0]) and _is_map(memoryview(given[1])[0]):
        return decode_params(given[0], kind), _options(given[1])
    names = kind.__struct_fields__
    if len(given) > len(names):
        raise InvalidValue(f"{len(given)} parameters, there are at most {len(names)}", field="params")
    return decode_params(encode(dict(zip(names, given, strict=False))), kind), NO_OPTIONS


def _options(raw: msgspec.Raw) -> Options:
    try:
        options: Options = decode_params(raw, Options)
    except InvalidValue as error:
        problem = str(error.args[0]).replace("params", "options", 1)
        raise InvalidValue(problem, field=(error.field or "").replace("params", "options", 1)) from None
    return options


def _is_map(first: int) -> bool:
    return first & 0xF0 == 0x80 or first in (0xDE, 0xDF)


def answer(number: int, result: Any) -> bytes:
    """The bytes of an answer."""
    return encode((1, number, None, result))


def failure(number: int, error: HostlerError, style: ErrorStyle) -> bytes:
    """The bytes of an answer with an error."""
    return encode((1, number, error_object(error, style), None))


def too_long(size: int, limit: int) -> AnswerTooLong:
    """The error for an answer of ``size`` bytes."""
    return AnswerTooLong(f"the answer has {size} bytes, at most {limit} are sent", hint="ask for less at a time")


def notification(method: str, *params: Any) -> bytes:
    """The bytes of a notification."""
    return encode((2, method, params))
