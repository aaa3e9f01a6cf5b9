"""Who can reach a service: the default is this machine alone, and what is wider is said."""

import subprocess
import sys

import pytest
import yaml

from serve_app.cli import access_message
from serve_app.yaml_check import Checker, has_keys, is_loopback
from tests.conftest import ROOT
from tests.test_yaml_check import CHECKER

WARNING = "http_options.host: 0.0.0.0 can be reached from outside, and without keys"


def exposures(host: str, api: dict[str, str], checker: Checker = CHECKER) -> list[str]:
    """What the strict check says of `configs/local.yaml` on that host with those settings."""
    settings = yaml.safe_load((ROOT / "configs/local.yaml").read_text())
    settings["http_options"]["host"] = host
    settings["applications"][0]["args"]["api"] = api
    return [str(finding) for finding in checker.check(settings) if not finding.is_fault]


def test_the_default_binds_to_loopback_and_says_so() -> None:
    settings = yaml.safe_load((ROOT / "configs/local.yaml").read_text())
    host = settings["http_options"]["host"]
    assert is_loopback(host) and not has_keys(settings)
    assert access_message(host, settings) == (
        "Listening on loopback only (127.0.0.1): nobody outside this machine can connect; no API keys are configured."
    )


def test_an_open_port_without_keys_is_warned_of() -> None:
    [warning] = exposures("0.0.0.0", {})
    assert warning.startswith(WARNING)
    assert exposures("0.0.0.0", {"api_keys_variable": "KEYS"}) == []
    for host in ("127.0.0.1", "127.1.2.3", "::1", "localhost"):
        assert exposures(host, {}) == []
    for host in ("::", "192.0.2.7", "speech.example"):
        assert len(exposures(host, {})) == 1


def test_the_message_at_the_start_names_keys_and_reach() -> None:
    api = {"api_keys_file": "keys"}
    settings = {"applications": [{"import_path": "serve_app.app:build", "args": {"api": api}}]}
    assert access_message("0.0.0.0", settings).endswith("which can be reached from outside; API keys are asked for.")


@pytest.mark.parametrize("host", ["0.0.0.0", "127.0.0.1"])
def test_the_check_command_warns_and_passes(host: str, tmp_path_factory: pytest.TempPathFactory) -> None:
    settings = yaml.safe_load((ROOT / "configs/local.yaml").read_text())
    settings["http_options"]["host"] = host
    path = tmp_path_factory.mktemp("exposure") / "open.yaml"
    path.write_text(yaml.safe_dump(settings))
    command = [sys.executable, "-W", "ignore", "-m", "serve_app.cli", "check", "--no-files", str(path)]
    result = subprocess.run(command, check=False, capture_output=True, text=True, cwd=ROOT)
    assert result.returncode == 0, result.stderr
    assert ("warning: " + WARNING in result.stdout) == (host == "0.0.0.0")
