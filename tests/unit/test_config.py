"""Settings: defaults of the reference, aliases, and errors that name the variable."""

from __future__ import annotations

import importlib

import pytest

from agentexec.config import REDIS_BACKEND, SQL_BACKEND, Settings, load_settings
from agentexec.errors import SettingsError
from agentexec.worker.unknown_variables import unknown_variables


@pytest.fixture(autouse=True)
def _clean(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    for name in ("REDIS_URL", "DATABASE_URL", "AGENTEXEC_REDIS_URL", "AGENTEXEC_DATABASE_URL"):
        monkeypatch.delenv(name, raising=False)


def test_defaults_are_those_of_the_reference():
    settings = load_settings()
    assert settings.num_workers == 4
    assert settings.queue_name == "agentexec_tasks"
    assert settings.graceful_shutdown_timeout == 300
    assert settings.table_prefix == "agentexec_"
    assert settings.result_ttl == 3600
    assert settings.state_backend == "agentexec.state.redis_backend"
    assert settings.key_prefix == "agentexec"
    assert settings.activity_message_create == "Waiting to start."
    assert settings.activity_message_started == "Task started."
    assert settings.activity_message_complete == "Task completed successfully."
    assert settings.activity_message_error == "Task failed with error: {error}"
    assert settings.worker_concurrency == 10
    assert settings.max_crashes == 3


def test_a_misspelled_variable_is_reported_with_the_nearest_setting(monkeypatch, tmp_path):
    (tmp_path / ".env").write_text("AGENTEXEC_LEASE_SECOND=3\nOTHER=1\n")
    monkeypatch.setenv("AGENTEXEC_NUM_WORKER", "3")
    monkeypatch.setenv("AGENTEXEC_NUM_WORKERS", "3")
    monkeypatch.setenv("AGENTEXEC_XYZ", "3")
    monkeypatch.setenv("AGENTEXEC_TEST_SERVERS", "few")
    assert unknown_variables() == [
        "There is no setting AGENTEXEC_LEASE_SECOND; did you mean AGENTEXEC_LEASE_SECONDS?",
        "There is no setting AGENTEXEC_NUM_WORKER; did you mean AGENTEXEC_NUM_WORKERS?",
        "There is no setting AGENTEXEC_XYZ; it has no effect.",
    ]


def test_a_short_token_of_the_dashboard_is_refused_in_plain_words_and_not_told(monkeypatch):
    monkeypatch.setenv("AGENTEXEC_DASHBOARD_TOKEN", "s3cret")
    with pytest.raises(SettingsError) as caught:
        load_settings()
    assert str(caught.value) == "AGENTEXEC_DASHBOARD_TOKEN cannot be used: it needs 16 to 1000 characters."


@pytest.mark.parametrize("name", ["REDIS_URL", "AGENTEXEC_REDIS_URL"])
def test_the_redis_url_has_an_alias(monkeypatch, name):
    monkeypatch.setenv(name, "redis://host:1/0")
    assert load_settings().redis_url == "redis://host:1/0"


@pytest.mark.parametrize("name", ["DATABASE_URL", "AGENTEXEC_DATABASE_URL"])
def test_the_database_url_has_an_alias(monkeypatch, name):
    monkeypatch.setenv(name, "sqlite:///x.db")
    assert load_settings().database_url == "sqlite:///x.db"


def test_the_own_name_wins_over_the_alias(monkeypatch):
    monkeypatch.setenv("REDIS_URL", "redis://alias")
    monkeypatch.setenv("AGENTEXEC_REDIS_URL", "redis://own")
    assert load_settings().redis_url == "redis://own"


def test_the_env_file_is_read(tmp_path):
    (tmp_path / ".env").write_text("AGENTEXEC_NUM_WORKERS=7\n")
    assert load_settings().num_workers == 7


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("AGENTEXEC_NUM_WORKERS", "many"),
        ("AGENTEXEC_NUM_WORKERS", "0"),
        ("AGENTEXEC_RESULT_TTL", "-1"),
        ("AGENTEXEC_TABLE_PREFIX", "a-b"),
        ("AGENTEXEC_DYNAMODB_TABLE", "a b"),
        ("AGENTEXEC_LOG_LEVEL", "LOUD"),
        ("AGENTEXEC_MODEL_PRICES", "{oops"),
        ("AGENTEXEC_ACTIVITY_MESSAGE_ERROR", "{oops}"),
    ],
)
def test_the_error_of_an_invalid_value_names_its_variable(monkeypatch, name, value):
    monkeypatch.setenv(name, value)
    with pytest.raises(SettingsError, match=name) as caught:
        load_settings()
    assert "\n" not in str(caught.value)
    assert "^[" not in str(caught.value), "no regular expression"


def test_settings_can_be_assigned_and_are_checked():
    settings = Settings()
    settings.redis_url = "redis://localhost:6379/0"
    assert settings.backend_module == REDIS_BACKEND
    with pytest.raises(SettingsError, match="AGENTEXEC_NUM_WORKERS"):
        settings.num_workers = 0
    with pytest.raises(SettingsError, match="no setting named nom_workers"):
        settings.nom_workers = 1


def test_the_table_prefix_cannot_change_once_tables_have_their_names():
    importlib.import_module("agentexec.activity.models")
    settings = Settings()
    settings.table_prefix = "agentexec_"
    with pytest.raises(SettingsError, match="AGENTEXEC_TABLE_PREFIX cannot be changed"):
        settings.table_prefix = "ours_"


def test_without_a_redis_url_the_queue_is_in_the_database():
    assert load_settings().backend_module == SQL_BACKEND


def test_a_backend_set_explicitly_is_used(monkeypatch):
    monkeypatch.setenv("AGENTEXEC_STATE_BACKEND", "agentexec.state.redis_backend")
    assert load_settings().backend_module == REDIS_BACKEND
