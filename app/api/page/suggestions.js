// What exists already, to choose from in the form: on the servers, and in the watchers that are known.

import { get } from "./api.js";
import { useEffect, useState } from "./lib.js";

const PAUSE = 300; // milliseconds without a key before a database's collections are asked for
const AGAIN = 2000; // milliseconds after which a server is asked again that was too busy to answer
const TRIES = 4;

/** Names by the field's path. Those of the servers come when they answer; without a token that may see them, never. */
export function useSuggestions(watchers, database) {
  const [found, setFound] = useState({});
  useEffect(() => {
    let wanted = true;
    const load = async (tries) => {
      const query = database ? `?database=${encodeURIComponent(database)}` : "";
      const answer = await get(`suggestions${query}`, { quiet: true });
      if (!wanted) return;
      setFound(answer);
      const { collections, ...always } = answer;
      const asked = Object.values(database ? answer : always);
      if (asked.some((kind) => kind.why) && tries > 1) ask(AGAIN, tries - 1);
    };
    let timer;
    const ask = (after, tries) => {
      timer = setTimeout(() => load(tries).catch(() => {}), after); // the form works without them
    };
    ask(database ? PAUSE : 0, TRIES);
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
