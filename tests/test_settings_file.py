"""One entry of cierzo.toml is written, and nothing else in it changes."""

from __future__ import annotations

import stat
import tomllib
from pathlib import Path

import pytest

from cierzo.errors import BadSetting, HomeNotWritable
from cierzo.settings import Settings
from cierzo.settings_file import set_entry

WRITTEN = """# my own notes
port = 8000   # not the usual one
model = 'old' # chosen in May

  # slots for everybody
slots=2
grace = 5.5
"""


def test_makes_the_file_and_its_folder(tmp_path: Path) -> None:
    path = set_entry(tmp_path / "new" / "home", "model", "mistral-7b")
    assert path.read_text() == 'model = "mistral-7b"\n'
    assert Settings.load({"home": tmp_path / "new" / "home"}).model == "mistral-7b"


def test_leaves_the_rest_as_people_wrote_it(tmp_path: Path) -> None:
    path = tmp_path / "cierzo.toml"
    path.write_text(WRITTEN)
    path.chmod(0o640)
    assert set_entry(tmp_path, "model", "mistral-nemo") == path
    assert path.read_text() == WRITTEN.replace("'old'", '"mistral-nemo"')
    assert stat.S_IMODE(path.stat().st_mode) == 0o640
    assert [each.name for each in tmp_path.iterdir()] == ["cierzo.toml"]


@pytest.mark.parametrize(
    "text",
    ["", "# nothing\n", "port = 1", '[other]\nmodel = "theirs"\n', 'notes = """\nmodel = "x"\n"""\n', "port = 1\r\n"],
)
@pytest.mark.parametrize("value", ["plain", 'a "quoted" \\ path', "hf:a/b/c.gguf", "números.gguf"])
def test_every_other_entry_stays(tmp_path: Path, text: str, value: str) -> None:
    (tmp_path / "cierzo.toml").write_bytes(text.encode())
    written = tomllib.loads(set_entry(tmp_path, "model", value).read_bytes().decode())
    assert written == {**tomllib.loads(text), "model": value}


def test_a_link_stays_a_link(tmp_path: Path) -> None:
    (tmp_path / "dotfiles.toml").write_text("port = 1\n")
    (tmp_path / "cierzo.toml").symlink_to("dotfiles.toml")
    set_entry(tmp_path, "model", "x")
    assert (tmp_path / "cierzo.toml").is_symlink()
    assert 'model = "x"' in (tmp_path / "dotfiles.toml").read_text()


@pytest.mark.parametrize("text", [b"model = ", b"\xff\xfe", b"a = 1\na = 2\n"])
def test_a_file_that_is_no_toml_is_left_alone(tmp_path: Path, text: bytes) -> None:
    path = tmp_path / "cierzo.toml"
    path.write_bytes(text)
    with pytest.raises(BadSetting, match=r"cierzo.toml cannot be read .* mend it first") as refused:
        set_entry(tmp_path, "model", "x")
    assert "\n" not in str(refused.value)
    assert path.read_bytes() == text


def test_a_home_that_is_no_folder(tmp_path: Path) -> None:
    (tmp_path / "home").write_text("a file")
    with pytest.raises(HomeNotWritable, match="cannot write"):
        set_entry(tmp_path / "home", "model", "x")
