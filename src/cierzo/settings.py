"""One frozen `Settings`, the only reader of the environment.

Where a value comes from, strongest first: a flag, an environment variable ``CIERZO_…``, ``cierzo.toml`` in
``CIERZO_HOME``, the default.
"""

from __future__ import annotations

import os
import tempfile
import tomllib
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from platformdirs import user_data_path
from pydantic import Field, SecretStr, ValidationError, field_validator
from pydantic_settings import (
    BaseSettings,
    NoDecode,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
    TomlConfigSettingsSource,
)

from cierzo.errors import BadSetting, HomeNotWritable

if TYPE_CHECKING:
    from collections.abc import Mapping

_SECRETS = ("engine_key", "database_url")
KvType = Literal["f32", "f16", "bf16", "q8_0", "q5_1", "q5_0", "q4_0"]

LOOPBACK = ("127.0.0.1", "::1", "localhost")


def default_home() -> Path:
    """The platform's folder for a user's data, such as ``~/.local/share/cierzo``."""
    return user_data_path("cierzo", appauthor=False)


class Settings(BaseSettings):
    """What a person chose. Made by `Settings.load`; never changed afterwards."""

    model_config = SettingsConfigDict(env_prefix="CIERZO_", frozen=True, extra="ignore")

    home: Path = Field(default_factory=default_home, description="folder for downloads, history and cierzo.toml")
    model: str = Field("cierzo-demo", description="name from `cierzo models list`, or the path of a GGUF file")
    engine: str = Field(
        "llamacpp:",
        description="which engine answers: llamacpp: (built in), llamacpp+http://HOST:PORT, openai+http://HOST[/v1], "
        "tgi+http://HOST, hf://OWNER/MODEL or scripted:[FILE]; https too",
    )
    engine_key: SecretStr = Field(
        SecretStr(""), description="key of an engine that is a server; it is sent to that server's address alone"
    )
    template: str = Field(
        "", description="prompt template of the model behind an engine that is a server; empty finds it out by its name"
    )
    engines: str = Field("", description="addresses of engines, with commas between, that the page may change to")
    host: str = Field("127.0.0.1", description="address on which the page listens")
    port: int = Field(7860, ge=0, le=65_535, description="port on which the page listens; 0 takes a free one")
    insecure: bool = Field(
        default=False, description="allow an address that other machines can reach, without accounts"
    )
    database_url: SecretStr = Field(
        SecretStr(""),
        description="where conversations are kept: empty for a SQLite file in home, or postgresql://USER:PASSWORD@HOST/NAME",
    )
    slots: int = Field(4, ge=1, le=64, description="answers that the embedded engine writes at the same time")
    context: int = Field(0, ge=0, le=1_048_576, description="tokens of the model's window to use; 0 takes what fits")
    threads: int = Field(0, ge=0, le=512, description="processor threads of the embedded engine; 0 chooses")
    kv_type: KvType = Field("f16", description="type of the KV cache: q8_0 takes about half the memory of f16")
    gpu_layers: Annotated[int, Field(ge=0, le=1024)] | Literal["auto"] = Field(
        "auto", description="layers of the model on the graphics card; auto is as many as fit, 0 is none"
    )
    speculation: Literal["off", "ngram"] = Field(
        "off", description="ngram guesses what was said before; one answer at a time, and guesses have no probability"
    )
    lora: Annotated[tuple[str, ...], NoDecode] = Field(
        (), description="LoRA adapters to apply: PATH or PATH:SCALE of a GGUF file; several with commas between"
    )
    grace: float = Field(
        20, ge=0, le=3600, description="seconds that running answers get to finish when a server is told to end"
    )
    log: Literal["debug", "info", "warning", "error"] = Field("warning", description="least level that is logged")

    @field_validator("home")
    @classmethod
    def _absolute(cls, home: Path) -> Path:
        return home.expanduser().absolute()

    @field_validator("engine_key")
    @classmethod
    def _engine_key(cls, key: SecretStr) -> SecretStr:
        said = key.get_secret_value().strip()
        if not all("!" <= letter <= "~" for letter in said):
            raise ValueError("a key has printable ASCII characters only and no spaces")
        return SecretStr(said)

    @field_validator("lora", mode="before")
    @classmethod
    def _several(cls, said: object) -> object:
        return tuple(part.strip() for part in said.split(",") if part.strip()) if isinstance(said, str) else said

    @field_validator("host")
    @classmethod
    def _host(cls, host: str) -> str:
        if not host.strip():
            raise ValueError("an address such as 127.0.0.1 is needed")
        return host.strip()

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,  # noqa: ARG003
        file_secret_settings: PydanticBaseSettingsSource,  # noqa: ARG003
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        return (
            init_settings,
            env_settings,
            TomlConfigSettingsSource(settings_cls, _home_of(init_settings) / "cierzo.toml"),
        )

    @classmethod
    def load(cls, flags: Mapping[str, Any] | None = None) -> Settings:
        """Read flags, environment and file into one frozen value.

        Args:
            flags: Values that were said on the command line; None means that a flag was not given.

        Raises:
            BadSetting: A value cannot be used; the sentence names it, where it came from and what is allowed.
        """
        given = {name: value for name, value in (flags or {}).items() if value is not None}
        try:
            made = cls(**given)
        except ValidationError as refused:
            raise BadSetting(_sentence(refused, given)) from None
        except tomllib.TOMLDecodeError as broken:
            raise BadSetting(f"cierzo.toml cannot be read: {broken}") from None
        except OSError as denied:
            raise BadSetting(f"cierzo.toml cannot be read ({denied.strerror}): check who may read it") from None
        if _is_said("engine", given) and not _is_said("model", given):
            # The model in cierzo.toml, as `cierzo models use` writes it, was chosen for the engine in cierzo.toml.
            made.model_fields_set.discard("model")
        return made

    def writable_home(self) -> Path:
        """Make the home folder if need be, and return it.

        Raises:
            HomeNotWritable: It cannot be made or written.
        """
        try:
            self.home.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryFile(dir=self.home):
                pass
        except OSError as denied:
            raise HomeNotWritable(
                f"cannot write to {self.home} ({denied.strerror}): set CIERZO_HOME to a folder that you may write"
            ) from None
        return self.home

    def addresses(self) -> tuple[str, ...]:
        """The addresses in ``engines``."""
        return tuple(each.strip() for each in self.engines.split(",") if each.strip())

    def is_loopback(self) -> bool:
        """Whether only this machine can reach the page."""
        return self.host in LOOPBACK or self.host.startswith("127.")


def _is_said(name: str, given: Mapping[str, Any]) -> bool:
    """Whether a value was said for this run: by a flag or by the environment."""
    return name in given or f"CIERZO_{name.upper()}" in os.environ


def _home_of(flags: PydanticBaseSettingsSource) -> Path:
    """Find the home folder before the rest, since the file that may set the rest lies in it."""
    said = flags().get("home") or os.environ.get("CIERZO_HOME")
    return Path(said).expanduser() if said else default_home()


def _sentence(refused: ValidationError, given: Mapping[str, Any]) -> str:
    first = refused.errors()[0]
    name = str(first["loc"][0]) if first["loc"] else "a setting"
    if name in given:
        source = f"--{name.replace('_', '-')}"
    elif f"CIERZO_{name.upper()}" in os.environ:
        source = f"CIERZO_{name.upper()}"
    else:
        source = f"{name} in cierzo.toml"
    shown = "not usable" if name in _SECRETS else repr(first["input"])
    return f"{source} is {shown}: {first['msg'][0].lower()}{first['msg'][1:]}"
