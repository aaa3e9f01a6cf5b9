"""Voice prompts by content: made once, also when several threads want the same one at the same time."""

import threading
from collections import OrderedDict
from collections.abc import Callable
from concurrent.futures import Future

from serve_app.messages import VoicePrompt


class PromptCache:
    """The `max_entries` prompts used last. Safe to share between threads."""

    def __init__(self, max_entries: int) -> None:
        self._max_entries = max_entries
        self._lock = threading.Lock()
        self._prompts: OrderedDict[str, Future[VoicePrompt]] = OrderedDict()

    def get(self, key: str, make: Callable[[], VoicePrompt]) -> VoicePrompt:
        """The prompt of `key`; the first to ask makes it, the others wait for it. A failure is not kept.

        Raises what `make` raised, to everyone who waited.
        """
        with self._lock:
            future = self._prompts.get(key)
            mine = future is None
            if future is None:
                future = self._prompts[key] = Future()
                while len(self._prompts) > self._max_entries:
                    self._prompts.popitem(last=False)
            else:
                self._prompts.move_to_end(key)
        if not mine:
            return future.result()
        try:
            prompt = make()
        except BaseException as error:
            with self._lock:
                if self._prompts.get(key) is future:
                    del self._prompts[key]
            future.set_exception(error)
            raise
        future.set_result(prompt)
        return prompt
