"""Every setting of the importer, read from `PARITY_*` variables."""

from __future__ import annotations

import os
import re
from datetime import timedelta
from functools import lru_cache
from importlib import import_module
from operator import attrgetter
from pathlib import Path
from typing import Annotated, Any, Literal
from urllib.parse import unquote, urlsplit

from pydantic import Field, SecretStr, ValidationError, field_validator
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from parity_dagster.errors import InvalidIdentifier, SettingsError
from parity_dagster.identifiers import parse_nsid

DEFAULT_COLLECTIONS = (
    "app.bsky.feed.post",
    "app.bsky.feed.like",
    "app.bsky.feed.repost",
    "app.bsky.graph.follow",
    "app.bsky.actor.profile",
)


class Settings(BaseSettings):
    """How the importer behaves; each field is the variable `PARITY_<FIELD>`.

    The first four are those of atp-parity's `config/parity.php`. Unknown `PARITY_*` variables are ignored.
    """

    model_config = SettingsConfigDict(env_prefix="PARITY_", env_ignore_empty=True, frozen=True, extra="ignore")

    page_size: int = Field(
        100, ge=1, le=100, description="records asked for per listRecords page (the lexicon allows 1 to 100)"
    )
    page_delay: int = Field(
        100, ge=0, le=600_000, description="pause between two pages of one (did, collection), in milliseconds"
    )
    queue: str = Field(
        "parity-import",
        min_length=1,
        max_length=100,
        pattern=r"^[A-Za-z0-9_.-]+$",
        description="value of the run tag `parity/queue` under which queued imports are launched and limited",
    )
    state_table: str = Field(
        "parity_import_states",
        pattern=r"^[a-z_][a-z0-9_]{0,50}$",
        description="name of the state table",
    )
    database_url: SecretStr | None = Field(
        None, description="PostgreSQL URL; without it an embedded server runs under PARITY_HOME"
    )
    home: Path = Field(Path(".parity"), description="folder of the embedded server and of local files")
    plc_url: str = Field(
        "https://plc.directory", description="PLC directory that resolves did:plc, or several mirrors, comma-separated"
    )
    plc_rate: float | None = Field(
        None,
        gt=0,
        le=10_000,
        description="requests per second to each PLC directory; 20 unless set, and no limit for one on this machine",
    )
    relay_url: str = Field(
        "https://relay1.us-east.bsky.network",
        description="relay or directory of collections that `parity discover` asks for accounts",
    )
    discover: Annotated[tuple[str, ...], NoDecode] = Field(
        (),
        description="collections whose accounts Dagster looks for by itself and queues, comma-separated NSIDs,"
        " registered or not; off unless set",
    )
    collections: Annotated[tuple[str, ...], NoDecode] = Field(
        DEFAULT_COLLECTIONS, min_length=1, description="registered collections, comma-separated NSIDs"
    )
    listeners: Annotated[tuple[str, ...], NoDecode] = Field(
        (), description="functions called with every import event, comma-separated `package.module:function`"
    )
    mappers: Annotated[tuple[str, ...], NoDecode] = Field(
        (), description="record mappers, one per collection at most, comma-separated `package.module:Class`"
    )
    source: Literal["list", "repo"] = Field(
        "list",
        description="what imports read: `list`, page after page, or `repo`, each account's signed repository in one"
        " request, verified",
    )
    max_repo_bytes: int = Field(
        2**30, ge=2**20, description="largest repository taken as a whole; a larger one is read by pages"
    )
    transport: str | None = Field(
        None, description="httpx transport around or in the place of ours, for every request: `package.module:name`"
    )
    typed_views: Annotated[tuple[str, ...], NoDecode] = Field(
        (), description="typed views of your own collections, comma-separated `package.module:NAME`"
    )
    alert_webhook: SecretStr | None = Field(
        None, description="URL that failed runs and failed checks are posted to as JSON (Slack's form); off unless set"
    )
    stale_days: int = Field(
        30,
        ge=0,
        le=10_000,
        description="days without any import after which views and overview count as stale in Dagster; 0 for never",
    )
    refresh_every: timedelta | None = Field(
        None,
        ge=timedelta(minutes=1),
        le=timedelta(days=3650),
        description="age at which a complete copy is confirmed or read again by itself, e.g. `7d` or `12h`; off unless"
        " set",
    )
    inbox: Path = Field(Path("inbox"), description="folder watched for dropped lists of DIDs (*.txt)")
    log_format: Literal["text", "json"] = Field(
        "text", description="form of the log lines on stderr; json has did, collection, pds and run_id as fields"
    )
    allow_private_hosts: bool = Field(
        False, description="contact http and private addresses too; for a loopback PDS in demos and tests only"
    )
    concurrency: int = Field(64, ge=1, le=1000, description="requests in flight over all hosts")
    host_concurrency: int = Field(10, ge=1, le=100, description="requests in flight to one host, at most")
    writers: int = Field(2, ge=1, le=16, description="database connections that write pages")
    request_timeout: float = Field(
        60.0, gt=0, le=600, description="wall-clock seconds one request may take, slow drips included"
    )
    database_patience: float = Field(
        60.0, ge=0, le=3600, description="seconds an import waits for PostgreSQL when it restarts, is full, or refuses"
    )
    retry_attempts: int = Field(
        3, ge=1, le=100, description="tries of a pair before only a person (or --resume) starts another"
    )
    retry_delay: float = Field(
        60.0,
        ge=0.1,
        le=86_400,
        description="seconds from a failed try to the next, doubled for each further one (errors that may pass only)",
    )
    max_page_bytes: int = Field(32 * 2**20, ge=2**16, description="largest page accepted, in bytes after decompression")
    max_pages: int = Field(200_000, ge=1, description="pages read of one (did, collection) before giving up")
    max_bytes: int | None = Field(
        None,
        ge=1,
        description="bytes of pages one run reads of one (did, collection) before it leaves the rest to the next",
    )
    partition_limit: int = Field(
        100_000,
        ge=0,
        description="accounts that become partitions in Dagster by themselves; those beyond are imported without a"
        " partition and an event each, until somebody names them (`parity import DID`)",
    )
    straggler_patience: float = Field(
        1800.0,
        ge=0,
        description="seconds a walk of a Dagster run may take when all others under way take as long; 0 for no limit",
    )
    user_agent: str = Field(
        "parity_dagster (AT Protocol history importer)",
        min_length=1,
        description="User-Agent sent to every server; add a contact address of yours",
    )

    @property
    def plc_urls(self) -> tuple[str, ...]:
        """The mirrors of `plc_url`, each once."""
        return tuple(self.plc_url.split(","))

    @field_validator("plc_url")
    @classmethod
    def _check_plc_url(cls, value: str) -> str:
        urls = list(dict.fromkeys(part.strip().rstrip("/") for part in value.split(",")))
        if not all(map(_is_web_url, urls)):
            raise ValueError("must be the URL of a PLC directory, e.g. https://plc.directory, or several with commas")
        return ",".join(urls)

    @field_validator("relay_url")
    @classmethod
    def _check_relay_url(cls, value: str) -> str:
        if not _is_web_url(value) or urlsplit(value).path not in ("", "/"):
            raise ValueError("must be the URL of a relay, e.g. https://relay1.us-east.bsky.network")
        return value.rstrip("/")

    @field_validator("refresh_every", mode="before")
    @classmethod
    def _read_duration(cls, value: Any) -> Any:
        if isinstance(value, str):
            found = _DURATION.fullmatch(value.strip())
            if not found:
                raise ValueError("a number and a unit are needed, as in 7d, 12h or 30m")
            return timedelta(seconds=int(found[1]) * _SECONDS[found[2].lower()])
        return value

    @field_validator("discover", "collections", "listeners", "mappers", "typed_views", mode="before")
    @classmethod
    def _split(cls, value: Any) -> Any:
        if isinstance(value, str):
            value = tuple(part.strip() for part in value.split(",") if part.strip())
        return value

    @field_validator("discover", "collections")
    @classmethod
    def _check_collections(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        try:
            return tuple(dict.fromkeys(parse_nsid(nsid) for nsid in value))
        except InvalidIdentifier as exc:
            raise ValueError(str(exc)) from exc

    @field_validator("listeners", "mappers", "typed_views")
    @classmethod
    def _check_names(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        for name in value:
            if not _PYTHON_NAME.fullmatch(name):
                raise ValueError(f"{name!r} is not of the form package.module:name")
        return tuple(dict.fromkeys(value))

    @field_validator("transport")
    @classmethod
    def _check_transport(cls, value: str | None) -> str | None:
        if value is not None and not _PYTHON_NAME.fullmatch(value):
            raise ValueError("is not of the form package.module:name")
        return value

    @field_validator("alert_webhook")
    @classmethod
    def _check_webhook(cls, value: SecretStr | None) -> SecretStr | None:
        if value is None or not value.get_secret_value().strip():
            return None
        if not _WEBHOOK.match(value.get_secret_value()):
            raise ValueError("a URL is needed, as https://hooks.example.com/…")
        return value


def _is_web_url(text: str) -> bool:
    parts = urlsplit(text)
    return parts.scheme in ("http", "https") and bool(parts.hostname) and not (parts.query or parts.fragment)


_DURATION = re.compile(r"(\d{1,6})\s*([smhdw])", re.ASCII | re.IGNORECASE)
_SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86_400, "w": 604_800}
_WEBHOOK = re.compile(r"https?://[^\s/]+")
_PYTHON_NAME = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)*:[A-Za-z_]\w*(\.[A-Za-z_]\w*)*", re.ASCII)


def _shown(place: tuple[int | str, ...], given: object) -> str:
    """What was given, unless it may be a secret."""
    return "" if place[:1] in (("alert_webhook",), ("database_url",)) else f" (got {str(given)[:80]!r})"


def load_settings(**overrides: Any) -> Settings:
    """Read the settings from the environment.

    Args:
        overrides: field values that win over the environment, as a CLI flag does.

    Returns:
        The validated settings.

    Raises:
        SettingsError: one line per wrong value, naming the variable and what it accepts.
    """
    if overrides:
        return _read(overrides)
    # each tick of a sensor asks several times
    return _read_once(tuple(item for item in os.environ.items() if item[0].upper().startswith("PARITY_")))


@lru_cache(maxsize=8)
def _read_once(environment: tuple[tuple[str, str], ...]) -> Settings:
    return _read({})


def _read(overrides: dict[str, Any]) -> Settings:
    try:
        return Settings(**overrides)
    except ValidationError as exc:
        problems = "; ".join(
            f"PARITY_{'_'.join(str(part) for part in error['loc'][:1]).upper()}: {error['msg']}"
            f"{_shown(error['loc'], error['input'])}"
            for error in exc.errors(include_url=False, include_context=False)
        )
        raise SettingsError(f"{problems}. Correct it and try again; README.md lists every setting.") from exc


def load_object(setting: str, name: str, *, call: bool = False) -> object:
    """What a setting names as `package.module:attribute`.

    Args:
        call: whether it is to be called, as a class is, without arguments.

    Raises:
        SettingsError: it cannot be imported, or made.
    """
    module, _, attribute = name.partition(":")
    try:
        found = attrgetter(attribute)(import_module(module))
        return found() if call else found
    except Exception as exc:
        raise SettingsError(
            f"{setting}: {name} cannot be loaded ({type(exc).__name__}: {exc}); correct the name, or put its folder on"
            " PYTHONPATH"
        ) from exc


def redact(text: str, settings: Settings | None = None) -> str:
    """Return a text with the passwords of database URLs and connection strings replaced by `***`.

    Args:
        settings: also hides the password of this `database_url` wherever it stands.
    """
    text = re.sub(r"(\w+://[^\s:/@]*):[^\s/]*@", r"\1:***@", text)
    text = re.sub(r"(?i)(\b(?:ssl)?pass(?:word|file)?\s*=\s*)('[^']*'|[^\s&'\"]+)", r"\1***", text)
    if settings is not None and settings.database_url is not None:
        given = settings.database_url.get_secret_value()
        for form in re.findall(r"://[^:/@]*:([^@]*)@", given) + re.findall(r"[?&]password=([^&]*)", given):
            for password in {form, unquote(form)}:
                if password:
                    text = text.replace(password, "***")
    return text
