"""Processes that write to a voice store and are killed, or race. Run as a script, so that it can fork safely.

crash add|remove FOLDER     For k = 0, 1, ...: in FOLDER/k, a store that holds Anna and Bob, a process adds Carla
                            (or removes Bob), killed before its k-th call that changes the disk. Ends with the
                            first k that is not killed, and prints the number of kills.
race FOLDER                 Six processes add the same ten names; prints one line, NAME ID, for each success.
"""

import multiprocessing
import os
import sys
from multiprocessing.synchronize import Barrier
from pathlib import Path

from serve_app.errors import VoiceExists
from serve_app.preprocess.voice_folder import DiskFolder
from serve_app.preprocess.voice_store import VoiceStore
from tests.preprocess.stored_voices import voice, watching_file_calls

KILLED = 9
NUM_RACERS, NUM_ROUNDS = 6, 10


def crash(operation: str, folder: Path) -> int:
    """The number of processes that were killed."""
    for kills in range(1000):
        store = VoiceStore(DiskFolder(folder / str(kills)))
        store.add(*voice("Anna", 1))
        store.add(*voice("Bob", 2))
        child = os.fork()
        if child == 0:
            die_after(kills, operation, store)
            os._exit(0)
        if os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) != KILLED:
            return kills
    raise AssertionError("never done")


def die_after(num_calls: int, operation: str, store: VoiceStore) -> None:
    """Adds Carla or removes Bob; the process ends, without any cleanup, before call number `num_calls`."""
    left = num_calls

    def count(name: str) -> None:
        nonlocal left
        if left == 0:
            os._exit(KILLED)
        left -= 1

    with watching_file_calls(count):
        if operation == "add":
            store.add(*voice("Carla", 3))
        else:
            store.remove("Bob")


def race(folder: Path) -> None:
    context = multiprocessing.get_context("fork")
    barrier = context.Barrier(NUM_RACERS)
    racers = [context.Process(target=run, args=(folder, seed, barrier)) for seed in range(NUM_RACERS)]
    for racer in racers:
        racer.start()
    for racer in racers:
        racer.join()
        assert racer.exitcode == 0


def run(folder: Path, seed: int, barrier: Barrier) -> None:
    store = VoiceStore(DiskFolder(folder))
    for number in range(NUM_ROUNDS):
        new, prompt = voice(f"Name {number}", seed)
        barrier.wait()
        try:
            card = store.add(new, prompt)
        except VoiceExists:
            continue
        os.write(1, f"{number} {card.id}\n".encode())  # one write: the lines of several processes do not mix


if __name__ == "__main__":
    if sys.argv[1] == "race":
        race(Path(sys.argv[2]))
    else:
        print(crash(sys.argv[2], Path(sys.argv[3])))
