"""Settings: flags over environment over cierzo.toml over defaults, and one clear line for what cannot be used."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from cierzo.errors import BadSetting, HomeNotWritable
from cierzo.settings import Settings, default_home


def test_defaults_are_local() -> None:
    settings = Settings.load()
    assert (settings.host, settings.port, settings.engine, settings.model) == (
        "127.0.0.1",
        7860,
        "llamacpp:",
        "cierzo-demo",
    )
    assert settings.is_loopback()


def test_home_without_a_setting_is_the_platforms(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CIERZO_HOME")
    assert Settings.load().home == default_home()


def test_flag_beats_environment_beats_file_beats_default(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("CIERZO_HOME", str(tmp_path))
    assert Settings.load().port == 7860
    (tmp_path / "cierzo.toml").write_text("port = 1111\nslots = 2\n")
    assert Settings.load().port == 1111
    monkeypatch.setenv("CIERZO_PORT", "2222")
    assert Settings.load().port == 2222
    assert Settings.load({"port": 3333}).port == 3333
    assert Settings.load({"port": None}).port == 2222
    assert Settings.load().slots == 2


def test_the_flag_for_home_decides_which_file_is_read(tmp_path: Path) -> None:
    (tmp_path / "cierzo.toml").write_text("port = 1111\n")
    assert Settings.load({"home": tmp_path}).port == 1111


@pytest.mark.parametrize(
    ("flags", "says"),
    [
        ({"port": "x"}, "--port is 'x'"),
        ({"port": 70_000}, "less than or equal to 65535"),
        ({"slots": 0}, "--slots is 0"),
        ({"host": " "}, "--host is ' '"),
        ({"log": "loud"}, "--log is 'loud'"),
        ({"kv_type": "q9"}, "--kv-type is 'q9'"),
        ({"gpu_layers": "many"}, "--gpu-layers is 'many'"),
        ({"gpu_layers": -1}, "--gpu-layers is -1"),
        ({"speculation": "yes"}, "--speculation is 'yes'"),
    ],
)
def test_a_value_that_cannot_be_used_is_named(flags: dict[str, object], says: str) -> None:
    with pytest.raises(BadSetting) as refused:
        Settings.load(flags)
    assert says in str(refused.value)
    assert "\n" not in str(refused.value)


def test_the_source_of_a_bad_value_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("CIERZO_PORT", "99999")
    with pytest.raises(BadSetting, match=r"^CIERZO_PORT is '99999'"):
        Settings.load()
    monkeypatch.delenv("CIERZO_PORT")
    (tmp_path / "cierzo.toml").write_text("slots = 'many'\n")
    with pytest.raises(BadSetting, match=r"^slots in cierzo.toml is 'many'"):
        Settings.load({"home": tmp_path})
    (tmp_path / "cierzo.toml").write_text("this is not toml\n")
    with pytest.raises(BadSetting, match=r"^cierzo.toml cannot be read"):
        Settings.load({"home": tmp_path})


def test_a_key_that_cannot_be_used_is_not_repeated(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CIERZO_ENGINE_KEY", "sk secret\n")
    with pytest.raises(BadSetting) as refused:
        Settings.load()
    assert "secret" not in str(refused.value)
    monkeypatch.setenv("CIERZO_ENGINE_KEY", " sk-secret ")
    settings = Settings.load()
    assert settings.engine_key.get_secret_value() == "sk-secret"
    assert "secret" not in repr(settings)


def test_home_is_made_when_it_is_needed(tmp_path: Path) -> None:
    settings = Settings.load({"home": tmp_path / "a" / "b"})
    assert not settings.home.exists()
    assert settings.writable_home().is_dir()


def test_home_that_cannot_be_made_says_what_to_do(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(HomeNotWritable, match="set CIERZO_HOME"):
        Settings.load({"home": tmp_path / "file" / "home"}).writable_home()


@pytest.mark.parametrize(
    ("host", "local"),
    [("127.0.0.1", True), ("127.1.2.3", True), ("::1", True), ("localhost", True), ("0.0.0.0", False)],
)
def test_loopback(host: str, local: bool) -> None:
    assert Settings.load({"host": host}).is_loopback() is local


def test_what_the_embedded_engine_is_told(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    default = Settings.load()
    assert (default.kv_type, default.gpu_layers, default.speculation, default.lora) == ("f16", "auto", "off", ())
    monkeypatch.setenv("CIERZO_LORA", "a.gguf:0.5, b.gguf,")
    monkeypatch.setenv("CIERZO_GPU_LAYERS", "12")
    assert Settings.load().lora == ("a.gguf:0.5", "b.gguf")
    assert Settings.load().gpu_layers == 12
    assert Settings.load({"lora": ("c.gguf",), "gpu_layers": "auto"}).lora == ("c.gguf",)
    (tmp_path / "cierzo.toml").write_text('lora = ["d.gguf"]\nkv_type = "q8_0"\n')
    monkeypatch.delenv("CIERZO_LORA")
    assert Settings.load({"home": tmp_path}).lora == ("d.gguf",)


def test_a_model_in_the_file_is_for_the_engine_in_the_file(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "cierzo.toml").write_text('model = "mistral-7b"\n', "utf-8")
    home, server = {"home": tmp_path}, {"home": tmp_path, "engine": "openai+http://127.0.0.1:1"}
    assert "model" in Settings.load(home).model_fields_set
    assert "model" not in Settings.load(server).model_fields_set
    assert "model" in Settings.load(server | {"model": "theirs"}).model_fields_set
    monkeypatch.setenv("CIERZO_MODEL", "theirs")
    assert "model" in Settings.load(server).model_fields_set
    monkeypatch.delenv("CIERZO_MODEL")
    (tmp_path / "cierzo.toml").write_text('model = "theirs"\nengine = "openai+http://127.0.0.1:1"\n', "utf-8")
    assert "model" in Settings.load(home).model_fields_set


def test_settings_do_not_change_the_environment() -> None:
    before = dict(os.environ)
    Settings.load()
    assert dict(os.environ) == before
