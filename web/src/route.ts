// The routes of the viewer. The server gives all of them the same shell.

import { streamRoute } from "./api";

export type Route =
  | { page: "front"; project: string; pattern: string }
  | { page: "prefix"; project: string; prefix: string }
  | { page: "stream"; project: string; path: string; prefix: string; name: string }
  | { page: "unknown" };

export function parseRoute(pathname: string, search: string): Route {
  let segments: string[];
  try {
    segments = pathname.split("/").filter(Boolean).map(decodeURIComponent);
  } catch {
    return { page: "unknown" };
  }
  if (segments.length === 0) {
    const query = new URLSearchParams(search);
    return { page: "front", project: query.get("project") ?? "", pattern: query.get("q") ?? "" };
  }
  const [root, project, ...path] = segments;
  if (root !== "logs" || !project || path.length === 0) return { page: "unknown" };
  const plus = path.indexOf("+");
  if (plus < 0) return { page: "prefix", project, prefix: path.join("/") };
  return {
    page: "stream",
    project,
    path: path.join("/"),
    prefix: path.slice(0, plus).join("/"),
    name: path.slice(plus + 1).join("/"),
  };
}

export const frontAddress = (project: string, pattern = "") =>
  `/?${new URLSearchParams(pattern ? { project, q: pattern } : { project })}`;

/** loginAddress is the page that asks for a token, and leads back here. */
export const loginAddress = () => `/login?${new URLSearchParams({ next: location.pathname + location.search })}${location.hash}`;

/** logAddress is the page of a prefix or a stream. */
export const logAddress = (project: string, path: string) => `/logs/${streamRoute(project, path)}`;
