import { html, nothing } from "lit";
import { customElement, property, state } from "lit/decorators.js";
import { ApiError, listPrefixes, type Prefix } from "./api";
import { age, clock } from "./format";
import { Page, version } from "./page";
import { badge, crumbs, header, notice, problem } from "./parts";
import { Poll } from "./poll";
import { overall, streamList } from "./prefix-card";

/** PrefixPage lists the streams of a prefix. */
@customElement("daybook-prefix")
export class PrefixPage extends Page {
  @property() project = "";
  @property() prefixName = "";

  @state() private found: Prefix | "none" | undefined;
  @state() private error: ApiError | undefined;
  private now = Date.now();

  constructor() {
    super();
    new Poll(this, () => this.refresh(), 2_000);
  }

  private async refresh(): Promise<"again" | "done"> {
    this.now = Date.now();
    try {
      const page = await listPrefixes({ project: this.project, pattern: this.prefixName, page_size: 1 });
      this.found = page.prefixes[0] ?? "none";
      this.error = undefined;
    } catch (e) {
      if (!(e instanceof ApiError)) throw e;
      this.error = e;
      return e.temporary ? "again" : "done";
    }
    return "again";
  }

  protected override render() {
    document.title = `${this.prefixName} · Daybook`;
    const p = this.found;
    const created = typeof p === "object" ? Date.parse(p.created ?? "") : NaN;
    return html`${header(crumbs(this.project, this.prefixName, false))}
      <main class="list">
        ${this.error ? problem(this.error) : nothing}
        ${p === undefined && !this.error ? notice("Loading…") : nothing}
        ${p === "none" ? notice("There is no such prefix yet. This page shows it as soon as it begins.") : nothing}
        ${typeof p === "object"
          ? html`<article class="card">
              <h2>
                Streams ${p.streams.length ? badge(overall(p.streams)) : nothing}
                ${Number.isNaN(created) ? nothing : html`<time datetime=${p.created!} title=${clock(created)}>${age(created, this.now)}</time>`}
              </h2>
              ${p.streams.length ? streamList(p.streams, this.now) : html`<p class="quiet">No streams yet.</p>`}
            </article>`
          : nothing}
      </main>
      <footer>Daybook ${version()}</footer>`;
  }
}
