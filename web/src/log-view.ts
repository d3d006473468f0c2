// The lines of a stream in a scrolling element.
//
// However long the stream is, the page holds a window of it: chunks of rows in stream order. The window grows at its end with what the
// source brings, and at either end when the reader scrolls near it; what is then too much is taken away at the other end. While
// the window's end is not the stream's (the reader went up, and more came than the window holds) there is no source; it
// begins anew when the reader is back at the end.

import type { Style } from "./ansi";
import { ApiError, type Batch, type End, type EntriesPage, getEntries, type Start, type Stream } from "./api";
import { renderGap, renderLine } from "./row-view";
import { addRows, type LineRow, type Row } from "./rows";
import { Source } from "./source";

/** How many lines are asked for at the begin, kept between two frames, and kept in the page; and how many characters. */
const limits = { tail: 2_000, pending: 4_000, window: 20_000, earlier: 2_000, chunk: 500, chars: 8 << 20 };

/** How many times as long as it took to show lines the page waits before it shows more: there must be time to take them in. */
const rest = 3;

/** How long the page waits, in milliseconds, before it asks again for what could not be loaded. */
const retryDelay = 2_000;

/** How near to an end of the window, in pixels, the reader comes before more is loaded. */
const margin = 1_500;

interface Chunk {
  element: HTMLElement;
  rows: Row[];
  chars: number;
  /** Position where the chunk begins. */
  first: string;
  /** Style before the last row, which may grow, and after it. */
  before: Style;
  after: Style;
}

export interface LogViewState {
  /** Whether the page stays at the end as lines come. */
  following: boolean;
  /** Whether the window's end is the stream's, as far as it is known. */
  atEnd: boolean;
  connected: boolean;
  error: ApiError | undefined;
  end: End | undefined;
  empty: boolean;
  /** The line that was asked for, and that the stream does not have yet; or 0. */
  beyond: number;
}

export class LogView {
  private chunks: Chunk[] = [];
  private rowCount = 0;
  private charCount = 0;
  /** Position where the window ends. */
  private next = "0";
  private atStart = false;
  private source: Source | undefined;
  private pending: { batch: Batch; next: string; lines: number }[] = [];
  private pendingLines = 0;
  private skipped = false;
  private timer: ReturnType<typeof setTimeout> | undefined;
  private frame = 0;
  private restUntil = 0;
  /** Ends the requests that belong to the window. */
  private abort = new AbortController();
  private loading = false;
  private following = true;
  private connected = true;
  private error: ApiError | undefined;
  private end: End | undefined;
  private lastTop = 0;
  private target = 0;
  private beyond = 0;
  private readonly resized: ResizeObserver;

  constructor(
    private readonly scroller: HTMLElement,
    private readonly project: string,
    private readonly path: string,
    private readonly notify: { changed(): void; state(stream: Stream): void },
  ) {
    scroller.addEventListener("scroll", this.onScroll, { passive: true });
    document.addEventListener("visibilitychange", this.onVisibility);
    this.resized = new ResizeObserver(() => this.stick());
    this.resized.observe(scroller);
  }

  get state(): LogViewState {
    return {
      following: this.following,
      atEnd: this.source !== undefined || this.end !== undefined,
      connected: this.connected,
      error: this.error,
      end: this.end,
      empty: this.rowCount === 0 && this.next === "0",
      beyond: this.beyond,
    };
  }

  close(): void {
    this.reset();
    this.resized.disconnect();
    document.removeEventListener("visibilitychange", this.onVisibility);
    this.scroller.removeEventListener("scroll", this.onScroll);
  }

  /** follow goes to the end and stays there. */
  follow(): void {
    this.following = true;
    this.beyond = 0;
    if (this.state.atEnd) {
      this.stick();
    } else {
      this.reset();
      this.attach({ tail: limits.tail });
    }
    this.notify.changed();
  }

  /** top goes to the first line. */
  async top(): Promise<void> {
    this.following = false;
    if (!this.atStart) await this.jump({ index: "0" });
    this.scroller.scrollTop = 0;
    this.notify.changed();
  }

  /** show brings a line into view and marks it. */
  async show(line: number): Promise<void> {
    this.mark(line);
    this.following = false;
    this.beyond = 0;
    if (!this.element(line)) await this.jump({ line: Math.max(1, line - 200) });
    if (this.target !== line) return; // the reader is elsewhere by now
    // Long lines before it may be more than a page.
    if (!this.element(line) && !this.state.atEnd) await this.jump({ line });
    if (this.target !== line) return;
    const element = this.element(line);
    if (element) {
      this.mark(line);
      element.scrollIntoView({ block: "center" });
    } else if (this.state.atEnd) {
      this.follow();
      this.beyond = line;
    }
    this.notify.changed();
  }

  mark(line: number): void {
    this.element(this.target)?.classList.remove("target");
    this.target = line;
    this.element(line)?.classList.add("target");
  }

  /** row returns what a row's element shows. */
  row(element: HTMLElement): LineRow | undefined {
    const chunk = this.chunks.find((c) => c.element === element.parentElement);
    const row = chunk?.rows[[...chunk.element.children].indexOf(element)];
    return row?.kind === "line" ? row : undefined;
  }

  /** firstVisible is the number of the first line in view. */
  get firstVisible(): number {
    const { top } = this.scroller.getBoundingClientRect();
    const below = (e: Element) => e.getBoundingClientRect().bottom > top;
    for (const { element, rows } of this.chunks.filter((c) => below(c.element)))
      for (const [i, row] of rows.entries()) if (row.kind === "line" && below(element.children[i]!)) return row.n;
    return 1;
  }

  /** stick keeps the end in view, for a reader who is there. */
  stick(): void {
    if (this.following) this.scroller.scrollTop = this.scroller.scrollHeight;
    this.lastTop = this.scroller.scrollTop;
  }

  private element(line: number): HTMLElement | null {
    return this.scroller.querySelector<HTMLElement>(`#L${line}`);
  }

  // --- the source -----------------------------------------------------------------------------------------------------

  private attach(start: Start): void {
    this.detach();
    this.source = new Source(this.project, this.path, start, {
      batch: (batch, next) => this.receive(batch, next),
      state: (stream) => this.notify.state(stream),
      end: (end) => {
        this.flush();
        this.source = undefined;
        this.end = end;
        this.connected = true;
        this.error = undefined;
        this.notify.changed();
      },
      connected: (yes, error) => {
        this.connected = yes;
        this.error = error;
        this.notify.changed();
      },
    });
  }

  private detach(): void {
    this.source?.close();
    this.source = undefined;
    this.pending = [];
    this.pendingLines = 0;
    this.skipped = false;
    this.unschedule();
  }

  private schedule(): void {
    if (this.timer !== undefined) return;
    this.timer = setTimeout(() => {
      this.frame = requestAnimationFrame(() => this.flush());
    }, this.restUntil - performance.now());
  }

  private unschedule(): void {
    clearTimeout(this.timer);
    cancelAnimationFrame(this.frame);
    this.timer = undefined;
  }

  // What comes is shown with the next frame. When more comes than a reader could see go by, only the last of it is.
  private receive(batch: Batch, next: string): void {
    const lines = batch.e.reduce((sum, e) => sum + (e.l?.length ?? 0), 0);
    this.pending.push({ batch, next, lines });
    this.pendingLines += lines;
    while (this.pending.length > 1 && this.pendingLines - this.pending[0]!.lines >= limits.pending) {
      if (!this.following) {
        this.detach();
        this.notify.changed();
        return;
      }
      const dropped = this.pending.shift()!;
      this.pendingLines -= dropped.lines;
      this.skipped = true;
      this.next = dropped.next;
    }
    this.schedule();
  }

  private flush(): void {
    this.unschedule();
    const begin = performance.now();
    const wasEmpty = this.rowCount === 0;
    const { beyond } = this;
    if (this.skipped) this.clear();
    this.skipped = false;
    const pending = this.pending;
    this.pending = [];
    this.pendingLines = 0;
    for (const { batch, next } of pending) this.append(batch, next);
    if (this.following) {
      this.evictFirst();
      this.stick();
    } else if (this.full) {
      this.detach();
    }
    if (wasEmpty || !this.source || beyond !== this.beyond) this.notify.changed();
    // Few lines may be less than a page, which cannot be scrolled.
    if (this.rowCount > 0 && this.scroller.scrollTop < margin) void this.loadEarlier();
    const now = performance.now();
    this.restUntil = now + Math.min(rest * (now - begin), 1_000);
  }

  // A browser has few connections to a server: pages that nobody sees give theirs back.
  private readonly onVisibility = (): void => {
    if (document.hidden) {
      if (this.source) {
        this.flush();
        this.detach();
      }
    } else if (!this.end && !this.source && this.following) {
      this.attach(this.rowCount > 0 ? { index: this.next } : { tail: limits.tail });
    }
  };

  // --- the window -----------------------------------------------------------------------------------------------------

  private get full(): boolean {
    return this.rowCount > limits.window || this.charCount > limits.chars;
  }

  private clear(): void {
    for (const chunk of this.chunks) chunk.element.remove();
    this.chunks = [];
    this.rowCount = this.charCount = 0;
    this.atStart = false;
  }

  private reset(): void {
    this.abort.abort();
    this.abort = new AbortController();
    this.detach();
    this.clear();
    this.loading = false;
    this.end = undefined;
    this.next = "0";
  }

  private newChunk(first: string): Chunk {
    const element = document.createElement("div");
    element.className = "chunk";
    return { element, rows: [], chars: 0, first, before: {}, after: {} };
  }

  private append(batch: Batch, next: string): void {
    let chunk = this.chunks.at(-1);
    const last = chunk?.rows.at(-1);
    if (!chunk || (chunk.rows.length >= limits.chunk && !(last?.kind === "line" && last.open))) {
      const style = chunk?.after ?? {};
      chunk = { ...this.newChunk(this.next), before: style, after: style };
      this.chunks.push(chunk);
      this.scroller.append(chunk.element);
    }
    const { rows, chars } = chunk;
    const before = rows.length;
    this.fill(chunk, batch);
    this.rowCount += rows.length - before;
    this.charCount += chunk.chars - chars;
    this.next = next;
    this.atStart ||= this.firstLine === 1;
  }

  /** fill adds a batch to a chunk, whose last row may have been incomplete. */
  private fill(chunk: Chunk, batch: Batch): void {
    const { rows, element } = chunk;
    const before = rows.length;
    const changed = addRows(rows, batch);
    let style = chunk.after;
    if (changed < before) {
      element.lastElementChild?.remove();
      style = chunk.before;
    }
    const fresh = document.createDocumentFragment();
    for (const row of rows.slice(changed)) {
      chunk.before = style;
      if (row.kind === "gap") {
        fresh.append(renderGap(row));
      } else {
        const rendered = renderLine(row, style);
        if (row.n === this.target) {
          rendered.element.classList.add("target");
          this.beyond = 0;
        }
        fresh.append(rendered.element);
        style = rendered.style;
      }
    }
    chunk.after = style;
    element.append(fresh);
    chunk.chars = rows.reduce((sum, row) => sum + (row.kind === "line" ? row.text.length : 0), 0);
  }

  private evictFirst(): void {
    while (this.full && this.chunks.length > 1) {
      this.forget(this.chunks.shift()!);
      this.atStart = false;
    }
  }

  private evictLast(): void {
    while (this.full && this.chunks.length > 1) {
      this.detach();
      this.end = undefined;
      const chunk = this.chunks.pop()!;
      this.next = chunk.first;
      this.forget(chunk);
    }
  }

  private forget(chunk: Chunk): void {
    chunk.element.remove();
    this.rowCount -= chunk.rows.length;
    this.charCount -= chunk.chars;
  }

  private get firstLine(): number | undefined {
    for (const chunk of this.chunks)
      for (const row of chunk.rows) if (row.kind === "line") return row.n;
    return undefined;
  }

  // --- moving -------------------------------------------------------------------------------------------------------------

  private readonly onScroll = (): void => {
    const { scrollTop, scrollHeight, clientHeight } = this.scroller;
    const below = scrollHeight - scrollTop - clientHeight;
    const following = below < 24 ? this.state.atEnd : this.following && scrollTop >= this.lastTop - 1;
    this.lastTop = scrollTop;
    if (following !== this.following) {
      this.following = following;
      this.notify.changed();
    }
    this.loadNear();
  };

  /** loadNear loads more when the reader is near an end of the window. */
  private loadNear(): void {
    const { scrollTop, scrollHeight, clientHeight } = this.scroller;
    if (scrollTop < margin) void this.loadEarlier();
    if (scrollHeight - scrollTop - clientHeight < margin && !this.state.atEnd) void this.loadLater();
  }

  /** jump begins the window anew at a place that is not the end. */
  private async jump(start: Start): Promise<void> {
    this.reset();
    await this.load(async (signal) => {
      const page = await getEntries(this.project, this.path, start, signal);
      this.next = page.first;
      this.atStart = page.first === "0";
      this.appendPage(page);
    });
  }

  private loadLater(): Promise<void> {
    return this.load(async (signal) => {
      const from = this.next;
      const page = await getEntries(this.project, this.path, { index: from }, signal);
      if (this.source || this.next !== from) return;
      this.appendPage(page);
      const before = this.scroller.scrollHeight;
      this.evictFirst();
      this.scroller.scrollTop -= before - this.scroller.scrollHeight;
    });
  }

  private appendPage(page: EntriesPage): void {
    this.append(page, page.next);
    if (!page.end) return;
    if (page.end.state === "OPEN" || page.end.state === "TERMINATED") this.attach({ index: this.next });
    else this.end = page.end;
    this.notify.changed();
  }

  private async loadEarlier(): Promise<void> {
    const until = this.firstLine;
    if (this.atStart || until === undefined) return;
    await this.load(async (signal) => {
      // As many lines as are a reasonable answer, if these are as long as those that are here.
      const perLine = this.charCount / this.rowCount + 20;
      const lines = Math.min(limits.earlier, Math.max(20, Math.floor((1 << 20) / perLine)));
      const chunk = await this.readEarlier({ line: Math.max(1, until - lines) }, until, signal);
      if (this.firstLine !== until) return; // the window has moved on
      const before = this.scroller.scrollHeight;
      this.rowCount += chunk.rows.length;
      this.charCount += chunk.chars;
      this.chunks.unshift(chunk);
      this.scroller.prepend(chunk.element);
      this.scroller.scrollTop += this.scroller.scrollHeight - before;
      this.lastTop = this.scroller.scrollTop;
      this.atStart = this.firstLine === 1 || chunk.rows.length === 0;
      if (!this.following) this.evictLast();
    });
  }

  /** readEarlier returns the lines before until as a chunk, in as many pages as the server makes of them. */
  private async readEarlier(start: Start, until: number, signal: AbortSignal): Promise<Chunk> {
    let chunk: Chunk | undefined;
    for (;;) {
      const page = await getEntries(this.project, this.path, { ...start, until }, signal);
      chunk ??= this.newChunk(page.first);
      this.fill(chunk, page);
      const last = page.e.at(-1);
      if (page.end || !last || (last.n ?? 0) + (last.l?.length ?? 0) >= until) return chunk;
      // The rest of a line of which no more is shown is not read.
      const row = chunk.rows.at(-1);
      start = row?.kind === "line" && row.open && row.cut > 0 ? { line: row.n + 1 } : { index: page.next };
      if ("line" in start && start.line >= until) return chunk;
    }
  }

  /** load runs one request for the window at a time, until it succeeds or cannot. */
  private async load(request: (signal: AbortSignal) => Promise<void>): Promise<void> {
    if (this.loading) return;
    this.loading = true;
    const { signal } = this.abort;
    for (let more = true; more; ) {
      try {
        await request(signal);
        this.error = undefined;
        more = false;
      } catch (e) {
        if (signal.aborted) return;
        if (!(e instanceof ApiError)) throw e;
        this.error = e;
        this.notify.changed();
        more = e.temporary;
        if (more) await new Promise((resolve) => setTimeout(resolve, retryDelay));
        if (signal.aborted) return;
      }
    }
    this.loading = false;
    this.notify.changed();
    if (!this.error) this.loadNear();
  }
}
