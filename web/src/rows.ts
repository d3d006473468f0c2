// Entries as the rows of a page: lines, which entries may split or share, and the places where something is missing.

import type { Batch } from "./api";

export interface LineRow {
  kind: "line";
  /** Number of the line, from 1. */
  n: number;
  /** Milliseconds after the stream's time. */
  t: number;
  text: string;
  /** How many characters of the line were left out. */
  cut: number;
  /** Whether the line goes on. */
  open: boolean;
}

export interface GapRow {
  kind: "gap";
  /** Indices of the first and last missing entry. */
  first: number;
  last: number;
}

export type Row = LineRow | GapRow;

/** maxText is how much of a line is shown. */
export const maxText = 16_384;

/** addRows appends the rows of a batch to rows, the last of which may be continued, and returns the index of the first that changed. */
export function addRows(rows: Row[], batch: Batch): number {
  let changed = rows.length;
  const gaps = [...(batch.m ?? [])].sort((a, b) => a[0] - b[0]);
  for (const entry of batch.e) {
    while (gaps[0] && gaps[0][1] < entry.i) pushGap(gaps.shift()!);
    let n = entry.n ?? 0;
    for (const line of entry.l ?? []) {
      const last = rows.at(-1);
      if (last?.kind === "line" && last.open && last.n === n) {
        extend(last, line.v);
        last.open = line.d === "";
        changed = Math.min(changed, rows.length - 1);
      } else {
        const row: LineRow = { kind: "line", n, t: entry.t, text: "", cut: 0, open: line.d === "" };
        extend(row, line.v);
        rows.push(row);
      }
      n++;
    }
  }
  for (const gap of gaps) pushGap(gap);
  return changed;

  function pushGap([first, last]: [number, number]) {
    rows.push({ kind: "gap", first, last });
  }
}

function extend(row: LineRow, text: string) {
  const room = maxText - row.text.length;
  if (text.length <= room) {
    row.text += text;
  } else {
    row.text += text.slice(0, room);
    row.cut += text.length - room;
  }
}
