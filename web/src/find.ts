// Looking for text in a stream. It is read page by page, since it may be longer than what the page shows of it.

import { plain } from "./ansi";
import type { EntriesPage, Start } from "./api";
import { addRows, type LineRow, type Row } from "./rows";

/** How many lines are read at once on the way back. */
const stride = 4_000;

export type Load = (query: Start & { until?: number }) => Promise<EntriesPage>;

/** matcher tells whether a line, as it is shown, holds the text, in capital letters or small ones. */
function matcher(text: string): (row: Row) => row is LineRow {
  const sought = text.toLowerCase();
  return (row): row is LineRow => row.kind === "line" && plain(row.text).toLowerCase().includes(sought);
}

/** findNext returns the number of the first line behind one, and not behind another, that holds the text, or undefined. It tells how far it is. */
export async function findNext(
  load: Load, text: string, behind: number, progress: (line: number) => void, until = Infinity,
): Promise<number | undefined> {
  const matches = matcher(text);
  let rows: Row[] = [];
  for (let start: Start = { line: behind + 1 }; ; ) {
    const page = await load(start);
    addRows(rows, page);
    const found = rows.find((row) => matches(row) && row.n > behind);
    if (found?.kind === "line" && found.n <= until) return found.n;
    const last = rows.at(-1);
    if (page.end || (last?.kind === "line" && last.n > until)) return undefined;
    if (last?.kind === "line") progress(last.n);
    rows = last?.kind === "line" && last.open ? [last] : [];
    start = { index: page.next };
  }
}

/** findPrevious returns the number of the last line before a line that holds the text, or undefined. It tells how far it is. */
export async function findPrevious(load: Load, text: string, before: number, progress: (line: number) => void): Promise<number | undefined> {
  const matches = matcher(text);
  for (let until = before; until > 1; ) {
    const first = Math.max(1, until - stride);
    const rows: Row[] = [];
    for (let start: Start = { line: first }; ; ) {
      const page = await load({ ...start, until });
      addRows(rows, page);
      const last = page.e.at(-1);
      if (page.end || !last || (last.n ?? 0) + (last.l?.length ?? 0) >= until) break;
      start = { index: page.next };
    }
    const found = rows.findLast((row) => matches(row) && row.n < until);
    if (found?.kind === "line") return found.n;
    progress(first);
    until = first;
  }
  return undefined;
}
