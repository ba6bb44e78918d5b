// Clicks through the dashboard while a package crosses the WAN. Prints figures; ends with 1, and says
// why, if something is wrong.

import assert from "node:assert/strict";
import { mkdirSync } from "node:fs";
import { createRequire } from "node:module";
import { join } from "node:path";

// An import would not look at NODE_PATH.
const { chromium } = createRequire(import.meta.url)("playwright-core");

const base = process.env.DASHBOARD;
const [name, version] = process.env.PACKAGE.split("@");
const shots = process.env.BRANCHLINE_SHOTS;
const MOST_WEIGHT = 150_000;

const browser = await chromium.launch({
  executablePath: process.env.CHROMIUM,
  args: ["--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
    "--disable-background-networking", "--disable-component-update", "--disable-sync"],
});
const wrong = [];

/** A page in which nothing may go wrong unseen. */
async function open(options) {
  const context = await browser.newContext({ viewport: { width: 1280, height: 900 }, ...options });
  const page = await context.newPage();
  page.on("console", (it) => it.type() === "error" && wrong.push(`console: ${it.text()}`));
  page.on("pageerror", (error) => wrong.push(`script: ${error.stack ?? error}`));
  page.on("request", (it) => it.url().startsWith(base) || it.url().startsWith("data:") || wrong.push(`asks elsewhere: ${it.url()}`));
  await page.addInitScript(() => {
    window.violations = [];
    document.addEventListener("securitypolicyviolation", (it) => window.violations.push(`${it.violatedDirective}: ${it.blockedURI}`));
  });
  return page;
}

async function shot(page, file, options) {
  if (!shots) return;
  mkdirSync(shots, { recursive: true });
  // A header that sticks is where the reader is.
  await page.evaluate(() => window.scrollTo({ top: 0, behavior: "instant" }));
  await page.waitForTimeout(100);
  await page.screenshot({ path: join(shots, file), fullPage: true, ...options });
}

const text = (page, selector) => page.locator(selector).innerText();
const noSidewaysScroll = (page) => page.evaluate(() => document.documentElement.scrollWidth <= window.innerWidth);

/** What a first visit costs. */
async function weigh() {
  const page = await open();
  const session = await page.context().newCDPSession(page);
  await session.send("Network.enable");
  // What has ended counts with its headers; of what has not (the events), what has come.
  const weights = new Map();
  session.on("Network.dataReceived", (it) => weights.set(it.requestId, (weights.get(it.requestId) ?? 0) + it.dataLength));
  session.on("Network.loadingFinished", (it) => weights.set(it.requestId, it.encodedDataLength));
  const answer = await page.goto(base, { waitUntil: "load" });
  assert.match(answer.headers()["content-security-policy"], /default-src 'none'/);
  await page.locator("#node-table tbody tr").nth(2).waitFor();
  await page.locator("#over-time svg.plot").waitFor();
  await page.locator("#faults li").first().waitFor();
  const weight = [...weights.values()].reduce((sum, it) => sum + it, 0);
  console.log(`page weight, all answers counted: ${weight} bytes`);
  assert.ok(weight > 20_000 && weight < MOST_WEIGHT, `${weight} bytes`);
  await page.context().close();
}

/** When something is to be seen, each time as on a first visit. How fast that is, the machine decides too. */
async function paints() {
  const times = [];
  for (let visit = 0; visit < 7; visit += 1) {
    const page = await open();
    await page.goto(base, { waitUntil: "load" });
    await page.locator("#live.on").waitFor();
    times.push(await page.evaluate(() => performance.getEntriesByName("first-contentful-paint")[0]?.startTime ?? NaN));
    await page.context().close();
  }
  const sorted = times.sort((a, b) => a - b).map((it) => it.toFixed(0));
  console.log(`first contentful paint: ${sorted[3]} ms in the median of 7 visits (${sorted[0]} to ${sorted[6]})`);
}

/** The flight, its chunks and its rate, told as they change. */
async function watchTransfer(page) {
  assert.ok(await page.locator("#no-flights").isVisible());
  const before = await text(page, "#sources h3");
  const transfer = fetch(`${base}/packages/${name}/${version}`).then((it) => it.arrayBuffer());
  const flight = page.locator(".flight", { hasText: `${name}@${version}` });
  await flight.waitFor();
  const bar = flight.getByRole("progressbar");
  const seen = new Set();
  for (const end = Date.now() + 6000; Date.now() < end; await page.waitForTimeout(100)) {
    seen.add(Number(await bar.getAttribute("aria-valuenow", { timeout: 5000 })));
  }
  console.log(`shares of the flight that were shown: ${[...seen].join(", ")}`);
  assert.ok(seen.size >= 5, "it moves");
  assert.match(await flight.innerText(), /\/s/);
  assert.match(await flight.innerText(), /(this node leads|follows .*\))/);
  assert.match(await flight.innerText(), /of \d+ chunks/);
  return { transfer, before };
}

/** Every section, by its link and by its keys. */
async function clickThrough(page) {
  for (const section of ["Savings", "Packages", "Nodes", "Health", "Now"]) {
    await page.getByRole("navigation").getByRole("link", { name: section }).click();
    await page.waitForTimeout(150);
    assert.ok(await page.getByRole("heading", { name: section, level: 2, exact: true }).isVisible());
  }
  for (const period of ["24 h", "30 days", "All", "7 days"]) {
    await page.getByRole("radio", { name: period }).check();
    await page.locator("#tiles .tile").nth(2).waitFor();
  }
  await page.getByRole("radio", { name: "This node" }).check();
  await page.waitForTimeout(300);
  const own = await text(page, "#sources h3");
  await page.getByRole("radio", { name: "Whole site" }).check();
  await page.waitForFunction((own) => document.querySelector("#sources h3").textContent !== own, own);
  assert.match(await text(page, "#by-reason"), /cold/);
  assert.match(await text(page, "#by-package"), /editor@1\.0/);
  await page.locator("#over-time summary").click();
  assert.ok(await page.locator("#over-time table").isVisible());
  await page.locator("#over-time summary").click();
  await page.getByLabel("Find").fill("editor");
  assert.equal(await page.locator("#package-table tbody tr").count(), 2);
  assert.match(await text(page, "#package-table tbody tr:first-child"), /survives the loss of 2/);
  assert.match(await text(page, "#package-table tbody tr:last-child"), /one copy|loss of 1/);
  await page.getByLabel("Find").fill("");
  await page.getByLabel("held somewhere").check();
  assert.doesNotMatch(await text(page, "#package-table"), /fonts/);
  await page.getByLabel("held somewhere").uncheck();
  assert.match(await text(page, "#package-table"), /fonts@2026\.1[\s\S]*not on the site/);
  assert.match(await text(page, "#node-table"), /seed/);
  await page.locator("#node-table summary").first().click();
  assert.match(await text(page, "#node-table details[open]"), /editor@1\.0/);
}

/** By keys alone: the skip link first, then everything that can be used, each with a visible focus. */
async function walk(page) {
  await page.evaluate(() => { document.activeElement?.blur(); window.scrollTo(0, 0); });
  await page.reload({ waitUntil: "load" });
  await page.locator("#node-table summary").first().waitFor();
  await page.keyboard.press("Tab");
  assert.equal(await page.evaluate(() => document.activeElement.className), "skip");
  const seen = [];
  for (let step = 0; step < 60; step += 1) {
    await page.keyboard.press("Tab");
    const at = await page.evaluate(() => {
      const it = document.activeElement;
      if (it === document.body) return null;
      const shown = it.matches("input[type=radio]") ? it.nextElementSibling : it;
      const style = getComputedStyle(shown);
      return { what: `${it.tagName}#${it.id || it.hash || it.name || it.className}`, visible: style.outlineStyle !== "none" && style.outlineWidth !== "0px" };
    });
    if (!at) break;
    assert.ok(at.visible, `no visible focus on ${at.what}`);
    seen.push(at.what);
  }
  console.log(`by keyboard: ${seen.length} stops`);
  for (const needed of ["A##savings", "INPUT#scope", "INPUT#since", "INPUT#package-filter", "INPUT#package-held", "SUMMARY#"]) {
    assert.ok(seen.some((it) => it.startsWith(needed)), `${needed} is not reached: ${seen.join(" ")}`);
  }
  // The arrows change what a group of radio buttons says.
  await page.locator("input[name=since]:checked").focus();
  await page.keyboard.press("ArrowRight");
  assert.equal(await page.locator("input[name=since]:checked").getAttribute("value"), "30d");
}

async function looks(page, label) {
  for (const scheme of ["light", "dark"]) {
    await page.emulateMedia({ colorScheme: scheme, reducedMotion: "reduce" });
    for (const [width, height] of [[1280, 900], [390, 844]]) {
      await page.setViewportSize({ width, height });
      await page.waitForTimeout(200);
      assert.ok(await noSidewaysScroll(page), `the page scrolls sideways at ${width} px`);
      await shot(page, `${label}-${scheme}-${width}.png`);
    }
  }
  await page.setViewportSize({ width: 1280, height: 900 });
}

/** Text against what is behind it: WCAG AA asks for 4.5 to 1. */
async function contrast(page) {
  for (const scheme of ["light", "dark"]) {
    await page.emulateMedia({ colorScheme: scheme });
    const poor = await page.evaluate(() => {
      const channel = (it) => (it <= 0.03928 ? it / 12.92 : ((it + 0.055) / 1.055) ** 2.4);
      const light = ([r, g, b]) => 0.2126 * channel(r / 255) + 0.7152 * channel(g / 255) + 0.0722 * channel(b / 255);
      const colour = (text) => text.match(/[\d.]+/g).map(Number);
      const behind = (it) => {
        for (; it; it = it.parentElement) {
          const found = colour(getComputedStyle(it).backgroundColor);
          if (found.length < 4 || found[3] > 0) return found;
        }
        return [255, 255, 255];
      };
      const texts = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
      const found = new Set();
      while (texts.nextNode()) {
        const it = texts.currentNode.parentElement;
        if (!texts.currentNode.textContent.trim() || !it.checkVisibility() || it.closest("noscript, svg, .hidden")) continue;
        const [a, b] = [light(colour(getComputedStyle(it).color)), light(behind(it))];
        const ratio = (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
        if (ratio < 4.5) found.add(`${it.tagName}.${it.className} ${ratio.toFixed(2)}`);
      }
      return [...found];
    });
    assert.deepEqual(poor, [], `poor contrast in the ${scheme} theme`);
  }
}

async function everything() {
  await weigh();
  await paints();
  const page = await open();
  await page.goto(base);
  await page.locator("#live.on").waitFor();
  await page.locator("#sources h3").waitFor();
  await page.locator("#node-table tbody tr").nth(2).waitFor();
  const { transfer, before } = await watchTransfer(page);
  await looks(page, "transfer");
  await page.emulateMedia({ colorScheme: "light" });
  await transfer;
  await page.locator("#no-flights").waitFor();
  assert.match(await text(page, "#ended"), new RegExp(name));
  await page.waitForFunction((before) => document.querySelector("#sources h3").textContent !== before, before);
  console.log(`savings: ${before} -> ${await text(page, "#sources h3")}`);
  await clickThrough(page);
  await looks(page, "site");
  await contrast(page);
  await walk(page);
  wrong.push(...(await page.evaluate(() => window.violations)).map((it) => `policy: ${it}`));
  assert.deepEqual(wrong, []);
}

try {
  await everything();
} catch (error) {
  console.error(error, wrong);
  process.exitCode = 1;
} finally {
  await browser.close();
}
