"""The strict check of Serve YAMLs: against Ray's own schema, and every file under configs/."""

import warnings
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml
from typer.testing import CliRunner

from serve_app.cli import app
from serve_app.schema_faults import Place
from serve_app.yaml_check import Checker, Machine
from tests.conftest import ROOT, local_settings

with warnings.catch_warnings():  # of Ray's own
    warnings.simplefilter("ignore")
    from ray.runtime_env import RuntimeEnv
    from ray.serve.config import AutoscalingPolicy
    from ray.serve.schema import ServeDeploySchema

KNOWN = frozenset(RuntimeEnv.known_fields)
WITH_FILES = Checker(ServeDeploySchema, AutoscalingPolicy, KNOWN, machine=None)
CHECKER = replace(WITH_FILES, machine=Machine(2, 0), look_at_files=False)

BAD = """
proxy_locaton: HeadOnly
http_options: {prot: 8000, port: abc}
applications:
  - name: speech
    import_path: serve_app.app:build
    runtime_env: {env_var: {A: b}}
    autoscaling_policy: {policy_kwrgs: {}}
    args:
      checkpoint: nowhere
      synthesis: {thread: 2, max_streams: 8, device: gpu}
    deployments:
      - name: Ingres
        num_replicas: 0
        logging_config: {encodin: JSON}
      - name: Preprocess
        autoscaling_config: {min_replicas: 5, max_replicas: 2, target_ongoing_request: 4}
      - name: Synthesis
        max_ongoing_requests: 4
        max_queued_requests: many
        autoscaling_config:
          target_ongoing_requests: 9
          policy: {policy_function: "serve_app.nothing:Policy", policy_kwarg: {}}
        ray_actor_options: {num_gpu: 1, num_gpus: 1.5, num_cpus: -1}
      - name: Synthesis
        num_replicas: 2
        autoscaling_config: {min_replicas: 1}
"""
DEPLOYMENTS = "applications[0].deployments"
FAULTS = [
    "proxy_locaton: unknown key; did you mean proxy_location?",
    "http_options.prot: unknown key; did you mean port?",
    "http_options.port: input should be a valid integer, unable to parse string as an integer",
    "applications[0].runtime_env.env_var: unknown key; did you mean env_vars?",
    "applications[0].autoscaling_policy.policy_kwrgs: unknown key; did you mean policy_kwargs?",
    "applications[0].args.synthesis.thread: unknown key; did you mean threads?",
    "applications[0].args.synthesis.device: input should be 'auto', 'cpu' or 'cuda'",
    "applications[0].args.checkpoint: there is no folder nowhere",
    f"{DEPLOYMENTS}[0].name: the graph has no Ingres; did you mean Ingress?",
    f"{DEPLOYMENTS}[0].num_replicas: input should be greater than 0",
    f"{DEPLOYMENTS}[0].logging_config.encodin: unknown key; did you mean encoding?",
    f"{DEPLOYMENTS}[1].autoscaling_config.target_ongoing_request: unknown key; did you mean target_ongoing_requests?",
    f"{DEPLOYMENTS}[1].autoscaling_config: max_replicas (2) must be greater than or equal to min_replicas (5)!",
    f"{DEPLOYMENTS}[2].max_queued_requests: input should be a valid integer",
    f"{DEPLOYMENTS}[2].max_ongoing_requests: is less than args.synthesis.max_streams (8): so many are never reached",
    f"{DEPLOYMENTS}[2].autoscaling_config.target_ongoing_requests: is more than max_ongoing_requests (4): "
    "no replica would ever be added",
    f"{DEPLOYMENTS}[2].autoscaling_config.policy.policy_function: cannot be used: No module named 'serve_app.nothing'",
    f"{DEPLOYMENTS}[2].autoscaling_config.policy.policy_kwarg: unknown key; did you mean policy_kwargs?",
    f"{DEPLOYMENTS}[2].ray_actor_options.num_gpu: unknown key; did you mean num_gpus?",
    f"{DEPLOYMENTS}[2].ray_actor_options.num_gpus: more than one GPU must be a whole number",
    f"{DEPLOYMENTS}[2].ray_actor_options.num_cpus: input should be greater than or equal to 0",
    f"{DEPLOYMENTS}[2].name: Synthesis occurs 2 times",
    f"{DEPLOYMENTS}[3].name: Synthesis occurs 2 times",
    f"{DEPLOYMENTS}[3]: manually setting num_replicas is not allowed when autoscaling_config is provided.",
]


def lines(text: str, checker: Checker = CHECKER) -> list[str]:
    return [str(finding) for finding in checker.check(yaml.safe_load(text))]


def faults_of(path: Path, checker: Checker = CHECKER) -> list[str]:
    return [str(finding) for finding in checker.check_file(path) if finding.is_fault]


@pytest.mark.parametrize("path", sorted(ROOT.glob("configs/*.yaml")), ids=lambda path: path.name)
def test_every_configuration_is_sound(path: Path) -> None:
    """But for the checkpoint, which need not be here."""
    assert faults_of(path) == []


def test_the_configuration_of_this_machine_is_whole(toy_checkpoint: Path, tmp_path: Path) -> None:
    path = tmp_path / "local.yaml"
    path.write_text(yaml.safe_dump(local_settings(toy_checkpoint)))
    assert faults_of(path, WITH_FILES) == []


def test_all_faults_are_named_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    assert sorted(lines(BAD, WITH_FILES)) == sorted(FAULTS)


def test_whatever_stands_anywhere_is_a_finding_and_no_crash() -> None:
    """Each value of a sound configuration is replaced by something of another shape."""
    sound = (ROOT / "configs/local.yaml").read_text()
    for index, place in enumerate(places(yaml.safe_load(sound))):
        content = yaml.safe_load(sound)
        odd: object = [None, [5], {"odd": [{}]}, "odd", -1.5][index % 5]
        put(content, place, odd)
        CHECKER.check(content)
        put(content, place, {"odd": [odd]})
        assert any(finding.is_fault for finding in CHECKER.check(content)), place


def places(content: object, place: Place = ()) -> Iterator[Place]:
    items = content.items() if isinstance(content, dict) else enumerate(content) if isinstance(content, list) else ()
    for key, value in items:
        yield (*place, key)
        yield from places(value, (*place, key))


def put(content: Any, place: Place, value: object) -> None:
    for step in place[:-1]:
        content = content[step]
    content[place[-1]] = value


def test_a_sound_one_with_each_deployment_misspelt() -> None:
    """The check of names is no accident of one file: each part of the graph can be renamed, and is missed."""
    text = (ROOT / "configs/local.yaml").read_text()
    for name in ("Ingress", "Preprocess", "Synthesis"):
        assert any(
            f"the graph has no {name}s" in line for line in lines(text.replace(f"name: {name}\n", f"name: {name}s\n"))
        )


def test_missing_files_are_named(toy_checkpoint: Path, tmp_path: Path) -> None:
    checkpoint = tmp_path / "checkpoint"
    checkpoint.mkdir()
    for part in toy_checkpoint.iterdir():
        if part.name != "flow.pt":
            (checkpoint / part.name).symlink_to(part)
    settings = local_settings(checkpoint)
    arguments = settings["applications"][0]["args"]
    arguments["api"] = {"api_keys_file": str(tmp_path / "keys")}
    arguments["preprocess"] = {"voices_dir": str(tmp_path / "voices")}
    place = "applications[0].args"
    assert lines(yaml.safe_dump(settings), WITH_FILES) == [
        f"{place}.checkpoint: {checkpoint} lacks flow.pt",
        f"{place}.preprocess.voices_dir: there is no folder {tmp_path / 'voices'}",
        f"{place}.api.api_keys_file: there is no file {tmp_path / 'keys'}",
    ]


def test_a_demand_above_this_machine_is_a_warning() -> None:
    text = """
applications:
  - name: speech
    import_path: serve_app.app:build
    args: {checkpoint: x, synthesis: {gpu_memory_share: 0.2}}
    deployments:
      - {name: Preprocess, num_replicas: 3, ray_actor_options: {num_cpus: 1}}
      - {name: Synthesis, autoscaling_config: {min_replicas: 2, max_replicas: 9}, ray_actor_options: {num_gpus: 0.25}}
"""
    findings = CHECKER.check(yaml.safe_load(text))
    assert [(str(finding), finding.is_fault) for finding in findings] == [
        ("applications: the replicas need 3 CPU from the start; this machine has 2", False),
        ("applications: the replicas need 0.5 GPU from the start; this machine has 0", False),
    ]
    enough = replace(CHECKER, machine=Machine(3, 0.5))
    assert lines(text, enough) == []


def policy(function: str, arguments: str) -> str:
    """An autoscaling_config, in YAML's short form."""
    return (
        f"autoscaling_config: {{policy: {{policy_function: 'serve_app.{function}', policy_kwargs: {{{arguments}}}}}}}"
    )


@pytest.mark.parametrize(
    ("deployment", "fault"),
    [
        ("name: Synthesis, user_config: {max_laod: 1}", "user_config.max_laod: unknown key; did you mean max_load?"),
        ("name: Synthesis, user_config: {max_load: 0}", "user_config.max_load: input should be greater than 0"),
        ("name: Ingress, user_config: {default_voic: x}", "unknown key; did you mean default_voice?"),
        ("name: Preprocess, user_config: {a: 1}", "Preprocess has no settings that change while it runs"),
        ("name: Synthesis, ray_actor_options: {num_gpus: 0.25}", "num_gpus: is less than"),
        (f"name: Synthesis, {policy('synthesis.autoscaling:SpareStreams', 'spare_shar: 1')}", "'spare_shar'"),
        (f"name: Synthesis, {policy('synthesis.autoscaling:SpareStreams', 'spare_share: 1')}", "policy_kwargs: 0 <= "),
        (f"name: Preprocess, {policy('preprocess.autoscaling:QueueTime', 'keep: 2')}", "policy_kwargs: max_wait_s > 0"),
    ],
)
def test_settings_that_change_and_shares_of_a_gpu(deployment: str, fault: str) -> None:
    text = f"""
applications:
  - import_path: serve_app.app:build
    args: {{checkpoint: x, synthesis: {{gpu_memory_share: 0.3}}}}
    deployments: [{{{deployment}}}]
"""
    assert [line for line in lines(text, replace(CHECKER, machine=None)) if fault in line], lines(text)


def test_a_fraction_of_a_gpu_without_a_share_of_its_memory_is_a_warning() -> None:
    text = """
applications:
  - import_path: serve_app.app:build
    args: {checkpoint: x}
    deployments: [{name: Synthesis, ray_actor_options: {num_gpus: 0.25}}]
"""
    (finding,) = replace(CHECKER, machine=None).check(yaml.safe_load(text))
    assert "need args.synthesis.gpu_memory_share" in finding.message and not finding.is_fault


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("", "is empty"),
        ("- a", "must be a mapping of keys to values, not a list"),
        ("a: [", "is not YAML: line 1"),
        ("applications: []\napplications: []", "the key applications is there twice"),
        ("applications: []", "applications: there is none"),
        ("applications: 5", "applications: input should be a valid list"),
        ("http_options: {}", "applications: is required"),
        ("applications: [{import_path: 'serve_app.app:biuld'}]", "import_path: must be serve_app.app:build"),
        ("applications: [{import_path: serve_app.app:build, args: }]", "args: must be a mapping"),
        ("applications: [{import_path: serve_app.app:build}]", "args.checkpoint: is required"),
        ("a: 1\n---\nb: 2", "several documents"),
        (
            "kind: RayService\nspec: {serveConfigV2: 'proxy_locaton: x'}",
            "spec.serveConfigV2.proxy_locaton: unknown key",
        ),
        ("kind: RayService\nspec: {}", "spec.serveConfigV2: must be the Serve settings as a string"),
    ],
)
def test_what_is_no_configuration(tmp_path: Path, text: str, fault: str) -> None:
    path = tmp_path / "some.yaml"
    path.write_text(text)
    assert any(fault in line for line in faults_of(path)), faults_of(path)


def test_anchors_and_merges_are_not_doubles(tmp_path: Path) -> None:
    path = tmp_path / "some.yaml"
    path.write_text(
        "applications:\n- import_path: other:app\n  deployments:\n"
        "  - &first {name: a, num_replicas: 2}\n  - {<<: *first, name: b}\n"
    )
    findings = CHECKER.check_file(path)
    assert [finding.is_fault for finding in findings] == [False] and "another program's" in str(findings[0])


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of Ray's own
def test_the_command(tmp_path: Path) -> None:
    path = tmp_path / "bad.yaml"
    path.write_text(BAD)
    ended = CliRunner().invoke(app, ["check", "--no-files", str(path)])
    assert ended.exit_code == 1
    assert f"{path}: proxy_locaton: unknown key; did you mean proxy_location?\n" in ended.stdout
    assert ended.stderr == f"cosyserve: {len(FAULTS) - 1} faults found\n"
    local = ROOT / "configs/local.yaml"
    ended = CliRunner().invoke(app, ["check", "--no-files", str(local)])
    assert (ended.exit_code, ended.stderr) == (0, f"{local}: sound\n")
    ended = CliRunner().invoke(app, ["check", str(tmp_path / "nowhere.yaml")])
    assert ended.exit_code == 1 and ended.stderr.endswith("nowhere.yaml: No such file or directory\n")


def test_serve_starts_nothing_that_is_not_sound(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("serve_app.cli.run_service", lambda config, address: pytest.fail("it was started"))
    path = tmp_path / "bad.yaml"
    path.write_text(BAD.replace("port: abc", "port: 0"))
    ended = CliRunner().invoke(app, ["serve", str(path)])
    assert ended.exit_code == 1
    assert "did you mean proxy_location?" in ended.stderr and ended.stderr.endswith("nothing was started\n")
