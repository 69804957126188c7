// What exists already, to choose from in the form: on the servers, and in the watchers that are known.

import { get } from "./api.js";
import { useEffect, useState } from "./lib.js";

const PAUSE = 300; // milliseconds without a key before a database's collections are asked for

/** Names by the field's path. Those of the servers come when they answer; without a token that may see them, never. */
export function useSuggestions(watchers, database) {
  const [found, setFound] = useState({});
  useEffect(() => {
    let wanted = true;
    const load = async () => {
      const query = database ? `?database=${encodeURIComponent(database)}` : "";
      const answer = await get(`suggestions${query}`, { quiet: true });
      if (wanted) setFound(answer);
    };
    const timer = setTimeout(() => load().catch(() => {}), database ? PAUSE : 0); // the form works without them
    return () => {
      wanted = false;
      clearTimeout(timer);
    };
  }, [database]);
  const all = watchers ?? [];
  const of = (kind, known) => [...new Set([...(found[kind]?.names ?? []), ...all.map(known).filter(Boolean)])].sort();
  return {
    "source.database": of("databases", ({ source }) => source.database),
    "source.collection": of("collections", ({ source }) => (!database || source.database === database ? source.collection : null)),
    "sink.stream": of("streams", ({ sink }) => sink.stream),
    "checkpoint.database": of("databases", ({ checkpoint }) => checkpoint?.database),
  };
}
