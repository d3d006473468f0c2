import { LitElement } from "lit";

/** Page is an element of the document itself: the one style sheet applies, and addresses like #L12 and the browser's search work. */
export abstract class Page extends LitElement {
  protected override createRenderRoot(): HTMLElement {
    return this;
  }
}

/** version of the server, which wrote it into the shell. */
export const version = () => document.querySelector<HTMLMetaElement>("meta[name=daybook-version]")?.content ?? "";
