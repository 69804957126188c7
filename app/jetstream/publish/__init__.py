"""Publishing changes after a sequence, all in order: one module for each mode.

Which mode a stream and its server allow is decided by `streams.assess`:

- `fast_ingest`: one batch that stays open while there is work, fenced on each message, on a stream of the watcher's own
  with one replica. The stream takes a prefix of it, so no gap has to be looked for. Needs `allow_batched` (2.14).
- `atomic`: a batch, stored wholly or not at all, fenced on its first message. Needs `allow_atomic` (server 2.12). A few
  changes go one by one here too, as in `single`. Two are under way at once on a stream of the watcher's own.
- `window`: single messages, each expecting the sequence that the one before leaves, on a stream of the watcher's own.
  The first goes alone, since under a stale fence the others would pass; the rest go at once, and one that is lost stops
  all after it. One gap stays: a message of *somebody else* that lands among them takes the place of one of ours, and
  those after it pass. The acknowledgements show where that may be so, and the error names the places
  (`pipeline/window_recovery.py` looks at them). Once a foreign message was seen on the stream, changes go out one by
  one.
- `single`: one by one, each fenced and awaited. Needs server 2.11 on a stream that others use too.

Each keeps the same contract (`modes.PublishMode`), sends through `sender.py`, and decides from values what the replies
mean. To add a mode: its module here, an entry in `modes.py`, its name in `streams.Mode`, and when `assess` chooses it.

The message id always goes with the fence, on every server, since by it the stream's end is read back. A server of 2.11
with replicas may keep the id of a message that it refused, and answer 10158 until the duplicate window has passed: an
unknown outcome, tried again until then; it delays, and never doubles or loses. Nats-Expected-Last-Msg-Id is never sent:
a mismatch kills a stream with replicas.
"""
