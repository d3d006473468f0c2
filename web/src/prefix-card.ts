import { html, nothing, type TemplateResult } from "lit";
import type { Prefix, State, Stream } from "./api";
import { age, clock, duration } from "./format";
import { amount, badge, dot } from "./parts";
import { logAddress } from "./route";

/** overall is the state of a prefix: that of the stream that needs most attention. */
export function overall(streams: Stream[]): State {
  for (const state of ["OPEN", "TERMINATED", "INCOMPLETE"] as const) if (streams.some((s) => s.state === state)) return state;
  return "COMPLETE";
}

/** took is how long a stream has been written, or was. */
export function took(s: Stream, now: number): string {
  const begin = Date.parse(s.created ?? "");
  const end = s.ended ? Date.parse(s.ended) : now;
  return Number.isNaN(begin) ? "" : duration(Math.max(0, end - begin));
}

/** streamList shows streams in columns that line up. */
export const streamList = (streams: Stream[], now: number): TemplateResult => html`<ul class="streams">
  ${streams.map(
    (s) => html`<li>
      <a href=${logAddress(s.project, s.path)}>
        ${dot(s.state)}<span class="name">${s.path.slice(s.path.indexOf("/+/") + 3)}</span>
        <span class="amount">${amount(s)}</span>
        <span class="took">${took(s, now)}</span>
        ${s.endReason ? html`<span class="reason">${s.endReason}</span>` : nothing}
      </a>
    </li>`,
  )}
</ul>`;

/** maxStreams is how many streams of a prefix the front page shows. */
const maxStreams = 6;

export function prefixCard(p: Prefix, now: number): TemplateResult {
  const created = Date.parse(p.created ?? "");
  const more = p.streams.length - maxStreams;
  return html`<article class="card">
    <h2>
      <a href=${logAddress(p.project, p.prefix)}>${broken(p.prefix)}</a>
      ${p.streams.length ? badge(overall(p.streams)) : nothing}
      ${Number.isNaN(created) ? nothing : html`<time datetime=${p.created!} title=${clock(created)}>${age(created, now)}</time>`}
    </h2>
    ${p.streams.length ? streamList(p.streams.slice(0, maxStreams), now) : html`<p class="quiet">No streams yet.</p>`}
    ${more > 0 ? html`<p class="quiet"><a href=${logAddress(p.project, p.prefix)}>and ${more} more</a></p>` : nothing}
  </article>`;
}

/** broken lets a long prefix break after its slashes. */
const broken = (prefix: string) => prefix.split("/").map((s, i) => (i ? html`/<wbr>${s}` : s));
