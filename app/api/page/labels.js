// What a person calls the fields of the form. A field that is not here is named after itself, so a new one appears by itself.

const LABELS = {
  name: "Name",
  source: "From MongoDB",
  "source.database": "Database",
  "source.collection": "Collection",
  "source.include": "Only collections that match",
  "source.exclude": "Not collections that match",
  "source.pipeline": "Aggregation pipeline",
  "source.full_document": "Document of an update",
  "source.full_document_before_change": "Document before the change",
  "source.pre_and_post_images": "Switch pre- and post-images on",
  "source.show_expanded_events": "Changes of definitions too (DDL)",
  sink: "To NATS JetStream",
  "sink.stream": "Stream",
  "sink.subject": "Subject",
  "sink.operations": "Operations",
  "sink.oversize": "A message that is too large",
  "sink.replicas": "Replicas",
  "sink.max_age_seconds": "Messages expire after",
  "sink.max_bytes": "Size limit",
  "sink.duplicate_window_seconds": "Duplicate window",
  "sink.stream_settings": "Settings of the stream",
  checkpoint: "Position",
  "checkpoint.database": "Database of the position",
  "checkpoint.collection": "Collection of the position",
  "checkpoint.capped": "Capped collection",
  "checkpoint.size_in_bytes": "Size of the capped collection",
  start: "Begins",
  "start.at": "From",
  on_history_lost: "When history is lost",
  snapshot: "Snapshot of what exists",
  paused: "Add it paused",
};

const MORE = { source: "More about what is read", sink: "More about the stream", checkpoint: "More about the position" };

const UNITS = [[/_seconds$/, "seconds"], [/(^|_)bytes$/, "bytes"]];

const WIDTHS = { "source.pipeline": "w-long", "sink.subject": "w-long", "source.include": "w-name", "source.exclude": "w-name" };

/** What the words of a choice mean; each with the word itself, which is what the API and the docs call it. */
const OPTIONS = {
  "source.full_document": { default: "as MongoDB does by itself (default)", updateLookup: "the current one, looked up (updateLookup)", whenAvailable: "the post-image, where there is one (whenAvailable)", required: "the post-image, or fail (required)" },
  "source.full_document_before_change": { off: "no (off)", whenAvailable: "where there is one (whenAvailable)", required: "always, or fail (required)" },
  "sink.oversize": { claim_check: "goes to the object store, with a pointer (claim_check)", fail: "stops the watcher (fail)", dead_letter: "is set aside (dead_letter)" },
  "sink.stream_settings": { changewire: "the fastest that the server has (changewire)", connector: "as mongodb-nats-connector has them (connector)" },
  "start.at": { latest: "now (latest)", earliest: "the beginning of MongoDB's history (earliest)", timestamp: "a moment (timestamp)", token: "after a change (token)" },
  on_history_lost: { fail: "stop, and say why (fail)", latest: "continue from now, after a gap marker (latest)", earliest: "continue from the oldest change, after a gap marker (earliest)" },
  snapshot: { none: "none: only changes (none)", initial: "first the documents that exist, then changes (initial)", only: "only the documents that exist (only)" },
};

export const optionOf = (path, value) => OPTIONS[path]?.[value] ?? value ?? "none";

const last = (path) => path.split(".").at(-1);

export function labelOf(path) {
  if (LABELS[path]) return LABELS[path];
  const words = last(path).replace(/_(in_)?(seconds|bytes)$/, "").replaceAll("_", " ");
  return words[0].toUpperCase() + words.slice(1);
}

/** Shown at once, though they may be left out and the schema does not say so. */
export const FIRST = new Set(["sink.stream"]);

export const moreOf = (path, some) => MORE[path] ?? (some ? `More of ${labelOf(path).toLowerCase()}` : `Settings of ${labelOf(path).toLowerCase()}`);

/** In what a number is entered: null where it is a count. */
export const unitOf = (path) => UNITS.find(([ending]) => ending.test(last(path)))?.[1] ?? null;

export const widthOf = (path, kind) => WIDTHS[path] ?? `w-${kind}`;
