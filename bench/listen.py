"""The far end of a latency, a process of its own: notes when each message is here, and tells at the end.

`python -m bench.listen NATS_URL SUBJECT`. Prints `ready`, takes messages until the body `end`, and prints
[[number, when]…] and the processor seconds it used. The clock is the machine's (`CLOCK_MONOTONIC`).
"""

import json
import sys
import time

from bench.wire import Wire
from bench.workload import number_of

END = b"end"


def main() -> None:
    """Listen until told to end."""
    url, subject = sys.argv[1:]
    arrived: list[tuple[int, float]] = []
    with Wire(url, seconds=600) as wire:
        wire.subscribe(subject)
        print("ready", flush=True)
        began = time.process_time()
        for at, _, body in wire.messages():
            if body == END:
                break
            arrived.append((number_of(body), at))
    json.dump({"arrived": arrived, "cpu": time.process_time() - began}, sys.stdout)


if __name__ == "__main__":
    main()
