// What several pages show.

import { html, nothing, type TemplateResult } from "lit";
import type { ApiError, State, Stream } from "./api";
import { count, size } from "./format";
import { login } from "./page";
import { frontAddress, loginAddress, logAddress } from "./route";

const labels: Record<State, string> = {
  STREAM_STATE_UNSPECIFIED: "unknown",
  OPEN: "live",
  TERMINATED: "finishing",
  COMPLETE: "complete",
  INCOMPLETE: "incomplete",
};

export const stateName = (state: State) => labels[state];

const explanations: Record<State, string> = {
  STREAM_STATE_UNSPECIFIED: "",
  OPEN: "More may come.",
  TERMINATED: "The end is known; the last pieces are on their way.",
  COMPLETE: "Everything that was written is here.",
  INCOMPLETE: "A part of what was written never arrived.",
};

export const badge = (state: State, label = labels[state]) =>
  html`<span class="badge ${labels[state]}" title=${explanations[state]}>${label}</span>`;

/** dot is a badge for where there is no room; the name of the state is for those who hear the page. */
export const dot = (state: State) =>
  html`<span class="dot ${labels[state]}" role="img" aria-label=${labels[state]} title="${labels[state]}: ${explanations[state]}"></span>`;

export function amount(s: Stream): string {
  const lines = Number(s.lines);
  const what = s.desc?.streamType === "DATAGRAM" ? ["datagram", "datagrams"] : ["line", "lines"];
  const parts = [size(Number(s.size))];
  if (s.desc?.streamType !== "BINARY") parts.push(`${count(lines)} ${what[lines === 1 ? 0 : 1]}`);
  return parts.join(" · ");
}

/** header begins each page: where it is, from the whole down to the part. */
export function header(content: TemplateResult | typeof nothing = nothing): TemplateResult {
  return html`<header class="top">
    <a class="brand" href="/" aria-label="Daybook, front page">
      <svg viewBox="0 0 32 32" aria-hidden="true">
        <rect x="4" y="3" width="24" height="26" rx="4" class="cover"></rect>
        <path d="M10 3v26" class="spine"></path>
        <path d="M15 11h8M15 16h8M15 21h5" class="writing"></path>
      </svg>
      <span>Daybook</span>
    </a>
    ${content}
    ${login() ? html`<a class="account" href=${loginAddress()}>${login() === "in" ? "Account" : "Log in"}</a>` : nothing}
  </header>`;
}

/** crumbs leads from a prefix to the prefixes beside and above it. */
export function crumbs(project: string, prefix: string, link: boolean): TemplateResult {
  const segments = prefix.split("/");
  const last = segments.pop()!;
  return html`<nav class="crumbs" aria-label="Prefix">
    <a href=${frontAddress(project)}>${project}</a>
    ${segments.map(
      (s, i) =>
        html`<span aria-hidden="true">/</span><a href=${frontAddress(project, `${segments.slice(0, i + 1).join("/")}/**`)}>${s}</a>`,
    )}
    <span aria-hidden="true">/</span>${link
      ? html`<a class="here" href=${logAddress(project, prefix)}>${last}</a>`
      : html`<h1 class="here">${last}</h1>`}
  </nav>`;
}

export const notice = (text: string | TemplateResult, kind: "plain" | "bad" = "plain") =>
  html`<p class="notice ${kind}" role="status">${text}</p>`;

/** problem tells what the server refused, and where to log in if that may help. */
export const problem = (error: ApiError) =>
  notice(
    html`${error.message}${error.code === "unauthenticated" && login() ? html`. <a href=${loginAddress()}>Log in</a>` : nothing}`,
    "bad",
  );
