import { html, render } from "lit";
import "./front-page";
import "./prefix-page";
import "./stream-page";
import { header, notice } from "./parts";
import { parseRoute } from "./route";

const route = parseRoute(location.pathname, location.search);

function page() {
  switch (route.page) {
    case "front":
      return html`<daybook-front .project=${route.project} .pattern=${route.pattern}></daybook-front>`;
    case "prefix":
      return html`<daybook-prefix .project=${route.project} .prefixName=${route.prefix}></daybook-prefix>`;
    case "stream":
      return html`<daybook-stream .project=${route.project} .path=${route.path} .prefixName=${route.prefix} .name=${route.name}></daybook-stream>`;
    case "unknown":
      document.title = "Not found · Daybook";
      return html`${header()}
        <main class="list">${notice(html`There is no page at this address. The <a href="/">front page</a> lists what was captured.`)}</main>`;
  }
}

render(page(), document.body);
