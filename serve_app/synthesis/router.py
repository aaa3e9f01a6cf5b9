"""Which synthesis replica a call goes to: the one that knows the voice, or exactly the one that is speaking.

A call says what it wants by the `session_id` of its handle (`handle.options(session_id=...)`):

    voice:KEY      the replica that this voice's requests usually go to, so that its flow prefix is computed there and
                   found again; the least loaded one while that one has more than its share
    replica:ID     that replica and no other, because it holds the request that is meant; ReplicaUnavailableError if it
                   is gone
    (nothing)      the least loaded

Rendezvous hashing (Thaler and Ravishankar, 1998) needs no state: every ingress ranks the replicas of a voice alike, and
a replica that comes or goes moves only the voices that it wins or held. The bound on the load is that of Mirrokni,
Thorup and Zadimoghaddam, "Consistent Hashing with Bounded Loads" (2018).
"""

import hashlib
import math
from collections.abc import Iterable, Mapping

from ray.serve.exceptions import ReplicaUnavailableError
from ray.serve.request_router import PendingRequest, RequestRouter, RunningReplica

from serve_app.messages import REPLICA_SESSION, VOICE_SESSION


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

    tolerance = 0.25

    def initialize_state(self, tolerance: float = 0.25) -> None:
        """From `request_router_config: {request_router_kwargs: {tolerance: ...}}`."""
        self.tolerance = tolerance

    async def choose_replicas(
        self, candidate_replicas: list[RunningReplica], pending_request: PendingRequest | None = None
    ) -> list[list[RunningReplica]]:
        """Ranks: Ray takes the first that has room, and asks again, later each time, while none has."""
        if pending_request is None:
            return [candidate_replicas]
        pending_request.routing_context.should_backoff = True
        wanted = pending_request.metadata.session_id
        replicas = {replica.replica_id.unique_id: replica for replica in candidate_replicas}
        if wanted.startswith(REPLICA_SESSION):
            replica_id = wanted.removeprefix(REPLICA_SESSION)
            if replica_id not in replicas:
                self._give_up(pending_request, ReplicaUnavailableError(replica_id))
                return [candidate_replicas]  # Ray looks at the request before it looks at these
            return [[replicas[replica_id]]]
        if wanted.startswith(VOICE_SESSION):
            chosen = place(wanted.removeprefix(VOICE_SESSION), self._loads(replicas), self.tolerance)
            return [[replicas.pop(chosen)], list(replicas.values())]
        return [candidate_replicas]

    def _loads(self, replicas: Mapping[str, RunningReplica]) -> dict[str, int]:
        """Calls going on, as last heard; a replica not heard of for ten seconds counts as idle."""
        heard = self.replica_queue_len_cache
        return {name: heard.get(replica.replica_id) or 0 for name, replica in replicas.items()}

    def _give_up(self, pending: PendingRequest, error: Exception) -> None:
        if not pending.future.done():
            pending.future.set_exception(error)
        self._remove_pending_request_from_indices(pending)

    def _get_pending_request_matching_internal_request_id(self, request_metadata: object = None) -> object:
        """The very call that a replica was chosen for.

        Ray looks it up by the id of the request that the calls are made for, which all calls of one WebSocket share: a
        new sentence could be sent where the text of the last one was going.
        """
        waiting = (p for p in self._pending_requests_to_fulfill if p.metadata is request_metadata)
        return next((pending for pending in waiting if not pending.future.done()), None)
