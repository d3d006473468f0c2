import { afterEach, beforeEach, describe, expect, it, vi } from "vitest";
import { ApiError, type Batch } from "./api";
import { Source } from "./source";

/** FakeEvents is the EventSource of these tests, which say what arrives. */
class FakeEvents extends EventTarget {
  static readonly CLOSED = 2;
  static all: FakeEvents[] = [];
  readyState = 0;
  onopen = () => {};
  onmessage = (_: { data: string; lastEventId: string }) => {};
  onerror = () => {};

  constructor(readonly url: string) {
    super();
    FakeEvents.all.push(this);
  }

  close() {
    this.readyState = FakeEvents.CLOSED;
  }

  send(name: string, data: unknown) {
    this.dispatchEvent(new MessageEvent(name, { data: JSON.stringify(data) }));
  }

  entries(id: string) {
    this.onmessage({ data: JSON.stringify({ e: [] }), lastEventId: id });
  }

  refuse() {
    this.readyState = FakeEvents.CLOSED;
    this.onerror();
  }
}

const last = () => FakeEvents.all.at(-1)!;
const got: { positions: string[]; connected: [boolean, string?][]; ends: unknown[] } = { positions: [], connected: [], ends: [] };
const source = () =>
  new Source("p", "a/+/b", { tail: 9 }, {
    batch: (_: Batch, next) => got.positions.push(next),
    state: () => {},
    end: (e) => got.ends.push(e),
    connected: (yes, error?: ApiError) => got.connected.push(error ? [yes, error.code] : [yes]),
  });

beforeEach(() => {
  vi.useFakeTimers();
  vi.stubGlobal("EventSource", FakeEvents);
  FakeEvents.all = [];
  Object.assign(got, { positions: [], connected: [], ends: [] });
});

afterEach(() => {
  vi.useRealTimers();
  vi.unstubAllGlobals();
});

const answer = (status: number, body: unknown) => vi.stubGlobal("fetch", async () => new Response(JSON.stringify(body), { status }));

describe("Source", () => {
  it("begins where it was told and ends with the stream", () => {
    source();
    expect(last().url).toBe("/api/v1/follow/p/a/+/b?tail=9");
    last().entries("3");
    last().send("end", { state: "COMPLETE" });
    expect(got.positions).toEqual(["3"]);
    expect(got.ends).toEqual([{ state: "COMPLETE" }]);
    expect(last().readyState).toBe(FakeEvents.CLOSED);
    expect(vi.getTimerCount()).toBe(0);
  });

  it("leaves a broken connection to the browser", () => {
    source();
    last().onopen();
    last().onerror();
    last().onopen();
    expect(got.connected).toEqual([[true], [false], [true]]);
    expect(FakeEvents.all.length).toBe(1);
  });

  it("resumes after a fault where it was, waiting longer each time", async () => {
    source();
    last().entries("3.70");
    for (const delay of [500, 1000, 2000]) {
      last().send("fault", { code: "transient", message: "restarting" });
      const before = FakeEvents.all.length;
      await vi.advanceTimersByTimeAsync(delay - 1);
      expect(FakeEvents.all.length).toBe(before);
      await vi.advanceTimersByTimeAsync(1);
      expect(FakeEvents.all.length).toBe(before + 1);
      expect(last().url).toBe("/api/v1/follow/p/a/+/b?index=3.70");
    }
    last().onopen();
    last().send("fault", { code: "transient", message: "again" });
    await vi.advanceTimersByTimeAsync(500);
    expect(FakeEvents.all.length).toBe(5);
  });

  it("tries again what the browser gives up, if that may help", async () => {
    answer(503, { code: "transient", message: "starting" });
    source();
    last().refuse();
    await vi.advanceTimersByTimeAsync(500);
    expect(got.connected).toEqual([[false, "transient"]]);
    expect(FakeEvents.all.length).toBe(2);

    answer(403, { code: "denied", message: "not yours" });
    last().refuse();
    await vi.advanceTimersByTimeAsync(60_000);
    expect(got.connected.at(-1)).toEqual([false, "denied"]);
    expect(FakeEvents.all.length).toBe(2);
  });

  it("is silent after close", async () => {
    answer(503, { code: "transient", message: "starting" });
    const s = source();
    last().refuse();
    s.close();
    await vi.advanceTimersByTimeAsync(60_000);
    expect(got.connected).toEqual([]);
    expect(FakeEvents.all.length).toBe(1);
  });
});
