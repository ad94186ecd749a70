import os
import subprocess
import sys
from pathlib import Path

import pytest

from haina.coordinator.static import Address, StaticSettings, load
from haina.errors import ConfigError


@pytest.fixture(autouse=True)
def _alone(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in list(os.environ):
        if name.startswith("HAINA_"):
            monkeypatch.delenv(name)


def test_defaults_are_for_this_machine_only():
    static = load({})
    assert static.state == Path("haina-state")
    assert (static.http, static.grpc) == (Address("127.0.0.1", 8443), Address("127.0.0.1", 8444))
    assert static.public_name == "localhost"
    assert (static.database, static.log_level, static.log_format) == (None, "info", "text")
    assert static.limits.uploads == static.uploads
    assert static.limits.upload_bytes == static.spool_bytes


def test_command_line_over_environment_over_file(tmp_path, monkeypatch):
    Path("haina.toml").write_text(
        'state = "from-file"\nhttp = "0.0.0.0:1"\ngrpc = "0.0.0.0:2"\nnames = ["a.example", "10.0.0.1"]\nspool_bytes = "2GB"\n'
    )
    assert load({}).http == Address("0.0.0.0", 1)
    monkeypatch.setenv("HAINA_HTTP", "[::]:3")
    monkeypatch.setenv("HAINA_GRPC", "[::1]:4")
    monkeypatch.setenv("HAINA_NAMES", "b.example, ::1")
    monkeypatch.setenv("HAINA_LOG_LEVEL", "WARNING")
    monkeypatch.setenv("HAINA_UPLOAD_BYTES", "1GiB")
    monkeypatch.setenv("HAINA_LOG_FORMAT", "")
    static = load({"grpc": "fed.example.org:0", "log_level": None, "uploads": 7})
    assert static.state == Path("from-file")
    assert static.http == Address("::", 3)
    assert static.grpc == Address("fed.example.org", 0)
    assert static.names == ("b.example", "::1")
    assert (static.log_level, static.log_format) == ("warning", "text")
    assert (static.upload_bytes, static.spool_bytes, static.uploads) == (1 << 30, 2 * 10**9, 7)
    other = tmp_path / "other.toml"
    other.write_text('state = "elsewhere"\n')
    assert load({}, other).state == Path("elsewhere")
    assert load({}, other).spool_bytes == 64 << 30


def test_the_password_may_lie_in_a_file_and_is_never_shown(tmp_path, monkeypatch):
    url = "postgresql://haina:hunter2@db/haina"
    secret = tmp_path / "secret"
    secret.write_text(url + "\n")
    monkeypatch.setenv("HAINA_DATABASE_FILE", str(secret))
    static = load({})
    assert static.database == url
    assert "hunter2" not in repr(static)
    assert "hunter2" not in str(static)
    monkeypatch.setenv("HAINA_DATABASE", url)
    with pytest.raises(ConfigError, match="both given") as caught:
        load({})
    assert "hunter2" not in str(caught.value)
    monkeypatch.delenv("HAINA_DATABASE")
    secret.write_text("\n")
    with pytest.raises(ConfigError, match="is empty"):
        load({})
    secret.unlink()
    with pytest.raises(ConfigError, match=r"secret cannot be read"):
        load({})
    monkeypatch.delenv("HAINA_DATABASE_FILE")
    with pytest.raises(ConfigError) as caught:
        load({"database": ["hunter2"]})
    assert "hunter2" not in str(caught.value)


@pytest.mark.parametrize(
    ("options", "environment", "file", "words"),
    [
        ({"http": "8443"}, {}, "", "--http is '8443'. Allowed: HOST:PORT"),
        ({"log_level": "loud"}, {}, "", "--log-level is 'loud'. Allowed: 'debug', 'info'"),
        ({}, {"HAINA_HTTP": "a:70000"}, "", "HAINA_HTTP is 'a:70000'. Allowed: HOST:PORT"),
        ({}, {"HAINA_UPLOADS": "0"}, "", "HAINA_UPLOADS is '0'. Allowed: greater than or equal to 1"),
        ({}, {"HAINA_SPOOL_BYTES": "many"}, "", "HAINA_SPOOL_BYTES is 'many'"),
        ({}, {"HAINA_NAMES": "a/b"}, "", "HAINA_NAMES is 'a/b'"),
        (
            {},
            {"HAINA_LOGLEVEL": "info"},
            "",
            "HAINA_LOGLEVEL, which is no setting. Did you mean HAINA_LOG_LEVEL?",
        ),
        ({}, {}, "uploads = -1", "haina.toml: uploads is -1"),
        ({}, {}, "upload = 1", "haina.toml: there is no setting 'upload'"),
        ({}, {}, "upload = 1", "Did you mean uploads?"),
        ({}, {}, "names = []", "haina.toml: names is"),
        ({}, {}, "a = = 1", "haina.toml is not TOML"),
        ({}, {}, "\xff", "haina.toml"),
    ],
)
def test_errors_say_where_what_and_what_is_allowed(monkeypatch, options, environment, file, words):
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    Path("haina.toml").write_text(file, encoding="latin-1")
    with pytest.raises(ConfigError) as caught:
        load(options)
    assert words in str(caught.value)


def test_a_file_that_was_named_must_be_there():
    with pytest.raises(ConfigError, match=r"gone\.toml is not there"):
        load({}, Path("gone.toml"))


def test_other_programs_variables_are_left_alone(monkeypatch):
    monkeypatch.setenv("HAINA_VENV", "x")
    monkeypatch.setenv("HAINA_EXTRAS", "x")
    monkeypatch.setenv("HAINA_TEST_WORKERS", "2")
    assert load({}) == StaticSettings()


def test_nobody_else_pays_for_it():
    code = (
        "import sys, haina.wire.settings, haina.coordinator.spool; print('pydantic_settings' in sys.modules)"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert out.stdout.strip() == "False"
