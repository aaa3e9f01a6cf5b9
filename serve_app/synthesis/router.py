"""Which synthesis replica a call goes to: the one that knows the voice, or exactly the one that is speaking.

A call says what it wants by the `session_id` of its handle (`handle.options(session_id=...)`):

    voice:KEY      the replica that this voice's requests usually go to, so that its flow prefix is computed there and
                   found again; the least loaded one while that one has more than its share
    replica:ID     that replica and no other, because it speaks the request that is meant, even if it is about to end;
                   ReplicaUnavailableError if it is gone
    (nothing)      the least loaded

Rendezvous hashing (Thaler and Ravishankar, 1998) needs no state: every ingress ranks the replicas of a voice alike, and
a replica that comes or goes moves only the voices that it wins or held. The bound on the load is that of Mirrokni,
Thorup and Zadimoghaddam, "Consistent Hashing with Bounded Loads" (2018).
"""

import asyncio
import hashlib
import math
from collections.abc import Iterable, Mapping
from typing import Any

from ray.serve.exceptions import ReplicaUnavailableError
from ray.serve.request_router import PendingRequest, ReplicaID, RequestRouter, RunningReplica

from serve_app.messages import REPLICA_SESSION, VOICE_SESSION

MAX_LEAVING = 64
"""Replicas remembered after they stopped getting requests: more than are ever ended together."""


def favourite(key: str, replica_ids: Iterable[str]) -> str:
    """The replica that `key` belongs to, whoever asks and in whatever order they are given."""
    return max(replica_ids, key=lambda replica_id: (_weight(key, replica_id), replica_id))


def _weight(key: str, replica_id: str) -> bytes:
    return hashlib.blake2b(f"{key}\0{replica_id}".encode(), digest_size=8).digest()


def place(key: str, loads: Mapping[str, int], tolerance: float) -> str:
    """The replica for one more request of a voice.

    loads: calls going on, of every replica. tolerance: how far a replica may be above the mean (with the newcomer
    counted) and still take its own voices; 0.25 is a quarter more.
    """
    share = math.ceil((1 + tolerance) * (sum(loads.values()) + 1) / len(loads))
    own = favourite(key, loads)
    return own if loads[own] < share else min(loads, key=lambda replica_id: (loads[replica_id], replica_id))


class VoiceRouter(RequestRouter):  # type: ignore[misc]  # Ray's classes have no types here
    """Ray runs one in every process that holds a handle to the synthesis deployment."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.tolerance = 0.25
        self.leaving: dict[str, RunningReplica] = {}

    def initialize_state(self, tolerance: float = 0.25) -> None:
        """From `request_router_config: {request_router_kwargs: {tolerance: ...}}`."""
        self.tolerance = tolerance

    def update_replicas(self, replicas: list[RunningReplica]) -> None:
        """A replica that gets no new requests still speaks those that it has, and their text must reach it."""
        before = {_name(replica): replica for replica in self.curr_replicas.values()}
        now = {_name(replica) for replica in replicas}
        known = {**self.leaving, **before}
        leaving = [(name, replica) for name, replica in known.items() if name not in now]
        self.leaving = dict(leaving[-MAX_LEAVING:])
        super().update_replicas(replicas)

    def on_replica_actor_died(self, replica_id: ReplicaID) -> None:
        self.leaving.pop(replica_id.unique_id, None)
        super().on_replica_actor_died(replica_id)

    async def _choose_replica_for_request(
        self, pending_request: PendingRequest, *, is_retry: bool = False
    ) -> RunningReplica:
        """Calls to one replica do not wait in line with those that have a choice.

        Ray tells calls in that line apart by the id of the request that they are made for, which all calls of one
        WebSocket share. Raises ReplicaUnavailableError.
        """
        wanted = pending_request.metadata.session_id
        if not wanted.startswith(REPLICA_SESSION):
            return await super()._choose_replica_for_request(pending_request, is_retry=is_retry)
        name = wanted.removeprefix(REPLICA_SESSION)
        if is_retry:  # it was full, or is gone
            pending_request.reset_future()
            await asyncio.sleep(self.initial_backoff_s)
        running = {_name(replica): replica for replica in self.curr_replicas.values()}
        chosen = running.get(name) or (None if is_retry else self.leaving.get(name))
        if chosen is None:
            raise ReplicaUnavailableError(name)
        return chosen

    async def choose_replicas(
        self, candidate_replicas: list[RunningReplica], pending_request: PendingRequest | None = None
    ) -> list[list[RunningReplica]]:
        """Ranks: Ray takes the first that has room, and asks again, later each time, while none has."""
        if pending_request is None:
            return [candidate_replicas]
        pending_request.routing_context.should_backoff = True
        wanted = pending_request.metadata.session_id
        if not wanted.startswith(VOICE_SESSION):
            return [candidate_replicas]
        replicas = {_name(replica): replica for replica in candidate_replicas}
        chosen = place(wanted.removeprefix(VOICE_SESSION), self._loads(replicas), self.tolerance)
        return [[replicas.pop(chosen)], list(replicas.values())]

    def _loads(self, replicas: Mapping[str, RunningReplica]) -> dict[str, int]:
        """Calls going on, as last heard; a replica not heard of for ten seconds counts as idle."""
        heard = self.replica_queue_len_cache
        return {name: heard.get(replica.replica_id) or 0 for name, replica in replicas.items()}


def _name(replica: RunningReplica) -> str:
    name: str = replica.replica_id.unique_id
    return name
