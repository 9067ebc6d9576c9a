// A headless Chromium for tests: one JSON command a line on stdin, one JSON answer a line on stdout.
// Usage: node browser.mjs PATH-OF-CHROMIUM
import { createInterface } from "node:readline";
import { chromium } from "playwright-core";

const browser = await chromium.launch({ executablePath: process.argv[2] });
let page = null;
let seen = null; // what the open page asked for and complained of

const commands = {
  async open({ url, width = 1280, height = 900, scheme = "light", calm = false }) {
    await page?.context().close();
    const context = await browser.newContext({
      viewport: { width, height }, colorScheme: scheme, reducedMotion: calm ? "reduce" : "no-preference",
    });
    page = await context.newPage();
    seen = { requests: [], errors: [], dialogs: [] };
    page.on("request", (request) => seen.requests.push(`${request.method()} ${request.url()}`));
    page.on("pageerror", (error) => seen.errors.push(String(error)));
    page.on("console", (message) => message.type() === "error" && seen.errors.push(message.text()));
    page.on("dialog", (dialog) => { seen.dialogs.push(dialog.message()); dialog.dismiss(); });
    await page.goto(url);
  },
  seen: async () => seen,
  evaluate: ({ code }) => page.evaluate(code),
  // Not waitForFunction: that evaluates inside the page, where a Content-Security-Policy forbids it.
  async wait({ code, timeout_ms }) {
    const end = Date.now() + timeout_ms;
    while (!(await page.evaluate(code))) {
      if (Date.now() > end) throw new Error(`not within ${timeout_ms} ms`);
      await new Promise((go) => setTimeout(go, 50));
    }
  },
  click: ({ at }) => page.click(at, { timeout: 5000 }),
  press: ({ key }) => page.keyboard.press(key),
  type: ({ text }) => page.keyboard.type(text),
  screenshot: ({ path, whole = false }) => page.screenshot({ path, fullPage: whole }).then(() => null),
  text: ({ at }) => page.locator(at).first().evaluate((node) => node.innerText ?? node.textContent, null, { timeout: 5000 }),
};

for await (const line of createInterface({ input: process.stdin })) {
  const { command, ...options } = JSON.parse(line);
  let answer;
  try {
    answer = { result: (await commands[command](options)) ?? null };
  } catch (error) {
    answer = { failed: String(error.stack ?? error) };
  }
  process.stdout.write(`${JSON.stringify(answer)}\n`);
}
await browser.close();
