"""Writing one entry of ``cierzo.toml`` and leaving all others, comments too, as people wrote them."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

from cierzo.errors import BadSetting, HomeNotWritable

NAME = "cierzo.toml"


def set_entry(home: Path, name: str, value: str) -> Path:
    """Give a setting a value that lasts, and return the file. It is written whole or not at all.

    Raises:
        BadSetting: The file that is there is not TOML.
        HomeNotWritable: It cannot be read or written.
    """
    import tomlkit  # noqa: PLC0415 - only who changes a setting needs it
    from tomlkit.exceptions import TOMLKitError  # noqa: PLC0415

    path = (home / NAME).resolve()  # a link stays a link
    try:
        text = path.read_bytes().decode("utf-8") if path.exists() else ""
        entries = tomlkit.parse(text)
        entries[name] = value
        _write(path, tomlkit.dumps(entries))
    except (TOMLKitError, UnicodeDecodeError) as broken:
        raise BadSetting(f"{path} cannot be read ({broken}): mend it first") from None
    except OSError as denied:
        raise HomeNotWritable(f"cannot write {path} ({denied.strerror}): check who may write there") from None
    return path


def _write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    mode = path.stat().st_mode & 0o777 if path.exists() else 0o600
    descriptor, part = tempfile.mkstemp(dir=path.parent, prefix=f".{NAME}.")
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(text.encode("utf-8"))
            file.flush()
            os.fsync(file.fileno())
        Path(part).chmod(mode)
        Path(part).replace(path)
    except BaseException:
        Path(part).unlink(missing_ok=True)
        raise
