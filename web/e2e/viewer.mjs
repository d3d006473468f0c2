// The viewer as a reader sees it. Started by TestBrowser, which says in the environment where the viewer and its control are.

import assert from "node:assert/strict";
import { join } from "node:path";
import { chromium } from "playwright-core";

const { VIEWER, EXPLORED, CONTROL, CHROMIUM, PROFILE, PATIENCE, DAYBOOK_SCREENSHOTS } = process.env;
const build = "user/laptop/make.20260314-101500.x7d1/+";

const context = await chromium.launchPersistentContext(PROFILE, {
  executablePath: CHROMIUM,
  viewport: { width: 1200, height: 800 },
  args: [
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
    "--disable-background-networking", "--disable-component-update", "--disable-sync",
  ],
});
context.setDefaultTimeout(Number(PATIENCE)); // what does not happen is wrong, what takes long is not

const control = (what, form = {}) => fetch(`${CONTROL}/${what}`, { method: "POST", body: new URLSearchParams(form) });
const print = (path, text) => control("print", { path, text });

/** open opens a page, and holds it to make no noise. */
async function open(path, server = VIEWER) {
  const page = await context.newPage();
  const complaints = [];
  page.on("pageerror", (e) => complaints.push(e.stack ?? String(e)));
  page.on("console", (m) => {
    // A connection that is cut, and an address without content, are reported as errors of the network.
    if (m.type() === "error" && !/Failed to load resource|ERR_/.test(m.text())) complaints.push(m.text());
  });
  page.check = () => assert.deepEqual(complaints, []);
  await page.goto(server + path);
  return page;
}

async function shot(page, name) {
  if (!DAYBOOK_SCREENSHOTS) return;
  for (const colorScheme of ["light", "dark"]) {
    await page.emulateMedia({ colorScheme });
    await page.screenshot({ path: join(DAYBOOK_SCREENSHOTS, `${name}-${colorScheme}.png`) });
  }
  await page.setViewportSize({ width: 390, height: 780 });
  await page.emulateMedia({ colorScheme: "light" });
  await page.screenshot({ path: join(DAYBOOK_SCREENSHOTS, `${name}-phone.png`) });
  await page.setViewportSize({ width: 1200, height: 800 });
}

const lines = (page) => page.locator(".row .text").allTextContents();
const rows = (page) => page.locator(".row").count();
const has = (page, text) => page.locator(".row .text", { hasText: text }).last().waitFor();
const visible = (page, line) => page.locator(`#L${line}`).evaluate((e) => {
  const { top, bottom } = e.getBoundingClientRect();
  return top >= 0 && bottom <= innerHeight;
});
/** seen waits until a line is in view. */
const seen = (page, line) => page.waitForFunction((id) => {
  const { top, bottom } = document.getElementById(id)?.getBoundingClientRect() ?? { top: -1 };
  return top >= 0 && bottom <= innerHeight;
}, `L${line}`);
const wider = (page) => page.evaluate(() => document.documentElement.scrollWidth > innerWidth);

const tests = {
  async "the front page lists what there is, and what comes"() {
    const page = await open("/");
    await page.getByRole("link", { name: "user/laptop/make" }).waitFor();
    assert.equal(await page.locator(".card").first().locator(".badge").textContent(), "live");
    await shot(page, "front");
    const card = page.locator(".card").first();
    await card.evaluate((e) => (e.dataset.same = "yes"));
    await print("fresh/run/+/stdout", "hello\n");
    await page.getByRole("link", { name: "fresh/run" }).first().waitFor();
    assert.equal(await page.locator("[data-same]").count(), 1, "the list was drawn anew");
    await page.fill("#filter", "ci/**");
    await page.getByRole("link", { name: "user/laptop/make" }).waitFor({ state: "detached" });
    assert.equal(await page.locator(".card").count(), 2);
    assert.match(page.url(), /\?project=local&q=ci%2F\*\*$/);
    await page.fill("#filter", "nothing/**");
    await page.getByText("Nothing matches").waitFor();
    await page.setViewportSize({ width: 390, height: 780 });
    await page.fill("#filter", "");
    await page.locator(".card").first().waitFor();
    assert.equal(await wider(page), false, "wider than a phone");
    page.check();
  },

  async "a prefix lists its streams"() {
    const page = await open("/logs/local/ci/linux/nightly/2041");
    await page.getByRole("link", { name: "steps/build/stderr" }).waitFor();
    await shot(page, "prefix");
    await page.getByRole("link", { name: "steps/build/stderr" }).click();
    await has(page, "warning: unused variable");
    page.check();
  },

  async "a stream shows its backlog, then lines as they come, over broken connections, to its end"() {
    const page = await open(`/logs/local/${build}/stdout`);
    await has(page, "[60/60]");
    const text = await lines(page);
    assert.equal(text[0], "==> configure");
    assert.equal(text[4], " 100% downloaded");
    assert.ok(text[5].startsWith("<b>markup</b> & bytes ��, a bell ␇, orange"), text[5]);
    assert.equal(await page.locator(".fg-2", { hasText: "yes" }).count(), 1);
    assert.equal(await page.locator("a.link").getAttribute("href"), "https://example.com/ssl");
    assert.equal(await page.locator(".badge").textContent(), "live");
    await shot(page, "stream");
    await page.getByText("Details").click();
    await page.getByText("commit").waitFor();
    assert.deepEqual((await page.locator(".about dd").allTextContents()).slice(1), ["text/html", "main", "<b>4f1c</b>"]);
    await shot(page, "details");
    await page.getByText("Details").click();
    await page.keyboard.press("Home");
    await shot(page, "colours");
    await page.keyboard.press("End");

    await print(`${build}/stdout`, "a live line\n");
    await has(page, "a live line");

    // Lines are written before, while and after the connection is away.
    let n = 0;
    for (const interruption of ["fail", "drop", "fail", "drop"]) {
      await print(`${build}/stdout`, `count ${++n}\n`);
      await control(interruption);
      await print(`${build}/stdout`, `count ${++n}\n`);
      await has(page, `count ${n}`);
    }
    const counted = (await lines(page)).filter((l) => l.startsWith("count "));
    assert.deepEqual(counted, Array.from({ length: n }, (_, i) => `count ${i + 1}`));

    // A line in pieces is one line.
    await print(`${build}/stdout`, "half a line");
    await has(page, "half a line");
    await print(`${build}/stdout`, ", and the rest\n");
    await has(page, "half a line, and the rest");
    assert.equal((await lines(page)).filter((l) => l.startsWith("half")).length, 1);

    // Who scrolls up is left alone; who follows sees the end.
    const last = await rows(page);
    await seen(page, last);
    await page.locator(".log").hover();
    await page.mouse.wheel(0, -5000);
    await page.getByRole("button", { name: "Follow ↓" }).waitFor();
    await print(`${build}/stdout`, "out of sight\n");
    await has(page, "out of sight");
    assert.equal(await visible(page, last + 1), false);
    await page.getByRole("button", { name: "Follow ↓" }).click();
    await seen(page, last + 1);

    await control("end", { path: `${build}/stdout` });
    await page.locator(".badge.complete").waitFor();
    page.check();
  },

  async "a stream that does not exist is waited for"() {
    const page = await open("/logs/local/later/+/stdout");
    await page.getByText("There is no such stream yet").waitFor();
    await print("later/+/stdout", "here it is\n");
    await has(page, "here it is");
    page.check();
  },

  async "a long stream is read from either end, and anywhere between"() {
    const page = await open("/logs/local/long/+/stdout");
    await seen(page, 100_000);
    assert.ok((await rows(page)) < 5_000, `${await rows(page)} rows at the begin`);

    // Up: earlier lines come, in order and without a gap.
    await page.locator(".log").focus();
    const first = () => page.locator(".row").first().evaluate((e) => Number(e.id.slice(1)));
    for (const before = await first(); (await first()) > before - 19_000; ) {
      await page.mouse.move(600, 400);
      await page.mouse.wheel(0, -20_000);
    }
    const numbers = await page.locator(".row").evaluateAll((all) => all.map((e) => Number(e.id.slice(1))));
    assert.ok(numbers.every((n, i) => i === 0 || n === numbers[i - 1] + 1), "lines are missing or out of order");
    assert.ok(numbers.length <= 22_000, `${numbers.length} rows`);

    await page.keyboard.press("Home");
    await seen(page, 1);
    await page.evaluate(() => (location.hash = "#L54321"));
    await page.locator("#L54321.target").waitFor();
    await seen(page, 54_321);
    await page.keyboard.press("End");
    await seen(page, 100_000);

    // A flood passes by, and its end is seen.
    await control("flood", { path: "long/+/stdout", lines: 200_000 });
    await page.locator("#L300000").waitFor();
    assert.ok((await rows(page)) <= 22_000, `${await rows(page)} rows after the flood`);
    page.check();
  },

  async "text is found however long the stream is"() {
    const page = await open("/logs/local/sought/+/stdout#L15000");
    await seen(page, 15_000);
    const find = page.getByLabel("Find in the stream");
    const leadsTo = async (keys, line) => {
      await find.press(keys);
      await page.locator(`#L${line}.target`).waitFor();
      await seen(page, line);
      assert.ok(page.url().endsWith(`#L${line}`), page.url());
    };
    await page.keyboard.press("/");
    await page.keyboard.type("LINE 1234");
    await leadsTo("Enter", 1_234);
    await page.getByText("on from the top").waitFor();
    await shot(page, "find");
    await leadsTo("Enter", 12_340);
    await leadsTo("Shift+Enter", 1_234);
    await find.fill("no such text");
    await find.press("Enter");
    await page.getByText("not found").waitFor();
    assert.equal(await wider(page), false);
    page.check();
  },

  async "a link to a line leads there"() {
    const page = await open("/logs/local/long/+/stdout#L77777");
    await page.locator("#L77777.target").waitFor();
    await seen(page, 77_777);
    await page.locator("#L77780 > a").click();
    assert.match(page.url(), /#L77780$/);
    assert.equal(await page.locator(".target").count(), 1);
    page.check();
  },

  async "a link to a line that is not there leads to the end"() {
    const page = await open("/logs/local/later/+/stdout#L3");
    await page.getByText("There is no line 3 yet").waitFor();
    await print("later/+/stdout", "the second\nthe third\n");
    await page.locator("#L3.target").waitFor();
    await page.getByText("There is no line").waitFor({ state: "detached" });
    page.check();
  },

  async "long lines are shown from their begin, and in part"() {
    const page = await open("/logs/local/wide/+/stdout");
    await has(page, "the last line");
    await page.locator("#L2").waitFor();
    const texts = await lines(page);
    assert.deepEqual(texts.map((t) => t.slice(0, 12)), ["first", "begin: yyyyy", "the last lin"]);
    assert.match(texts[1], /y … at least [\d,]+ more characters in the raw stream$/);
    await page.keyboard.press("Home");
    await seen(page, 1);
    page.check();
  },

  async "whoever needs a token is led to the login, and back to their line"() {
    const page = await open(`/logs/local/${build}/stdout#L3`, EXPLORED);
    await page.locator("#L3.target").waitFor();
    await page.getByRole("link", { name: "Log in" }).click();
    await shot(page, "login");
    await page.getByLabel("Token").fill("wrong");
    await page.getByRole("button", { name: "Log in" }).click();
    await page.getByText("This token is not valid here").waitFor();
    await page.getByLabel("Token").fill("right");
    await page.getByRole("button", { name: "Log in" }).click();
    await page.locator("#L3.target").waitFor();
    await page.getByRole("link", { name: "Account" }).click();
    await page.getByText("You are logged in as token:reader").waitFor();
    await page.getByRole("button", { name: "Log out" }).click();
    await page.getByLabel("Token").waitFor();
    page.check();
  },

  async "what is lost is shown at its place"() {
    const page = await open("/logs/local/ci/mac/nightly/877/+/stdout");
    await page.locator(".badge.incomplete").waitFor();
    await has(page, "step 9");
    const after = await page.locator(".gap").evaluateAll((all) => all.map((e) => e.nextElementSibling?.id));
    assert.deepEqual(after, ["L11", "L17"]);
    await page.getByText("the machine stopped reporting").waitFor();
    await page.keyboard.press("t");
    await shot(page, "incomplete");
    await page.keyboard.press("t");
    page.check();
  },

  async "binary, empty and unknown"() {
    let page = await open("/logs/local/user/laptop/tar.20260314-092653.k2f9/+/stdout");
    await page.getByText("binary data").waitFor();
    await shot(page, "binary");
    page = await open(`/logs/local/${build}/empty`);
    await page.locator(".badge.live").waitFor();
    await control("end", { path: `${build}/empty` });
    await page.getByText("The stream is empty").waitFor();
    await shot(page, "empty");
    page = await open("/nowhere");
    await page.getByText("There is no page at this address").waitFor();
    page.check();
  },

  async "calls by hand"() {
    const page = await open("/rpcexplorer/", EXPLORED);
    await page.getByText("daybook.v1.Logs", { exact: true }).waitFor();
    // A method that answers with a stream of messages is shown, and cannot be called.
    assert.equal(await page.getByRole("link", { name: "Follow", exact: true }).count(), 0);
    await page.getByRole("link", { name: "FindStreams" }).click();
    const request = JSON.parse(await page.locator("#request").inputValue());
    assert.deepEqual(request, {
      project: "local", pattern: "", pageSize: 0, pageToken: "", tags: {}, contentType: "", states: [], purged: false,
    });
    await shot(page, "explorer");
    await page.locator("#request").fill(JSON.stringify({ project: "local", pattern: "long" }));
    await page.getByRole("button", { name: "Send" }).click();
    await page.getByText("OK, HTTP 200").waitFor();
    const answer = JSON.parse(await page.locator("#answer").textContent());
    assert.deepEqual(answer.streams.map((s) => s.path), ["long/+/stdout"]);
    assert.match(await page.locator("#curl").textContent({ timeout: 1000 }), /prpc\/daybook\.v1\.Logs\/FindStreams' -H .*"pattern":"long"/s);
    await page.getByRole("link", { name: "GetStream" }).click();
    await page.locator("#request").fill('{"project":"local","path":"no/+/such"}');
    await page.locator("#request").press("Control+Enter");
    await page.getByText("NOT_FOUND, HTTP 404").waitFor();
    await page.getByText("there is no stream no/+/such").waitFor();
    await page.locator("#request").fill("{");
    await page.getByRole("button", { name: "Send" }).click();
    await page.getByText("INVALID_ARGUMENT, HTTP 400").waitFor();
    page.check();
  },

  async "a stream fits a phone"() {
    const page = await open(`/logs/local/${build}/stdout`);
    await page.setViewportSize({ width: 390, height: 780 });
    await has(page, "[60/60]");
    assert.equal(await wider(page), false, "wider than a phone");
    await page.keyboard.press("w");
    assert.equal(await wider(page), false, "wider than a phone without wrapping");
    page.check();
  },
};

let failed = 0;
for (const [name, test] of Object.entries(tests)) {
  const begin = Date.now();
  try {
    await test();
    console.log(`ok   ${name} (${Date.now() - begin} ms)`);
  } catch (e) {
    failed++;
    console.log(`FAIL ${name}\n${e.stack}`);
  }
  for (const page of context.pages().slice(1)) await page.close();
}
await context.close();
process.exit(failed ? 1 : 0);
