import { LitElement } from "lit";

/** Page is an element of the document itself: the one style sheet applies, and addresses like #L12 and the browser's search work. */
export abstract class Page extends LitElement {
  protected override createRenderRoot(): HTMLElement {
    return this;
  }
}

/** told is what the server wrote into the shell. */
const told = (name: string) => document.querySelector<HTMLMetaElement>(`meta[name=daybook-${name}]`)?.content ?? "";

export const version = () => told("version");

/** login is whether the browser has one; empty where there is none to be had. */
export const login = () => told("login") as "" | "in" | "out";
