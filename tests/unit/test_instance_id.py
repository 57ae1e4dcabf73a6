"""The setting that names a process."""

import pytest

from scheduler.adapters.kafka_member import heartbeat_ms
from scheduler.errors import SettingsError
from scheduler.settings import load_settings


def test_without_one_a_member_is_dynamic() -> None:
    assert load_settings(instance_id="").instance_of("worker") is None


def test_it_is_its_own_for_each_kind_and_site() -> None:
    settings = load_settings(instance_id="host-1", topic_prefix="site.")
    assert settings.instance_of("worker") == "site.worker-host-1"
    assert settings.instance_of("dispatcher") == "site.dispatcher-host-1"
    assert settings.instance_id_in("dispatcher", "site.dispatcher-host-2") == "host-2"


def test_the_longest_is_one_that_kafka_takes() -> None:
    settings = load_settings(instance_id="i" * 64, topic_prefix="p" * 100)
    assert len(settings.instance_of("dispatcher") or "") <= 249


@pytest.mark.parametrize("wrong", ["a b", "a/b", "ä", "i" * 65, "a\n"])
def test_a_wrong_one_is_named(monkeypatch: pytest.MonkeyPatch, wrong: str) -> None:
    monkeypatch.setenv("POD_AUTOMATION_INSTANCE_ID", wrong)
    with pytest.raises(SettingsError, match=r"^POD_AUTOMATION_INSTANCE_ID: "):
        load_settings()


def test_heartbeats_tell_of_a_stop_in_time_whatever_the_session() -> None:
    assert [heartbeat_ms(session_ms) for session_ms in (1000, 1500, 6000, 60_000)] == [
        *(100, 125, 250, 250)
    ]
