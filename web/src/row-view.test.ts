import { describe, expect, it } from "vitest";
import { renderGap, renderLine } from "./row-view";

const line = (text: string, style = {}) => renderLine({ kind: "line", n: 7, t: 61_500, text, cut: 0, open: false }, style);

describe("renderLine", () => {
  it("makes text of what looks like markup", () => {
    const { element } = line("<img src=x onerror=alert(1)> & \x1b[31m<b>");
    expect(element.querySelector("img, b")).toBeNull();
    expect(element.querySelector(".text")!.textContent).toBe("<img src=x onerror=alert(1)> & <b>");
  });

  it("is a target that can be linked to", () => {
    const { element } = line("x");
    expect(element.id).toBe("L7");
    expect(element.querySelector("a")!.getAttribute("href")).toBe("#L7");
    expect(element.querySelector("a")!.dataset.t).toBe(" 01:01.500");
  });

  it("names colours and styles", () => {
    const span = (text: string) => line(text).element.querySelector<HTMLElement>(".text > span")!;
    expect(span("\x1b[1;31;42mx").className).toBe("fg-1 bg-2 bold");
    expect(span("\x1b[7mx").className).toBe("fg-bg bg-fg");
    expect(span("\x1b[7;31mx").className).toBe("fg-bg bg-1");
    expect(span("\x1b[38;2;1;2;3mx").style.color).toBe("rgb(1, 2, 3)");
  });

  it("links web addresses and nothing else", () => {
    const links = (text: string) => [...line(text).element.querySelectorAll<HTMLAnchorElement>(".link")].map((a) => a.textContent);
    expect(links("see https://a.example/x?y=1#z, (http://localhost:8080/a_(b)) and <https://b.example>.")).toEqual([
      "https://a.example/x?y=1#z",
      "http://localhost:8080/a_(b)",
      "https://b.example",
    ]);
    expect(links("javascript://alert(1) file:///etc/passwd ahttps://x")).toEqual([]);
    expect(line("https://a.example").element.querySelector(".link")!.getAttribute("rel")).toContain("noopener");
  });

  it("says how much it leaves out", () => {
    const { element } = renderLine({ kind: "line", n: 1, t: 0, text: "x", cut: 12_345, open: false }, {});
    expect(element.textContent).toContain("12,345 more characters");
  });
});

it("renderGap says what is lost", () => {
  expect(renderGap({ kind: "gap", first: 3, last: 3 }).textContent).toContain("entry 3");
  expect(renderGap({ kind: "gap", first: 3, last: 1002 }).textContent).toContain("entries 3 to 1,002");
});
