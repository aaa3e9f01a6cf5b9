"""Another OpenAI-compatible server, sharing nothing with this project: Python's own `http.server`, WAV, no chunking.

    python -m tests.loadtest.independent_server

It prints its port. Its first sound comes after `FIRST_S`, then `CHUNK_S` of sound every `EVERY_S`; the body ends with
the connection. Like OpenAI's, it needs `model`, `input` and `voice`. An input of "stall" stands still for `STALL_S`
after its first chunk.
"""

import json
import struct
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

FIRST_S, EVERY_S, CHUNK_S, NUM_CHUNKS, STALL_S = 0.25, 0.05, 0.2, 8, 1.5
RATE_HZ = 16_000
CHUNK = struct.pack("<2h", 12_000, -12_000) * round(CHUNK_S * RATE_HZ / 2)


class Handler(BaseHTTPRequestHandler):
    def do_POST(self) -> None:
        asked = json.loads(self.rfile.read(int(self.headers["content-length"])))
        if self.path != "/v1/audio/speech" or not {"model", "input", "voice"} <= set(asked):
            self.send_error(400)
            return
        due_s = time.monotonic() + FIRST_S
        self.send_response(200)
        self.send_header("content-type", "audio/x-wav")
        self.end_headers()
        self.wfile.write(
            struct.pack(
                "<4sI4s4sI2H2I2H4sI",
                b"RIFF",
                2**32 - 1,
                b"WAVE",
                b"fmt ",
                16,
                1,
                1,
                RATE_HZ,
                2 * RATE_HZ,
                2,
                16,
                b"data",
                2**32 - 1,
            )
        )
        for index in range(NUM_CHUNKS):
            time.sleep(max(0.0, due_s + index * EVERY_S - time.monotonic()))
            self.wfile.write(CHUNK)
            self.wfile.flush()
            if asked["input"] == "stall" and index == 0:
                due_s += STALL_S

    def log_message(self, *arguments: object) -> None:
        pass


if __name__ == "__main__":
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    print(server.server_port, flush=True)
    server.serve_forever()
