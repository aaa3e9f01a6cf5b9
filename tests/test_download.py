"""`cosyserve download` from a hub on loopback that speaks both protocols, cuts, damages and lies."""

import hashlib
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route
from typer.testing import CliRunner, Result

from serve_app import transfer
from serve_app.checkpoint_files import REQUIRED, SLOW_TOKENIZER
from serve_app.cli import app
from serve_app.download import RECORD
from serve_app.hubs import DownloadFault, HubFile, safe_path
from tests.fake_hub import FakeHub
from tests.loopback import serving, unused_address

UNWANTED = ("flow.decoder.estimator.fp32.onnx", "CosyVoice-BlankEN/model.safetensors", "README.md")


@pytest.fixture
def hub() -> FakeHub:
    names = (*REQUIRED, *SLOW_TOKENIZER, *UNWANTED)
    return FakeHub({name: f"{name}: ".encode() * 5000 for name in names})


@pytest.fixture
def url(hub: FakeHub) -> Iterator[str]:
    with serving(hub.app()) as address:
        yield address


@pytest.fixture(autouse=True)
def without_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(transfer, "sleep", lambda seconds: None)
    monkeypatch.delenv("HF_ENDPOINT", raising=False)


def download(url: str, to: Path, *more: str) -> Result:
    return CliRunner().invoke(app, ["download", "--endpoint", url, "--to", str(to), *more])


def written(folder: Path) -> dict[str, bytes]:
    """Everything but the record."""
    files = {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    files.pop(RECORD, None)
    return files


def wanted(hub: FakeHub) -> dict[str, bytes]:
    return {path: content for path, content in hub.files.items() if path not in UNWANTED}


@pytest.mark.parametrize("name", ["huggingface", "modelscope"])
def test_what_is_used_arrives_whole_and_is_asked_for_once(hub: FakeHub, url: str, tmp_path: Path, name: str) -> None:
    folder = tmp_path / "models" / "checkpoint"
    ended = download(url, folder, "--hub", name)
    assert ended.exit_code == 0, ended.output
    assert written(folder) == wanted(hub)
    assert "9 fetched, all verified" in ended.stderr and ended.stdout == ""
    # again: from anywhere, without any network
    ended = download(unused_address(), folder)
    assert (ended.exit_code, ended.stderr) == (0, f"{folder} is complete: 9 files, verified\n")
    assert Counter(path for path, _ in hub.requests) == Counter(wanted(hub).keys()) and hub.num_listings == 1


def test_only_what_was_damaged_since_is_fetched_again(hub: FakeHub, url: str, tmp_path: Path) -> None:
    assert download(url, tmp_path).exit_code == 0
    hub.requests.clear()
    (tmp_path / "flow.pt").write_bytes(hub.files["flow.pt"][:-1] + b"?")
    (tmp_path / "campplus.onnx").unlink()
    ended = download(url, tmp_path)
    assert ended.exit_code == 0 and "2 fetched" in ended.stderr
    assert sorted(path for path, _ in hub.requests) == ["campplus.onnx", "flow.pt"]
    assert written(tmp_path) == wanted(hub)


def test_another_revision_or_hub_is_asked_for(hub: FakeHub, url: str, tmp_path: Path) -> None:
    assert download(url, tmp_path).exit_code == 0
    ended = download(url, tmp_path, "--revision", "v2")
    assert ended.exit_code == 1 and "with a revision v2" in ended.stderr
    ended = download(url, tmp_path, "--hub", "modelscope")
    assert ended.exit_code == 0 and "0 fetched" in ended.stderr
    ended = download(url, tmp_path, "--hub", "modelscope", "--revision", "v2")
    assert ended.exit_code == 1 and "no such revision" in ended.stderr


@pytest.mark.parametrize("name", ["huggingface", "modelscope"])
def test_a_cut_is_gone_on_from(hub: FakeHub, url: str, tmp_path: Path, name: str) -> None:
    size = len(hub.files["llm.pt"])
    hub.cuts["llm.pt"] = [20_000, 10_000]
    hub.busy["flow.pt"] = 3
    ended = download(url, tmp_path, "--hub", name)
    assert ended.exit_code == 0, ended.output
    ranges = [asked for path, asked in hub.requests if path == "llm.pt"]
    assert size > 30_000 and ranges == ["", "bytes=20000-", "bytes=30000-"]
    assert written(tmp_path) == wanted(hub)


def test_a_later_run_goes_on_where_an_earlier_one_gave_up(hub: FakeHub, url: str, tmp_path: Path) -> None:
    hub.cuts["llm.pt"] = [20_000, *[0] * 10]
    ended = download(url, tmp_path)
    assert ended.exit_code == 1
    assert ended.stderr.splitlines()[-1].startswith("cosyserve: llm.pt: ") and "run again to go on" in ended.stderr
    assert "llm.pt" not in written(tmp_path) and not (tmp_path / RECORD).exists()
    hub.cuts.clear()
    hub.requests.clear()
    assert download(url, tmp_path).exit_code == 0
    assert [asked for path, asked in hub.requests if path == "llm.pt"] == ["bytes=20000-"]
    assert written(tmp_path) == wanted(hub)


def test_a_hub_without_ranges_begins_again(hub: FakeHub, url: str, tmp_path: Path) -> None:
    hub.takes_ranges = False
    hub.cuts["llm.pt"] = [20_000]
    assert download(url, tmp_path).exit_code == 0
    assert written(tmp_path) == wanted(hub)


def test_the_part_of_another_content_is_never_gone_on_from(hub: FakeHub, url: str, tmp_path: Path) -> None:
    hub.cuts["llm.pt"] = [20_000, *[0] * 10]
    assert download(url, tmp_path).exit_code == 1
    hub.cuts.clear()
    hub.files["llm.pt"] = b"a new revision" * 5000
    assert download(url, tmp_path).exit_code == 0
    assert written(tmp_path) == wanted(hub)  # the stale part included: it is gone


@pytest.mark.parametrize("path", ["llm.pt", "cosyvoice2.yaml"])
def test_a_wrong_hash_is_an_error_and_leaves_nothing(hub: FakeHub, url: str, tmp_path: Path, path: str) -> None:
    hub.damaged.add(path)
    (tmp_path / path).write_bytes(b"what was there before")
    ended = download(url, tmp_path)
    assert ended.exit_code == 1 and f"{path} is damaged" in ended.stderr
    assert written(tmp_path)[path] == b"what was there before"
    assert not list(tmp_path.rglob(f".{path}.*"))


def test_a_resumed_part_that_was_damaged_is_found_out(hub: FakeHub, url: str, tmp_path: Path) -> None:
    content = hub.files["llm.pt"]
    file = HubFile("llm.pt", len(content), "sha256", hashlib.sha256(content).hexdigest(), "")
    transfer.part_of(file, tmp_path).write_bytes(b"?" * 1000)
    ended = download(url, tmp_path)
    assert ended.exit_code == 1 and "llm.pt is damaged" in ended.stderr
    assert ("llm.pt", "bytes=1000-") in hub.requests
    assert download(url, tmp_path).exit_code == 0


@pytest.mark.parametrize("name", ["huggingface", "modelscope"])
@pytest.mark.parametrize(
    "path", ["../llm.pt", "CosyVoice-BlankEN/../../x", "/etc/x", "a\\..\\b", "C:x", "a//b", "a\nb"]
)
def test_unsafe_names_are_refused(hub: FakeHub, url: str, tmp_path: Path, name: str, path: str) -> None:
    hub.files[path] = b"x"
    folder = tmp_path / "checkpoint"
    ended = download(url, folder, "--hub", name)
    assert ended.exit_code == 1 and "unsafe name" in ended.stderr
    assert not folder.exists() and not hub.requests


def test_more_than_the_disk_holds_is_not_begun(hub: FakeHub, url: str, tmp_path: Path) -> None:
    hub.stated["llm.pt"] = 10**18
    ended = download(url, tmp_path / "checkpoint")
    assert ended.exit_code == 1 and "1000000000.0 GB are to come" in ended.stderr
    assert not hub.requests


def test_a_disk_that_fills_up_is_named(hub: FakeHub, url: str, tmp_path: Path) -> None:
    content = hub.files["llm.pt"]
    file = HubFile("llm.pt", len(content), "sha256", hashlib.sha256(content).hexdigest(), "")
    transfer.part_of(file, tmp_path).symlink_to("/dev/full")
    ended = download(url, tmp_path)
    assert ended.exit_code == 1 and f"no space is left at {tmp_path}" in ended.stderr


def test_a_hub_that_sends_more_or_less_than_it_lists(hub: FakeHub, url: str, tmp_path: Path) -> None:
    hub.stated["llm.pt"] = len(hub.files["llm.pt"]) - 1
    ended = download(url, tmp_path)
    assert ended.exit_code == 1 and "more than the" in ended.stderr
    hub.stated["llm.pt"] = len(hub.files["llm.pt"]) + 1
    assert download(url, tmp_path).exit_code == 1
    assert "llm.pt" not in written(tmp_path)


def test_a_listing_without_what_is_needed(hub: FakeHub, url: str, tmp_path: Path) -> None:
    del hub.files["hift.pt"], hub.files["CosyVoice-BlankEN/merges.txt"]
    ended = download(url, tmp_path)
    assert ended.exit_code == 1 and "lacks hift.pt, CosyVoice-BlankEN/merges.txt" in ended.stderr
    hub.files["hift.pt"] = b"x"
    hub.files["CosyVoice-BlankEN/tokenizer.json"] = b"stands for both"
    assert download(url, tmp_path).exit_code == 0


def test_no_network_and_no_hub(tmp_path: Path) -> None:
    nowhere = unused_address()
    ended = download(nowhere, tmp_path)
    assert ended.exit_code == 1 and ended.stderr.startswith(f"cosyserve: cannot reach {nowhere}: ")
    ended = download("nonsense", tmp_path)
    assert ended.exit_code == 1 and "nonsense is no address of a hub" in ended.stderr

    async def other(request: Request) -> Response:
        return Response("<html>")

    with serving(Starlette(routes=[Route("/{path:path}", other)])) as url:
        for name in ("huggingface", "modelscope"):
            ended = download(url, tmp_path, "--hub", name)
            assert ended.exit_code == 1 and f"{url} " in ended.stderr and ended.stderr.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_cannot_be_written_is_named(hub: FakeHub, url: str, tmp_path: Path) -> None:
    taken = tmp_path / "taken"
    taken.write_text("a file")
    ended = download(url, taken / "checkpoint")
    assert ended.exit_code == 1 and ended.stderr.splitlines()[-1].startswith("cosyserve: cannot write ")


@pytest.mark.parametrize("record", ["", "[]", '{"format": 2}'])
def test_a_strange_record_is_no_proof(hub: FakeHub, url: str, tmp_path: Path, record: str) -> None:
    assert download(url, tmp_path).exit_code == 0
    (tmp_path / RECORD).write_text(record)
    assert download(url, tmp_path).exit_code == 0 and hub.num_listings == 2


def test_an_interrupted_process_leaves_no_half_file(hub: FakeHub, url: str, tmp_path: Path) -> None:
    """kill -9 while a file arrives: nothing but a part is there, and the next run goes on from it."""
    hub.cuts["llm.pt"] = [20_000, *[0] * 10]
    command = [sys.executable, "-m", "serve_app.cli", "download", "--endpoint", url, "--to", str(tmp_path)]
    with subprocess.Popen(command, stderr=subprocess.PIPE) as process:
        # it sleeps between its attempts now, as it does for users
        deadline = time.monotonic() + 60
        while len([1 for path, _ in hub.requests if path == "llm.pt"]) < 2:
            assert process.poll() is None and time.monotonic() < deadline
            time.sleep(0.02)
        process.kill()
    assert "llm.pt" not in written(tmp_path)
    hub.cuts.clear()
    assert download(url, tmp_path).exit_code == 0
    assert hub.requests[-1] != ("llm.pt", "") and written(tmp_path) == wanted(hub)


def test_hf_endpoint_is_honoured(hub: FakeHub, url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_ENDPOINT", url + "/")
    ended = CliRunner().invoke(app, ["download", "--to", str(tmp_path)])
    assert ended.exit_code == 0, ended.output


def test_the_limits_of_unsafe_names() -> None:
    assert safe_path("CosyVoice-BlankEN/a..b.json") == "CosyVoice-BlankEN/a..b.json"
    with pytest.raises(DownloadFault):
        safe_path("..")
