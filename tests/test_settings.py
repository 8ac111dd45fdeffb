from __future__ import annotations

import re
from pathlib import Path

import pytest

from distbp.core import settings
from distbp.core.errors import SettingsError


@pytest.mark.parametrize("name", settings.SETTINGS)
def test_every_setting_has_a_default_of_its_kind_and_a_help_line(name, monkeypatch):
    monkeypatch.delenv(name, raising=False)
    setting = settings.SETTINGS[name]
    assert name.startswith(("DISTBP_", "RAY_", "XDG_", "NUMBA_"))
    assert settings.get(name) == setting.default
    assert setting.help
    assert isinstance(setting.default, int) == bool(setting.unit)
    assert not setting.choices or setting.default in setting.choices


@pytest.mark.parametrize(
    ("text", "value"), [("7", 7), ("64KiB", 65536), ("3 MiB", 3 * 2**20), ("2GiB", 2**31), ("1TiB", 2**40)]
)
def test_sizes(text, value, monkeypatch):
    monkeypatch.setenv("DISTBP_MAX_FILE_BYTES", text)
    assert settings.get("DISTBP_MAX_FILE_BYTES") == value


@pytest.mark.parametrize("text", ["lots", "-1", "0", "1.5GiB", "1GB", "9" * 30])
def test_bad_sizes(text, monkeypatch):
    monkeypatch.setenv("DISTBP_MAX_FILE_BYTES", text)
    message = (
        f"DISTBP_MAX_FILE_BYTES is '{text}', but must be a whole number of bytes above 0,"
        " such as 1073741824 or 1GiB. Mend or unset it."
    )
    with pytest.raises(SettingsError, match=f"^{re.escape(message)}$"):
        settings.get("DISTBP_MAX_FILE_BYTES")


def test_a_ratio_has_no_size_unit(monkeypatch):
    monkeypatch.setenv("DISTBP_MAX_EXPANSION", "1KiB")
    with pytest.raises(SettingsError, match="must be a whole number of times above 0, such as 200"):
        settings.get("DISTBP_MAX_EXPANSION")


def test_bad_choice(monkeypatch):
    monkeypatch.setenv("DISTBP_KERNELS", "cuda")
    message = (
        "DISTBP_KERNELS is 'cuda', but must be one of: auto, numpy, numba, fma, mkl, amx. Mend or unset it."
    )
    with pytest.raises(SettingsError, match=re.escape(message)):
        settings.get("DISTBP_KERNELS")


def test_misspelled_names_are_told(monkeypatch):
    for name in ("DISTBP_KERNEL", "DISTBP_QQQQQQQQQQ", "DISTBP_SERVICE_HOST", "DISTBP_TEST_DATA", "KERNELS"):
        monkeypatch.setenv(name, "numpy")
    assert settings.misspelled() == ["DISTBP_KERNEL is not a setting; did you mean DISTBP_KERNELS?"]


@pytest.mark.parametrize("name", settings.SETTINGS)
def test_runners_get_the_settings_of_training_alone(name, monkeypatch):
    monkeypatch.setenv(name, "1")
    others = ("DISTBP_SERVICE_", "DISTBP_URL", "DISTBP_TOKEN", "XDG_CONFIG_HOME", "XDG_DATA_HOME")
    assert (name in settings.for_runners()) is not name.startswith(others)


def test_an_unknown_name_is_a_fault_of_the_caller():
    with pytest.raises(KeyError):
        settings.get("DISTBP_NO_SUCH_SETTING")


def test_only_settings_reads_the_environment():
    package = Path(settings.__file__).parent
    readers = [
        path.name
        for path in package.rglob("*.py")
        if re.search(
            r"os\.(environ\.get|getenv|environ\[[^]]+\](?!\s*=[^=]))", path.read_text(encoding="utf-8")
        )
    ]
    assert readers == ["settings.py"]
