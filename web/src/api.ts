// The data API (docs/api.md), typed. 64-bit numbers are strings in the JSON of protocol buffers.

export type State = "STREAM_STATE_UNSPECIFIED" | "OPEN" | "TERMINATED" | "COMPLETE" | "INCOMPLETE";

export interface IndexRange {
  first: string;
  last: string;
  /** Why the entries are missing, if they did arrive. */
  reason?: string;
}

export interface Stream {
  project: string;
  path: string;
  state: State;
  created?: string;
  ended?: string;
  size: string;
  lines: string;
  endReason: string;
  missing: IndexRange[];
  desc?: {
    name: string;
    streamType: "TEXT" | "BINARY" | "DATAGRAM";
    contentType: string;
    timestamp?: string;
    tags: Record<string, string>;
  };
}

export interface Prefix {
  project: string;
  prefix: string;
  created?: string;
  streams: Stream[];
}

export interface PrefixPage {
  prefixes: Prefix[];
  nextPageToken: string;
}

export interface End {
  state: State;
  reason: string;
  missing: IndexRange[];
}

/** An entry: index, milliseconds after the stream's time, number of the first line, lines. */
export interface Entry {
  i: number;
  t: number;
  n?: number;
  l?: { v: string; d: string }[];
}

/** Entries, and the ranges of indices missing between them. */
export interface Batch {
  e: Entry[];
  m?: [number, number][];
}

export interface EntriesPage extends Batch {
  first: string;
  next: string;
  end?: End;
}

/** ApiError is what the server says when it refuses. */
export class ApiError extends Error {
  constructor(
    readonly code: string,
    message: string,
  ) {
    super(message);
  }

  /** Whether the same request may succeed later. */
  get temporary(): boolean {
    return !["invalid", "denied", "unauthenticated", "unimplemented", "data_loss"].includes(this.code);
  }
}

async function get<T>(route: string, query: Record<string, string | number> = {}, signal?: AbortSignal): Promise<T> {
  const params = new URLSearchParams(Object.entries(query).map(([k, v]) => [k, String(v)]));
  let response: Response;
  try {
    response = await fetch(`/api/v1/${route}?${params}`, signal ? { signal } : {});
  } catch (e) {
    if (signal?.aborted) throw e;
    throw new ApiError("unreachable", "The server cannot be reached. This page tries again by itself.");
  }
  if (!response.ok) {
    const body = (await response.json().catch(() => ({}))) as { code?: string; message?: string };
    throw new ApiError(body.code ?? "internal", body.message ?? `The server answered ${response.status}.`);
  }
  return (await response.json()) as T;
}

/** streamRoute is the part of an address that names a stream. */
export function streamRoute(project: string, path: string): string {
  return `${project}/${path}`.split("/").map(segment).join("/");
}

// Segments may hold a colon and the separator is a plus, both fine in a path as they are.
function segment(s: string): string {
  return encodeURIComponent(s).replaceAll("%2B", "+").replaceAll("%3A", ":");
}

export const listProjects = () => get<{ projects: string[] }>("projects").then((r) => r.projects);

export const listPrefixes = (query: { project: string; pattern: string; page_size?: number; page_token?: string }) =>
  get<PrefixPage>("prefixes", query);

export const getStream = (project: string, path: string) => get<Stream>(`stream/${streamRoute(project, path)}`);

export type Start = { index: string } | { line: number } | { tail: number };

export const getEntries = (project: string, path: string, query: Start & { until?: number }, signal?: AbortSignal) =>
  get<EntriesPage>(`entries/${streamRoute(project, path)}`, query, signal);

export const followAddress = (project: string, path: string, start: Start) =>
  `/api/v1/follow/${streamRoute(project, path)}?${new URLSearchParams(Object.entries(start).map(([k, v]) => [k, String(v)]))}`;
