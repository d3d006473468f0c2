import { expect, it } from "vitest";
import { age, duration, offset, size } from "./format";

it("size", () => {
  expect([0, 999, 1000, 9_949, 9_951, 999_499, 999_500, 123_456_789, 5e15].map(size)).toEqual([
    "0 B", "999 B", "1.0 kB", "9.9 kB", "10 kB", "999 kB", "1.0 MB", "123 MB", "5.0 PB",
  ]);
});

it("age", () => {
  const now = Date.UTC(2026, 2, 14);
  expect([-5, 0, 4, 59, 60, 3599, 3600, 86_400, 86_400 * 90].map((s) => age(now - s * 1000, now))).toEqual([
    "now", "now", "now", "59 s ago", "1 min ago", "59 min ago", "1 h ago", "1 d ago", "2025-12-14",
  ]);
});

it("duration", () => {
  expect([0, 1234, 12_345, 61_000, 3_661_000, 90_000_000].map(duration)).toEqual([
    "0.00 s", "1.23 s", "12.3 s", "1 min 1 s", "1 h 1 min", "1 d 1 h",
  ]);
});

it("offset", () => {
  expect([0, 61_500, 3_600_000, -1_500].map(offset)).toEqual(["00:00.000", "01:01.500", "1:00:00.000", "-00:01.500"]);
});
