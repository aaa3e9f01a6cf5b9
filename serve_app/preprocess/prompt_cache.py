"""What is made of clips, by content: made once, also when several threads want the same at the same time."""

import threading
from collections import OrderedDict
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Generic, TypeVar

from serve_app.messages import ClipQuality, VoicePrompt

Made = TypeVar("Made")


@dataclass(frozen=True, slots=True, eq=False)
class MadeVoice:
    """A voice's prompt, and the report on its clip; None where that was not looked at, but the prompt was stored."""

    prompt: VoicePrompt
    quality: ClipQuality | None = None


class PromptCache(Generic[Made]):
    """The `max_entries` used last. Safe to share between threads."""

    def __init__(self, max_entries: int) -> None:
        self._max_entries = max_entries
        self._lock = threading.Lock()
        self._prompts: OrderedDict[str, Future[Made]] = OrderedDict()
        self.hits = 0
        self.misses = 0

    def get(self, key: str, make: Callable[[], Made]) -> Made:
        """What belongs to `key`; the first to ask makes it, the others wait for it. A failure is not kept.

        Raises what `make` raised, to everyone who waited.
        """
        with self._lock:
            future = self._prompts.get(key)
            mine = future is None
            if future is None:
                self.misses += 1
                future = self._prompts[key] = Future()
                while len(self._prompts) > self._max_entries:
                    self._prompts.popitem(last=False)
            else:
                self.hits += 1
                self._prompts.move_to_end(key)
        if not mine:
            return future.result()
        try:
            made = make()
        except BaseException as error:
            with self._lock:
                if self._prompts.get(key) is future:
                    del self._prompts[key]
            future.set_exception(error)
            raise
        future.set_result(made)
        return made
