import { html, nothing, type PropertyValues } from "lit";
import { customElement, property, state } from "lit/decorators.js";
import { ApiError, getStream, type IndexRange, listPrefixes, type State, type Stream } from "./api";
import "./find-box";
import { clock, count } from "./format";
import { LogView, type LogViewState } from "./log-view";
import { Page } from "./page";
import { amount, badge, crumbs, dot, header, notice, problem, stateName } from "./parts";
import { Poll } from "./poll";
import { took } from "./prefix-card";
import { logAddress } from "./route";

const order: State[] = ["STREAM_STATE_UNSPECIFIED", "OPEN", "TERMINATED", "INCOMPLETE", "COMPLETE"];

/** StreamPage shows a stream: what there is, and what comes. */
@customElement("daybook-stream")
export class StreamPage extends Page {
  @property() project = "";
  @property() path = "";
  @property() prefixName = "";
  @property() name = "";

  @state() private stream: Stream | undefined;
  @state() private siblings: Stream[] = [];
  @state() private missing = false;
  @state() private error: ApiError | undefined;
  @state() private wrap = preference("wrap", true);
  @state() private times = preference("times", false);
  @state() private view: LogViewState | undefined;
  private log: LogView | undefined;
  private now = Date.now();

  constructor() {
    super();
    new Poll(this, () => this.refresh(), 2_000);
  }

  override connectedCallback(): void {
    super.connectedCallback();
    addEventListener("hashchange", this.toHash);
    addEventListener("keydown", this.key);
  }

  override disconnectedCallback(): void {
    super.disconnectedCallback();
    removeEventListener("hashchange", this.toHash);
    removeEventListener("keydown", this.key);
    this.log?.close();
    this.log = undefined;
  }

  private async refresh(): Promise<"again" | "done"> {
    this.now = Date.now();
    try {
      this.learn(await getStream(this.project, this.path));
      const page = await listPrefixes({ project: this.project, pattern: this.prefixName, page_size: 1 });
      this.siblings = page.prefixes[0]?.streams ?? [];
      this.missing = false;
      this.error = undefined;
    } catch (e) {
      if (!(e instanceof ApiError)) throw e;
      this.missing = e.code === "not_found" && !this.stream;
      this.error = this.missing ? undefined : e;
      return e.temporary ? "again" : "done";
    }
    return [this.stream!, ...this.siblings].every((s) => s.state === "COMPLETE" || s.state === "INCOMPLETE") ? "done" : "again";
  }

  // Both the events and the regular question tell of the stream; the one that is further on counts.
  private learn(s: Stream): void {
    if (!this.stream || order.indexOf(s.state) >= order.indexOf(this.stream.state)) this.stream = s;
  }

  protected override updated(_: PropertyValues): void {
    const scroller = this.querySelector<HTMLElement>(".log");
    if (!scroller || this.log) return;
    this.log = new LogView(scroller, this.project, this.path, {
      changed: () => (this.view = this.log?.state),
      state: (s) => this.learn(s),
    });
    const line = hashLine();
    if (line) void this.log.show(line);
    else this.log.follow();
  }

  private readonly toHash = (): void => {
    const line = hashLine();
    if (line) void this.log?.show(line);
  };

  private readonly key = (e: KeyboardEvent): void => {
    if (e.ctrlKey || e.metaKey || e.altKey || e.target instanceof HTMLInputElement) return;
    const actions: Record<string, () => void> = {
      g: () => void this.log?.top(),
      Home: () => void this.log?.top(),
      G: () => this.log?.follow(),
      End: () => this.log?.follow(),
      w: () => this.toggle("wrap"),
      t: () => this.toggle("times"),
      "/": () => this.querySelector<HTMLInputElement>("daybook-find input")?.focus(),
    };
    const action = actions[e.key];
    if (!action || !this.log) return;
    e.preventDefault();
    action();
  };

  private toggle(what: "wrap" | "times"): void {
    this[what] = !this[what];
    localStorage.setItem(`daybook.${what}`, String(this[what]));
    void this.updateComplete.then(() => this.log?.stick());
  }

  private readonly found = (line: number): void => {
    history.replaceState(null, "", `#L${line}`);
    void this.log?.show(line);
  };

  // A click on a line's number makes it the page's address, without moving anything.
  private readonly clicked = (e: Event): void => {
    const anchor = (e.target as Element).closest<HTMLAnchorElement>(".row > a");
    if (!anchor) return;
    e.preventDefault();
    history.replaceState(null, "", anchor.hash);
    this.log?.mark(hashLine());
  };

  private readonly hovered = (e: Event): void => {
    const element = (e.target as Element).closest<HTMLElement>(".row > a")?.parentElement;
    const base = Date.parse(this.stream?.desc?.timestamp ?? "");
    const row = element && this.log?.row(element);
    if (row && !Number.isNaN(base)) (e.target as HTMLElement).title = clock(base + row.t);
  };

  protected override render() {
    const s = this.stream;
    document.title = `${s?.state === "OPEN" ? "● " : ""}${this.name} · ${this.prefixName} · Daybook`;
    const text = s?.desc?.streamType === "TEXT" || s?.desc?.streamType === undefined;
    return html`<div class="stream">
      ${header(crumbs(this.project, this.prefixName, true))}
      <div class="bar">
        ${this.tabs()}
        ${s ? html`<div class="facts">${badge(s.state, this.label(s))}<span>${amount(s)}</span><span>${took(s, this.now)}</span>${details(s)}</div>` : nothing}
        <div class="tools">${s && text ? this.textTools() : nothing} ${s ? this.links() : nothing}</div>
      </div>
      ${this.notices()}
      ${s && text
        ? html`<main class="pane">
            <div
              class="log ${this.wrap ? "wrap" : ""} ${this.times ? "times" : ""}"
              tabindex="0"
              role="log"
              aria-live="off"
              aria-label="Lines of ${this.name}"
              @click=${this.clicked}
              @mouseover=${this.hovered}
            ></div>
            ${this.view && !this.view.following && (s.state === "OPEN" || !this.view.atEnd)
              ? html`<button class="jump" @click=${() => this.log?.follow()}>${s.state === "OPEN" ? "Follow" : "To the end"} ↓</button>`
              : nothing}
          </main>`
        : nothing}
      ${s && !text ? this.binary(s) : nothing}
    </div>`;
  }

  private label(s: Stream): string {
    return s.state === "OPEN" && this.view && !this.view.connected ? "reconnecting" : stateName(s.state);
  }

  private tabs() {
    const streams: Pick<Stream, "path" | "state">[] = this.siblings.some((s) => s.path === this.path)
      ? this.siblings
      : [{ path: this.path, state: this.stream?.state ?? "STREAM_STATE_UNSPECIFIED" }, ...this.siblings];
    return html`<nav class="tabs" aria-label="Streams of this prefix">
      ${streams.map(
        (s) => html`<a href=${logAddress(this.project, s.path)} aria-current=${s.path === this.path ? "page" : "false"}>
          ${dot(s.path === this.path ? (this.stream?.state ?? s.state) : s.state)}${s.path.slice(this.prefixName.length + 3)}
        </a>`,
      )}
    </nav>`;
  }

  private textTools() {
    return html`<daybook-find
        .project=${this.project}
        .path=${this.path}
        .begin=${() => this.log?.firstVisible ?? 1}
        .found=${this.found}
      ></daybook-find>
      <button aria-pressed=${this.wrap} title="Wrap long lines (w)" @click=${() => this.toggle("wrap")}>Wrap</button>
      <button aria-pressed=${this.times} title="Time of each line since the begin (t)" @click=${() => this.toggle("times")}>Times</button>
      <button title="First line (g)" @click=${() => void this.log?.top()}>Top</button>
      <button aria-pressed=${this.view?.following ?? true} title="Stay at the end (G)" @click=${() => this.log?.follow()}>
        ${this.stream?.state === "OPEN" ? "Follow" : "End"}
      </button>`;
  }

  private links() {
    const raw = `${logAddress(this.project, this.path)}?format=raw`;
    const text = this.stream?.desc?.streamType === "TEXT";
    const file = `${this.prefixName.split("/").at(-1)}-${this.name.replaceAll("/", "_")}${text ? ".txt" : ""}`;
    return html`${text ? html`<a href=${raw} title="The exact bytes">Raw</a>` : nothing}
      <a href=${raw} download=${file}>Download</a>`;
  }

  private notices() {
    const s = this.stream;
    const error = this.error ?? this.view?.error;
    const lost = s?.missing ?? [];
    return html`${this.missing ? notice("There is no such stream yet. This page shows it as soon as it begins.") : nothing}
      ${!s && !this.missing && !error ? notice("Loading…") : nothing}
      ${error ? problem(error) : nothing}
      ${s && (s.endReason || lost.length)
        ? notice(
            html`${s.endReason ? html`The stream ended early: ${s.endReason}. ` : nothing}
            ${lost.length ? `Lost and marked at their places: ${ranges(lost)}.` : nothing}`,
            s.state === "INCOMPLETE" ? "bad" : "plain",
          )
        : nothing}
      ${this.view?.beyond ? notice(`There is no line ${count(this.view.beyond)}${s?.state === "OPEN" ? " yet" : ""}. This is the end of the stream.`) : nothing}
      ${this.view?.end && this.view.empty ? notice("The stream is empty: nothing was written to it.") : nothing}`;
  }

  private binary(s: Stream) {
    return html`<main class="list">
      ${notice(
        html`These are ${s.desc?.streamType === "DATAGRAM" ? "datagrams" : "binary data"}
          (${s.desc?.contentType}), which this page does not show. Download them to look at them.`,
      )}
    </main>`;
  }
}

/** details are what the producer said of the stream, and when it was written. */
function details(s: Stream) {
  const rows: [string, string][] = [
    ["began", s.created ? clock(Date.parse(s.created)) : ""],
    ["ended", s.ended ? clock(Date.parse(s.ended)) : ""],
    ["content", s.desc?.contentType ?? ""],
    ...Object.entries(s.desc?.tags ?? {}).sort(([a], [b]) => (a < b ? -1 : 1)),
  ];
  return html`<details class="about">
    <summary title="Times, content type and tags">Details</summary>
    <dl>
      ${rows.filter(([, value]) => value).map(([name, value]) => html`<dt>${name}</dt><dd>${value}</dd>`)}
    </dl>
  </details>`;
}

function ranges(missing: IndexRange[]): string {
  const shown = missing
    .slice(0, 5)
    .map(({ first, last, reason }) => (first === last ? `entry ${first}` : `entries ${first} to ${last}`) + (reason ? ` (${reason})` : ""));
  return missing.length > 5 ? `${shown.join(", ")} and ${count(missing.length - 5)} more ranges` : shown.join(", ");
}

const hashLine = (): number => Number(/^#L([1-9]\d{0,15})$/.exec(location.hash)?.[1] ?? 0);

function preference(name: string, otherwise: boolean): boolean {
  const stored = localStorage.getItem(`daybook.${name}`);
  return stored === null ? otherwise : stored === "true";
}
