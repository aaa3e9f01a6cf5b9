"""Which replica a call goes to, as arithmetic, and through Ray's own routing over replicas that are stood in for."""

import asyncio
import warnings
from collections import Counter
from types import SimpleNamespace
from typing import Any, cast

import pytest

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # Ray's own use of pydantic is deprecated
    from ray.serve._private.common import DeploymentHandleSource, DeploymentID, RequestMetadata
    from ray.serve.exceptions import ReplicaUnavailableError
    from ray.serve.request_router import PendingRequest, ReplicaID

    from serve_app.synthesis.router import VoiceRouter, favourite, place

VOICES = [f"voice-{number}" for number in range(400)]
REPLICAS = ["a", "b", "c", "d"]


def test_every_ingress_finds_the_same_favourite() -> None:
    assert [favourite(voice, REPLICAS) for voice in VOICES] == [
        favourite(voice, reversed(REPLICAS)) for voice in VOICES
    ]
    counts = Counter(favourite(voice, REPLICAS) for voice in VOICES)
    assert all(70 < counts[replica] < 130 for replica in REPLICAS), "voices are spread evenly"


def test_a_replica_that_goes_moves_only_its_own_voices() -> None:
    for voice in VOICES:
        before = favourite(voice, REPLICAS)
        if before != "c":
            assert favourite(voice, ["a", "b", "d"]) == before


def test_a_voice_goes_to_its_favourite_until_that_has_its_share() -> None:
    voice = next(voice for voice in VOICES if favourite(voice, ["a", "b"]) == "a")
    assert place(voice, {"a": 0, "b": 0}, 0.25) == "a"
    assert place(voice, {"a": 3, "b": 3}, 0.25) == "a"
    assert place(voice, {"a": 5, "b": 3}, 0.25) == "a", "six of nine are within a quarter above the mean, rounded up"
    assert place(voice, {"a": 7, "b": 3}, 0.25) == "b"
    assert place(voice, {"a": 7, "b": 3}, 1.0) == "a"
    assert place(voice, {"a": 1000}, 0.25) == "a", "where else"


def test_one_voice_alone_fills_every_replica() -> None:
    loads = dict.fromkeys(REPLICAS, 0)
    for _ in range(40):
        loads[place("everybody's", loads, 0.25)] += 1
    assert max(loads.values()) <= 13 and min(loads.values()) >= 6


class Replica:
    """What the router sees of one."""

    max_ongoing_requests = 4

    def __init__(self, name: str, num_ongoing: int = 0) -> None:
        self.replica_id = ReplicaID(name, DeploymentID("Synthesis", "speech"))
        self.num_ongoing = num_ongoing

    async def get_queue_len(self, deadline_s: float) -> int:
        return self.num_ongoing


def pending(session_id: str, internal_id: str) -> PendingRequest:
    metadata = RequestMetadata("r", internal_id, "speak", session_id=session_id)
    return PendingRequest([], {}, metadata)


@pytest.fixture
async def router() -> Any:
    made = VoiceRouter(DeploymentID("Synthesis", "speech"), DeploymentHandleSource.REPLICA, None, None, True)
    made.update_replicas([Replica("a"), Replica("b")])
    for replica in made.curr_replicas.values():
        made.on_new_queue_len_info(replica.replica_id, 0)
    return made


async def choice(router: Any, session_id: str, internal_id: str = "i") -> str:
    call = router._choose_replica_for_request(pending(session_id, internal_id))
    name: str = (await asyncio.wait_for(call, 5)).replica_id.unique_id
    return name


async def test_a_named_replica_is_chosen_and_a_lost_one_is_an_error(router: Any) -> None:
    for name in ("a", "b"):
        assert await choice(router, f"replica:{name}") == name
    with pytest.raises(ReplicaUnavailableError):
        await choice(router, "replica:gone")
    assert not router._pending_requests_by_id, "nothing is left of it"
    assert await choice(router, "") in ("a", "b")


async def test_a_replica_that_drains_still_gets_the_text_of_what_it_speaks(router: Any) -> None:
    before = list(router.curr_replicas.values())
    router.update_replicas([Replica("b"), Replica("c")])
    assert await choice(router, "replica:a") == "a"
    assert {await choice(router, f"voice:{voice}", voice) for voice in VOICES[:50]} == {"b", "c"}
    router.update_replicas([])
    assert await choice(router, "replica:a") == "a", "with nobody else left, too"
    (drained,) = (replica for replica in before if replica.replica_id.unique_id == "a")
    router.on_replica_actor_died(drained.replica_id)
    with pytest.raises(ReplicaUnavailableError):
        await choice(router, "replica:a")
    router.update_replicas([Replica("b")])
    assert "b" not in router.leaving


async def test_a_replica_that_drains_and_refuses_is_not_asked_again(router: Any) -> None:
    router.update_replicas([])
    call = pending("replica:a", "i")
    assert (await router._choose_replica_for_request(call)).replica_id.unique_id == "a"
    with pytest.raises(ReplicaUnavailableError):
        await router._choose_replica_for_request(call, is_retry=True)


async def test_a_full_replica_is_asked_again(router: Any) -> None:
    call = pending("replica:b", "i")
    for is_retry in (False, True, True):
        assert (await router._choose_replica_for_request(call, is_retry=is_retry)).replica_id.unique_id == "b"


async def test_a_voice_is_routed_by_what_the_replicas_have_to_do(router: Any) -> None:
    own = favourite("v", ["a", "b"])
    other = ({"a", "b"} - {own}).pop()
    assert await choice(router, "voice:v") == own
    router.on_new_queue_len_info(router_id(router, own), 3)
    assert await choice(router, "voice:v") == other


def router_id(router: Any, name: str) -> ReplicaID:
    (found,) = (replica_id for replica_id in router.curr_replicas if replica_id.unique_id == name)
    return cast(ReplicaID, found)


async def test_calls_of_one_request_do_not_take_each_others_replica(router: Any) -> None:
    """All that a WebSocket asks for has the same id inside Ray."""
    wanted = ["a", "b", "b", "a", "a", "b"] * 5
    chosen = await asyncio.gather(*(choice(router, f"replica:{name}", "the socket's") for name in wanted))
    assert chosen == wanted


def test_the_deployment_has_this_router() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from serve_app.app import _synthesis
    config = cast(SimpleNamespace, _synthesis)._deployment_config.request_router_config
    assert config.get_request_router_class() is VoiceRouter
