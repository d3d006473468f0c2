import { html, nothing } from "lit";
import { customElement, property, state } from "lit/decorators.js";
import { repeat } from "lit/directives/repeat.js";
import { ApiError, listPrefixes, listProjects, type Prefix } from "./api";
import { Page, version } from "./page";
import { header, notice, problem } from "./parts";
import { Poll } from "./poll";
import { prefixCard } from "./prefix-card";
import { frontAddress } from "./route";

const pageSize = 50;

/** FrontPage lists recent prefixes, newest first, and keeps the list up to date. */
@customElement("daybook-front")
export class FrontPage extends Page {
  @property() project = "";
  @property() pattern = "";

  @state() private projects: string[] = [];
  @state() private recent: Prefix[] | undefined;
  /** Pages that the reader asked for, after the recent one, which alone is asked for again. */
  @state() private older: Prefix[] = [];
  @state() private token = "";
  @state() private error: ApiError | undefined;
  @state() private loadingOlder = false;
  private now = Date.now();
  private delay: ReturnType<typeof setTimeout> | undefined;
  private readonly poll = new Poll(this, () => this.refresh(), 2_000);

  private async refresh(): Promise<"again" | "done"> {
    try {
      if (this.projects.length === 0) {
        this.projects = await listProjects();
        this.project ||= this.projects.includes("local") ? "local" : (this.projects[0] ?? "local");
      }
      const query = { project: this.project, pattern: this.pattern };
      const page = await listPrefixes({ ...query, page_size: pageSize });
      if (query.project !== this.project || query.pattern !== this.pattern) return "again";
      // What moved off the recent page stays, so that nothing the reader has seen vanishes.
      if (this.older.length > 0) {
        const known = new Set([...page.prefixes, ...this.older].map((p) => p.prefix));
        this.older = [...(this.recent ?? []).filter((p) => !known.has(p.prefix)), ...this.older];
      } else {
        this.token = page.nextPageToken;
      }
      this.recent = page.prefixes;
      this.error = undefined;
    } catch (e) {
      if (!(e instanceof ApiError)) throw e;
      this.error = e;
      return e.temporary ? "again" : "done";
    } finally {
      this.now = Date.now();
    }
    return "again";
  }

  private async loadOlder(): Promise<void> {
    this.loadingOlder = true;
    try {
      const page = await listPrefixes({
        project: this.project, pattern: this.pattern, page_size: pageSize, page_token: this.token,
      });
      this.older = [...this.older, ...page.prefixes];
      this.token = page.nextPageToken;
    } catch (e) {
      if (!(e instanceof ApiError)) throw e;
      this.error = e;
    } finally {
      this.loadingOlder = false;
    }
  }

  private choose(project: string, pattern: string): void {
    if (project === this.project && pattern === this.pattern) return;
    this.project = project;
    this.pattern = pattern;
    history.replaceState(null, "", frontAddress(project, pattern));
    this.older = [];
    this.token = "";
    this.poll.now();
  }

  private readonly typed = (e: Event): void => {
    const value = (e.target as HTMLInputElement).value.trim();
    clearTimeout(this.delay);
    this.delay = setTimeout(() => this.choose(this.project, value), 250);
  };

  private readonly submitted = (e: Event): void => {
    e.preventDefault();
    clearTimeout(this.delay);
    this.choose(this.project, this.querySelector<HTMLInputElement>("#filter")!.value.trim());
  };

  protected override render() {
    document.title = this.pattern ? `${this.pattern} · Daybook` : "Daybook";
    const recent = this.recent ?? [];
    const fresh = new Set(recent.map((p) => p.prefix));
    const prefixes = [...recent, ...this.older.filter((p) => !fresh.has(p.prefix))];
    return html`${header(html`<form class="filter" role="search" @submit=${this.submitted}>
        <select
          aria-label="Project"
          .value=${this.project}
          @change=${(e: Event) => this.choose((e.target as HTMLSelectElement).value, this.pattern)}
        >
          ${[...new Set([...this.projects, this.project])]
            .filter(Boolean)
            .map((p) => html`<option value=${p} ?selected=${p === this.project}>${p}</option>`)}
        </select>
        <input
          id="filter"
          type="search"
          aria-label="Filter by prefix"
          placeholder="Filter: ci/** or */nightly"
          title="A prefix; * stands for a part of a segment, ** for any segments"
          spellcheck="false"
          autocapitalize="off"
          autocomplete="off"
          .value=${this.pattern}
          @input=${this.typed}
        />
      </form>`)}
      <main class="list">
        ${this.error ? problem(this.error) : nothing}
        ${this.recent === undefined && !this.error ? notice("Loading…") : nothing}
        ${this.recent && prefixes.length === 0 && !this.error ? this.nothingHere() : nothing}
        ${repeat(
          prefixes,
          (p) => p.prefix,
          (p) => prefixCard(p, this.now),
        )}
        ${this.token
          ? html`<button class="more" ?disabled=${this.loadingOlder} @click=${this.loadOlder}>Older</button>`
          : nothing}
      </main>
      <footer>Daybook ${version()}</footer>`;
  }

  private nothingHere() {
    if (this.pattern) {
      return notice(html`Nothing matches <code>${this.pattern}</code>. In a filter, <code>*</code> stands for a part of a segment and
        <code>**</code> for any number of segments: <code>ci/**</code> is everything below ci.`);
    }
    return html`<div class="notice plain">
      <p>Nothing has been captured yet. Put this before a command, and its output appears here as it is written:</p>
      <pre>daybook run -- make</pre>
    </div>`;
  }
}
