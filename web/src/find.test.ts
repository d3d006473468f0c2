import { describe, expect, it } from "vitest";
import type { EntriesPage } from "./api";
import { findNext, findPrevious, type Load } from "./find";

// A stream whose lines are entries, of which a page has three. Line 5 is in two entries.
const entries = [
  [1, "Error: one\n"], [2, "two\n"], [3, "\x1b[31mERR\x1b[0mor: three\n"], [4, "four\n"], [5, "an er"], [5, "ror in halves\n"], [6, "six\n"],
] as const;

const load: Load = async (query) => {
  const at = "line" in query ? entries.findIndex(([n]) => n >= query.line) : "index" in query ? Number(query.index) : 0;
  const from = at < 0 ? entries.length - 1 : at;
  const page = entries.slice(from, from + 3).filter(([n]) => !query.until || n < query.until);
  const next = from + page.length;
  const result: EntriesPage = {
    first: String(from),
    next: String(next),
    e: page.map(([n, text], i) => ({ i: from + i, t: 0, n, l: [{ v: text.trimEnd(), d: text.endsWith("\n") ? "\n" : "" }] })),
  };
  if (next === entries.length) result.end = { state: "COMPLETE", reason: "", missing: [] };
  return result;
};

const told: number[] = [];
const next = (text: string, line: number) => findNext(load, text, line, (n) => told.push(n));
const previous = (text: string, line: number) => findPrevious(load, text, line, (n) => told.push(n));

describe("text is found", () => {
  it("forwards, in what is shown, over the ends of pages and entries", async () => {
    expect([await next("error", 0), await next("ERROR", 1), await next("error", 3), await next("error", 5)]).toEqual([1, 3, 5, undefined]);
    expect(await next("six", 0)).toBe(6);
    expect(await next("six", 6)).toBeUndefined();
    expect(await next("[31m", 0)).toBeUndefined();
    expect(await findNext(load, "error", 1, () => {}, 2)).toBeUndefined();
    expect(await findNext(load, "error", 1, () => {}, 3)).toBe(3);
  });

  it("backwards", async () => {
    expect([await previous("error", 7), await previous("error", 5), await previous("error", 3), await previous("error", 1)]).toEqual([5, 3, 1, undefined]);
    expect(await previous("seven", 7)).toBeUndefined();
  });

  it("and how far it is, is told", () => {
    expect(told).toContain(3);
  });
});
