"""Change streams that several watchers share.

    hub                 the groups of a deployment
    sharing             a watcher's `ChangeSource`, which reads from a stream of its own or as a member of a feed
    └── group           the watchers that could share a change stream, and the feeds that they share
        ├── room            how many bytes may wait in all feeds
        ├── views           which collections are views, which a feed would say nothing of
        └── feed        one change stream over a database, read by one task, its events handed to the members
            ├── member      what was handed to one watcher and not taken yet
            ├── filters     which collections a feed asks the server for
            ├── hot         which collection makes a feed stay behind the server
            ├── recent      what was handed over last, for those about to join
            └── parts       a batch taken apart by collection
    eligible            which watchers may share, and which may share with which

Tokens are equal in every scope: an event has the same one in a collection's stream as in the database's. So a watcher
goes from its own stream to a feed and back at an exact token, and nobody sees that on its JetStream stream.
"""
