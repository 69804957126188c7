"""Everything that speaks to MongoDB: the ports of a change source, a checkpoint store and a watcher store, on motor.

    deployment                 what the rest of the service is given
    ├── feeds/                 change streams that several watchers of a database share
    ├── entries_source         the change stream of a watcher of several entries of connector.yaml
    ├── change_source          one watcher's change stream
    │   ├── large_event_reader     past an event that is too large to be sent
    │   ├── watcher_stream         the watcher's place in its stream
    │   ├── history                whether MongoDB's history has an event
    │   ├── start, trial           where a start leads, and what the server makes of a stream
    │   ├── diagnosis              what an error of a stream means
    │   ├── cursor                 a change stream's cursor over a collection, a database or the deployment
    │   └── stream                 the commands: target, start, stages
    ├── reach, one_answer      what all change streams share, and questions that many ask at once
    ├── checks, probe          what is asked before a watcher is added, and all the time
    ├── bulk_checkpoint_store  a watcher's position among those of all, written together; checkpoint_bulk, joined
    ├── checkpoint_store       a position in a collection that the watcher names; checkpoint_document, checkpoint_place,
    │                          owned, writes; several_places for a watcher of several entries
    ├── watcher_store          the registry; watcher_document
    └── examiner               what `changewire doctor` asks
    scope_filter, unmatched    which collections a scope reads, in MongoDB's words, and which patterns fit none yet
    described                  what MongoDB says of a collection
    codes, errors, words       what MongoDB's errors mean, in the project's terms

Each class speaks to a real server and raises the errors of `domain/errors.py`; what to do about them is decided in
`pipeline/` and `control/`.
"""
