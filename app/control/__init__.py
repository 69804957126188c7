"""All watchers of a process: which there are, what is asked of them, what runs, and how they do.

    HTTP ──► registry ──► changes ──► store
                             │
                             ▼
             store ──► reconciler ──► fleet ──► watcher_task ──► pipeline
                       (every few        │
                        seconds)         └──► read by health, dead_letters, stream_browser

`registry` is the face to HTTP; `changes` has what each change does. `reconciler` alone starts and stops watchers, by
comparing what is stored with what runs. `admission` says which watchers may run at all. `instance` tells the other
instances how far this one has followed. The store is the state database, or memory (`fallback_store`) where the account
may not use that; `file_watchers` puts mongodb-nats-connector's watchers into it.
"""
