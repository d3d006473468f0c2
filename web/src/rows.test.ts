import { describe, expect, it } from "vitest";
import type { Batch } from "./api";
import { addRows, maxText, type Row } from "./rows";

const collect = (...batches: Batch[]) => {
  const rows: Row[] = [];
  const changed = batches.map((b) => addRows(rows, b));
  return { rows, changed };
};
const text = (rows: Row[]) => rows.map((r) => (r.kind === "line" ? `${r.n}:${r.text}${r.open ? "…" : ""}` : `-${r.first}-${r.last}`));

describe("addRows", () => {
  it("numbers the lines of an entry", () => {
    const { rows } = collect({ e: [{ i: 0, t: 5, n: 1, l: [{ v: "a", d: "\n" }, { v: "", d: "\r\n" }, { v: "c", d: "\n" }] }] });
    expect(text(rows)).toEqual(["1:a", "2:", "3:c"]);
  });

  it("joins the pieces of a line, over batches too", () => {
    const { rows, changed } = collect(
      { e: [{ i: 0, t: 0, n: 1, l: [{ v: "a", d: "\n" }, { v: "b", d: "" }] }, { i: 1, t: 0, n: 2, l: [{ v: "c", d: "" }] }] },
      { e: [{ i: 2, t: 0, n: 2, l: [{ v: "d", d: "\n" }, { v: "e", d: "\n" }] }] },
    );
    expect(text(rows)).toEqual(["1:a", "2:bcd", "3:e"]);
    expect(changed).toEqual([0, 1]);
  });

  it("does not join what a gap has torn", () => {
    const { rows } = collect(
      { e: [{ i: 0, t: 0, n: 1, l: [{ v: "a", d: "" }] }] },
      { m: [[1, 4]], e: [{ i: 5, t: 0, n: 1, l: [{ v: "z", d: "\n" }] }] },
    );
    expect(text(rows)).toEqual(["1:a…", "-1-4", "1:z"]);
  });

  it("puts gaps between entries and at the end", () => {
    const { rows } = collect({
      m: [[3, 3], [1, 1], [7, 9]],
      e: [0, 2, 4].map((i) => ({ i, t: 0, n: i + 1, l: [{ v: "x", d: "\n" }] })),
    });
    expect(text(rows)).toEqual(["1:x", "-1-1", "3:x", "-3-3", "5:x", "-7-9"]);
  });

  it("keeps no more of a line than is shown", () => {
    const piece = { i: 0, t: 0, n: 1, l: [{ v: "x".repeat(10_000), d: "" }] };
    const { rows } = collect({ e: [piece, piece, piece] });
    const row = rows[0]!;
    expect(row.kind === "line" && [row.text.length, row.cut]).toEqual([maxText, 30_000 - maxText]);
  });
});
