import { describe, expect, it } from "vitest";
import { frontAddress, logAddress, parseRoute } from "./route";

describe("parseRoute", () => {
  it("tells the pages apart", () => {
    expect(parseRoute("/", "?project=p&q=a/**")).toEqual({ page: "front", project: "p", pattern: "a/**" });
    expect(parseRoute("/logs/p/a/b:c", "")).toEqual({ page: "prefix", project: "p", prefix: "a/b:c" });
    const stream = { page: "stream", project: "p", path: "a/b/+/c/d", prefix: "a/b", name: "c/d" };
    expect(parseRoute("/logs/p/a/b/+/c/d", "")).toEqual(stream);
    expect(parseRoute("/logs/p/a/b/%2B/c/d/", "")).toEqual(stream);
    for (const path of ["/logs", "/logs/p", "/x", "/logs/p/%zz"]) expect(parseRoute(path, "").page).toBe("unknown");
  });

  it("reads what the addresses are made of", () => {
    const path = "a:b/c.d/+/e_f/g-1";
    expect(logAddress("p", path)).toBe(`/logs/p/${path}`);
    expect(parseRoute(logAddress("p", path), "")).toMatchObject({ project: "p", path });
    const front = new URL(frontAddress("p", "x/**/y"), "http://localhost");
    expect(parseRoute(front.pathname, front.search)).toMatchObject({ project: "p", pattern: "x/**/y" });
  });
});
