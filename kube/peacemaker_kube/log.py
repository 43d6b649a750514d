"""The one logger set-up: one line an event, `key=value`, to standard error."""

import logging
import sys
from typing import Final

_LOGGER: Final = logging.getLogger("peacemaker")


class _KeyValue(logging.Formatter):
    """`time=… level=… msg=… key=value …`; a value is quoted where it needs to be."""

    def format(self, record: logging.LogRecord) -> str:
        fields = {
            "time": self.formatTime(record, "%Y-%m-%dT%H:%M:%S%z"),
            "level": record.levelname.lower(),
            "msg": record.getMessage(),
            **getattr(record, "fields", {}),
        }
        line = " ".join(f"{key}={_quote(str(value))}" for key, value in fields.items())
        return f"{line}\n{self.formatException(record.exc_info)}" if record.exc_info else line


def _quote(value: str) -> str:
    """A tenant chooses names: no line feed and no forged field leaves here."""
    if value and value.isprintable() and not set(value) & set(' "=\\'):
        return value
    escaped = value.replace("\\", "\\\\").replace('"', '\\"')
    return '"' + "".join(c if c.isprintable() else f"\\x{ord(c):02x}" for c in escaped) + '"'


def set_up(level: str) -> None:
    """Send the log to standard error."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_KeyValue())
    _LOGGER.handlers = [handler]
    _LOGGER.setLevel(level.upper())
    _LOGGER.propagate = False


def event(level: int, message: str, **fields: object) -> None:
    """Log one event with its fields."""
    if _LOGGER.isEnabledFor(level):
        _LOGGER.log(level, message, extra={"fields": fields})


def info(message: str, **fields: object) -> None:
    """Something was done."""
    event(logging.INFO, message, **fields)


def warning(message: str, **fields: object) -> None:
    """An administrator should know."""
    event(logging.WARNING, message, **fields)


def error(message: str, **fields: object) -> None:
    """Something that was asked for could not be done."""
    event(logging.ERROR, message, **fields)
