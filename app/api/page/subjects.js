// Subjects as they are on the stream, in place of their templates.

/** A name as one part of a subject: what NATS forbids is escaped as in a URL. */
function escaped(name) {
  const text = name.replace(/[\s\x00-\x1f\x7f.*>%/\\{}]/gu, (found) => [...new TextEncoder().encode(found)].map((byte) => `%${byte.toString(16).toUpperCase().padStart(2, "0")}`).join(""));
  return text.startsWith("$") ? `%24${text.slice(1)}` : text;
}

/** The subject of a watcher's messages with an operation: `ORDERS.insert`; `*` stands for names that differ. */
export function subjects({ source, sink }, operation) {
  const known = { stream: sink.stream, database: source.database ? escaped(source.database) : "*", collection: source.collection ? escaped(source.collection) : "*", operation };
  return (sink.subject ?? "").replace(/\{(\w+)\}/g, (found, field) => known[field] || found);
}

/** The stream and the subjects of a watcher that is being entered; null until it is known what it reads. `usual`: the
 * defaults, where left-out fields follow from the others. */
export function previewed(value, usual) {
  const { source, sink } = value;
  if (!source || !sink || (!source.database && !source.collection && !sink.stream)) return null;
  const watched = source.collection || source.database || "deployment";
  const stream = sink.stream || escaped(watched.toUpperCase());
  const left = usual !== null && sink.subject === usual.sink.subject && !source.collection;
  const subject = left ? (source.database ? "{stream}.{collection}.{operation}" : "{stream}.{database}.{collection}.{operation}") : sink.subject;
  return { stream, subjects: (sink.operations ?? []).map((each) => subjects({ source, sink: { stream, subject } }, each)) };
}
