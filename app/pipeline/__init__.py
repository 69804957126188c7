"""One watcher's way from change stream to JetStream. Begin with `capture.py`: read, encode, publish, checkpoint.

    capture          the straight line, in three tasks
      opening        finds where to go on; opens with the theory of operation (decided in `domain/opening.py`)
      reader         reads batches, within the memory budget
      batch_encoder  makes changes of raw events
      batch_queue    what is encoded and waits
      in_flight      sends plain batches, several at once where the sink can do that
      publisher      puts a batch on the stream for certain
      ledger         where the writer is on its stream: position, fence, count (read back: `domain/read_back.py`)
      checkpointer   stores the position, after the acknowledgement
      replays        publishes a dead letter in its turn
    standby          follows another instance while that one publishes

    stream_end, window_recovery, proof   looks at single messages, at unsettled places, into MongoDB's history
    run, dependencies, memory_budget     what the parts of a run share, and what all runs of a process share
    run_state, run_statistics            what outlives a run: what is decided by, and what is only shown

All of it works on values and ports: no server and no setting is known here.
"""
