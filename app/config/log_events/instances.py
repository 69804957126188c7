"""Events about the instances, who owns which watcher, and the registry in the state database."""

from typing import Final

from app.config.log_events.event import REPORT, Event

INSTANCES: Final = {
    "instance_joined": Event(
        "This instance shares the watchers from now on; `others` are the live ones that it found."
    ),
    "instance_gone": Event(
        "An instance has fallen silent without a stop. Its watchers are given to the others. One instance says it for "
        "all.",
        "Look why it ended or hangs, and start it again.",
    ),
    "instance_has_ended": Event(
        "A process of this machine has ended without a stop, and its report was removed at once."
    ),
    "watchers_placed": Event("This instance has given `changed` watchers to the `members` instances that are alive."),
    "handover_delayed": Event(
        "Watchers cannot be taken over or handed over now; it is tried again with the next look."
    ),
    "handover_error": Event("An internal error while watchers were handed over; it is tried again.", REPORT),
    "instances_unreachable": Event(
        "MongoDB answers, and this instance cannot see the others in the state database. Its watchers run on.",
        "Correct what `reason` names. After five seconds the others take over its watchers.",
    ),
    "instances_error": Event(
        "An internal error while it looked at the other instances; the next look is made.", REPORT
    ),
    "instances_not_read": Event("GET /instances shows what was known: the state database did not answer."),
    "instance_not_taken_back": Event("This instance stops, and could not say so; the others notice within seconds."),
    "instance_not_told": Event("An internal error while this instance reported how far it is.", REPORT),
    "instance_unreadable": Event(
        "A document in `members` or `registry` of the state database is not what this version writes (`what` names "
        "it). It is passed over.",
        "Remove what is not Changewire's, or start the version that has written it.",
    ),
    "owners_not_stored": Event("Who owns which watcher cannot be stored now; it is tried again."),
    "owners_task_ended": Event("An internal error while the record of owners was written.", REPORT),
    "peer_message_refused": Event(
        "A message between instances does not count: another key has signed it, it is too old, or it is repeated. "
        "Once a minute for each reason.",
        "If it is too old, set the clocks of the machines. Otherwise another client publishes to these subjects.",
    ),
    "peers_busy": Event(
        "This instance answers as many requests of others as it can at once, and refuses more. Once a minute.",
        "Spread the clients over the instances, or add instances.",
    ),
    "peer_not_answered": Event(
        "Another instance has asked, and could not be answered. Once a minute.",
        "Correct what `reason` names; its client has got 503.",
    ),
    "peer_request_failed": Event("An internal error while another instance was answered.", REPORT),
    "peer_task_ended": Event("An internal error while another instance was answered.", REPORT),
    "peers_ended": Event("This instance no longer hears the others; an internal error has ended that.", REPORT),
    "registry_unreachable": Event(
        "MongoDB answers, and the stored watchers cannot be read. What runs runs on, and no change is carried out.",
        "Correct what `reason` names: mostly a right on CHANGEWIRE_STATE_DB.",
    ),
    "registry_error": Event("An internal error while the stored watchers were carried out; it is tried again.", REPORT),
    "registry_restored": Event(
        "All stored watchers were gone, without a removal: their collections were dropped. This instance has stored "
        "them again.",
        "Find out who dropped them. To remove watchers, use DELETE /watchers/NAME.",
    ),
    "registry_of_a_later_version": Event(
        "A later version of Changewire keeps this registry. This instance serves reads, and runs and changes nothing.",
        "Upgrade this instance, or stop it.",
    ),
    "watcher_unreadable": Event(
        "The definition of a stored watcher cannot be read, so it does not run.",
        "Start the version of Changewire that has written it, or repair the document that `collection` holds.",
    ),
    "state_database_out_of_reach": Event(
        "The account may not use CHANGEWIRE_STATE_DB. Only the watchers of connector.yaml run, and changes over HTTP "
        "are refused.",
        "Grant readWrite on that database to use the HTTP interface, several instances and snapshots.",
    ),
    "state_database_within_reach": Event("The account may use the state database again."),
}
