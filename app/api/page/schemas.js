// Schemas of openapi.json, and values by them.

export function resolve(schema, schemas) {
  const name = schema.$ref?.split("/").at(-1);
  return name === undefined ? schema : { ...schemas[name], ...(schema.default === undefined ? {} : { default: schema.default }) };
}

/** The schema of an object that may be null; null where it is something else. */
export function objectOrNothing(schema, schemas) {
  if (!schema.anyOf?.some((each) => each.type === "null")) return null;
  return schema.anyOf.map((each) => resolve(each, schemas)).find((each) => each.properties) ?? null;
}

/** Whether it is an object with fields of its own, which may be left out or not. */
export function partOf(schema, schemas) {
  const resolved = resolve(schema, schemas);
  return Boolean(resolved.properties || objectOrNothing(resolved, schemas));
}

export function defaults(schema, schemas) {
  const resolved = resolve(schema, schemas);
  if (!resolved.properties) return structuredClone(resolved.default);
  const found = Object.entries(resolved.properties).map(([key, each]) => [key, defaults(each, schemas)]);
  return Object.fromEntries(found);
}

/** What differs from the defaults: a start that nobody has written must not count as written. */
export function without(value, usual) {
  if (value !== null && typeof value === "object" && usual !== null && typeof usual === "object" && !Array.isArray(value)) {
    const found = Object.entries(value).map(([key, each]) => [key, without(each, usual[key])]).filter(([, each]) => each !== undefined);
    return found.length ? Object.fromEntries(found) : undefined;
  }
  return JSON.stringify(value) === JSON.stringify(usual) ? undefined : value;
}

/** The value without the fields that are named, such as `sink.replicas`; one within a list takes the list along. */
export function pruned(value, fields, at = "") {
  const kept = Object.entries(value).flatMap(([key, each]) => {
    const here = at ? `${at}.${key}` : key;
    const inside = fields.filter((field) => within(field, here));
    if (inside.length === 0) return [[key, each]];
    const object = each !== null && typeof each === "object" && !Array.isArray(each) && !inside.includes(here);
    return object ? [[key, pruned(each, fields, here)]] : [];
  });
  return Object.fromEntries(kept);
}

export function leaves(schema, schemas, at) {
  const resolved = resolve(schema, schemas);
  if (!resolved.properties) return [at];
  return Object.entries(resolved.properties).flatMap(([key, each]) => leaves(each, schemas, at ? `${at}.${key}` : key));
}

export const within = (field, place) => field === place || field.startsWith(`${place}.`);
