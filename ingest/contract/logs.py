"""Structured logs: constant past-tense event names, JSON off a terminal, one line a batch, no payloads, no secrets."""

import logging
import sys
from typing import Any, Final

import structlog


class _Seldom(logging.Filter):
    """Lets a library's line through once in a while: while a server is away its client says the same thing again and again."""

    _EVERY_S: Final = 30.0
    _OF: Final = ("aiokafka", "clickhouse_connect")

    def __init__(self) -> None:
        super().__init__()
        self._said: dict[tuple[str, str], float] = {}

    def filter(self, record: logging.LogRecord) -> bool:
        if not record.name.startswith(self._OF):
            return True
        # The template, not the text: so the number of keys is that of the library's lines.
        key = (record.name, str(record.msg))
        said = self._said.get(key)
        if said is not None and record.created - said < self._EVERY_S:
            return False
        self._said[key] = record.created
        return True


def configure(*, service: str, level: str = "info", json: bool | None = None) -> None:
    """Set up structlog and the standard library's logging to write to standard error.

    Args:
        service: bound to every line as `service`.
        level: debug, info, warning or error.
        json: JSON lines if true, for people if false; by default JSON unless standard error is a terminal.
    """
    as_json = not sys.stderr.isatty() if json is None else json

    def named(_: Any, __: str, line: dict[str, Any]) -> dict[str, Any]:
        # Not a context variable: lines also come from threads that never heard of the context.
        return {"service": service, **line}

    shared: list[Any] = [
        structlog.contextvars.merge_contextvars,
        named,
        structlog.stdlib.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        structlog.processors.StackInfoRenderer(),
    ]
    # Its usual tracebacks show local variables, and among them are headers with keys.
    console = structlog.dev.ConsoleRenderer(exception_formatter=structlog.dev.plain_traceback)
    renderer: Any = structlog.processors.JSONRenderer() if as_json else console
    # dev.ConsoleRenderer draws tracebacks itself; JSON needs them as text.
    ending = [structlog.processors.format_exc_info, renderer] if as_json else [renderer]
    threshold = getattr(logging, level.upper())
    structlog.configure(
        processors=[structlog.stdlib.filter_by_level, *shared, structlog.stdlib.ProcessorFormatter.wrap_for_formatter],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.stdlib.BoundLogger,
        cache_logger_on_first_use=True,
    )
    handler = logging.StreamHandler(sys.stderr)
    handler.addFilter(_Seldom())
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=[*shared, structlog.stdlib.ExtraAdder()],
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, *ending],
        )
    )
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(threshold)
    # Chatty at info, and silent about nothing we need: their warnings still pass.
    for name in ("aiokafka", "faust", "mode", "urllib3", "clickhouse_connect", "uvicorn.access", "asyncio"):
        logging.getLogger(name).setLevel(max(threshold, logging.WARNING))


def logger(name: str) -> Any:
    """Return a structlog logger; configuration is taken at its first line, not here."""
    return structlog.stdlib.get_logger(name)
