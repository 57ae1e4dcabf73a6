"""Settings out of files, as orchestrators hand out secrets."""

from pathlib import Path

import pytest

from scheduler.errors import SettingsError
from scheduler.settings import load_settings

DSN = "postgresql://pods:hidden@db:5432/pods"
VARIABLE = "POD_AUTOMATION_POSTGRES_DSN"


def test_a_file_holds_the_value(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "dsn"
    path.write_text(f"{DSN}\n", "utf-8")
    monkeypatch.setenv(f"{VARIABLE}_FILE", str(path))
    assert load_settings().postgres_dsn == DSN
    other = "postgresql://other@db/pods"
    assert load_settings(postgres_dsn=other).postgres_dsn == other


def test_any_setting_may_be_in_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "partitions"
    path.write_text("4", "utf-8")
    monkeypatch.setenv("POD_AUTOMATION_PARTITIONS_FILE", str(path))
    assert load_settings().partitions == 4
    path.write_text("four", "utf-8")
    with pytest.raises(SettingsError, match=r"^POD_AUTOMATION_PARTITIONS: "):
        load_settings()


def test_what_is_wrong_is_named_and_never_shown(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "dsn"
    monkeypatch.setenv(f"{VARIABLE}_FILE", str(path))
    with pytest.raises(SettingsError, match=rf"^{VARIABLE}_FILE: .*No such file"):
        load_settings()
    path.write_bytes(b"\xff")
    with pytest.raises(SettingsError, match=rf"^{VARIABLE}_FILE: .*not UTF-8"):
        load_settings()
    path.write_text("mysql://pods:hidden@db/pods", "utf-8")
    with pytest.raises(SettingsError, match=f"^{VARIABLE}: ") as refused:
        load_settings()
    assert "hidden" not in str(refused.value)
    monkeypatch.setenv(VARIABLE, DSN)
    with pytest.raises(SettingsError, match="not both") as refused:
        load_settings()
    assert "hidden" not in str(refused.value)
