import { html, nothing } from "lit";
import { customElement, property, state } from "lit/decorators.js";
import { ApiError, getEntries } from "./api";
import { findNext, findPrevious, type Load } from "./find";
import { count } from "./format";
import { Page } from "./page";

/** FindBox looks for text in a stream: for the next line with Enter, for the one before with Shift and Enter. */
@customElement("daybook-find")
export class FindBox extends Page {
  @property() project = "";
  @property() path = "";
  /** The line where a search for something new begins. */
  @property({ attribute: false }) begin: () => number = () => 1;
  /** What is done with a line that was found. */
  @property({ attribute: false }) found: (line: number) => void = () => {};

  @state() private status = "";
  /** What was found last. */
  private last: { text: string; line: number } | undefined;
  private search: AbortController | undefined;

  override disconnectedCallback(): void {
    super.disconnectedCallback();
    this.search?.abort();
  }

  private readonly key = (e: KeyboardEvent): void => {
    const input = e.target as HTMLInputElement;
    if (e.key === "Enter") {
      e.preventDefault();
      void this.find(input.value, e.shiftKey);
    } else if (e.key === "Escape") {
      this.stop();
      input.blur();
    }
  };

  private readonly stop = (): void => {
    this.search?.abort();
    this.status = "";
  };

  private async find(text: string, back: boolean): Promise<void> {
    this.stop();
    if (!text) return;
    const { signal } = (this.search = new AbortController());
    const load: Load = (query) => getEntries(this.project, this.path, query, signal);
    const progress = (line: number) => {
      if (!signal.aborted) this.status = `looking at line ${count(line)} …`;
    };
    const again = this.last?.text === text ? this.last.line : undefined;
    const from = again ?? this.begin() - (back ? 0 : 1);
    try {
      let line = await (back ? findPrevious : findNext)(load, text, from, progress);
      const around = line === undefined && !back;
      if (around && from > 0) line = await findNext(load, text, 0, progress, from);
      if (signal.aborted) return;
      if (line === undefined) {
        this.status = back ? "not found above" : "not found";
        return;
      }
      this.status = around ? "on from the top" : "";
      this.last = { text, line };
      this.found(line);
    } catch (e) {
      if (signal.aborted) return;
      if (!(e instanceof ApiError)) throw e;
      this.status = e.message;
    }
  }

  protected override render() {
    return html`<input
        type="search"
        aria-label="Find in the stream"
        placeholder="Find"
        title="Find (/): Enter for the next line, Shift+Enter for the one before"
        spellcheck="false"
        autocapitalize="off"
        autocomplete="off"
        @keydown=${this.key}
        @input=${this.stop}
      /><span role="status">${this.status || nothing}</span>`;
  }
}
