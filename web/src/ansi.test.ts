import { describe, expect, it } from "vitest";
import { parse, type Style } from "./ansi";

const spans = (line: string, style: Style = {}) => parse(line, style).spans.map(({ text, style }) => [text, style]);
const plain = (line: string) => parse(line, {}).spans.map((s) => s.text).join("");

describe("colours and styles", () => {
  it("cuts a line where they change", () => {
    expect(spans("a\x1b[1;31mb\x1b[22mc\x1b[md")).toEqual([["a", {}], ["b", { bold: true, fg: 1 }], ["c", { fg: 1 }], ["d", {}]]);
  });

  it("carries over to the next line", () => {
    const { style } = parse("\x1b[4;42mx", {});
    expect(style).toEqual({ underline: true, bg: 2 });
    expect(spans("y\x1b[24;49mz", style)).toEqual([["y", { underline: true, bg: 2 }], ["z", {}]]);
    expect(spans("", style)).toEqual([]);
  });

  it("knows all palettes", () => {
    const colour = (codes: string) => parse(`\x1b[${codes}m`, {}).style;
    expect(colour("97")).toEqual({ fg: 15 });
    expect(colour("100")).toEqual({ bg: 8 });
    expect(colour("38;5;9")).toEqual({ fg: 9 });
    expect(colour("38;5;208")).toEqual({ fg: "#ff8700" });
    expect(colour("48;5;232")).toEqual({ bg: "#080808" });
    expect(colour("38;2;1;2;255;1")).toEqual({ fg: "#0102ff", bold: true });
    expect(colour("38:5:16")).toEqual({ fg: "#000000" });
  });

  it("takes no harm from nonsense", () => {
    for (const codes of ["38", "38;5", "38;5;999", "38;2;1;2", "38;9;1", "?25", ">4;2", "999999999999999999", ";;;", "1e9"]) {
      expect(() => parse(`\x1b[${codes}mx`, {}), codes).not.toThrow();
      expect(JSON.stringify(parse(`\x1b[${codes}mx`, {})), codes).not.toMatch(/NaN|undefined/);
    }
  });
});

describe("everything else of a terminal", () => {
  it("is left out", () => {
    expect(plain("a\x1b[2Kb\x1b[10;20Hc\x1b[?25ld")).toBe("abcd");
    expect(plain("\x1b]0;title\x07a\x1b]8;;https://x.example\x1b\\b")).toBe("ab");
    expect(plain("a\x1b(Bb\x1b7c\x1b")).toBe("abc");
    expect(plain("a\x1b]never ended")).toBe("a");
    expect(plain("a\x1b[12")).toBe("a");
  });

  it("shows what was written last after a carriage return", () => {
    expect(plain(" 10%\r 50%\r100%")).toBe("100%");
    expect(plain("done\r")).toBe("done");
    expect(spans("\x1b[32m10%\r99%")).toEqual([["99%", { fg: 2 }]]);
  });

  it("shows control characters as pictures", () => {
    expect(plain("a\x00\x07\x08\tb\x7f")).toBe("a␀␇␈\tb␡");
  });

  it("keeps up with a long line of escapes", () => {
    const begin = performance.now();
    parse("\x1b[1m\x1b[".repeat(8000), {});
    parse("\x1b]".repeat(8000), {});
    parse("\x1b[" + "1;".repeat(8000), {});
    expect(performance.now() - begin).toBeLessThan(1000);
  });
});
