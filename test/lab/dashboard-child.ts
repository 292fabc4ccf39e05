/**
 * A visitor of a live router's dashboard, in the router's namespace (dashboard-live.test.ts).
 *
 *   node dashboard-child.js CHROMIUM URL TOKEN
 *
 * Prints "loaded" with the milliseconds until the page was there and until its first live numbers; then reads the port
 * table twice a second and prints each reading as a line of JSON; at SIGUSR2 it explains the first connection by a click,
 * prints what the page says and ends.
 */
import { chromium } from 'playwright-core';

const [program, url, token] = process.argv.slice(2);
const say = (kind: string, data: unknown): void => {
  process.stdout.write(`${kind} ${JSON.stringify(data)}\n`);
};

const browser = await chromium.launch({
  executablePath: program,
  args: ['--no-sandbox', '--disable-gpu', '--disable-dev-shm-usage'],
});
try {
  const page = await browser.newPage();
  const complaints: string[] = [];
  page.on('console', (message) => {
    if (message.type() === 'error' || message.type() === 'warning') complaints.push(message.text());
  });
  page.on('pageerror', (error) => complaints.push(String(error)));
  // Once to have the browser itself warm: what is measured is the page.
  await page.goto('about:blank');
  const begin = performance.now();
  await page.goto(`${url}#token=${token}`);
  const loaded = performance.now() - begin;
  await page.waitForSelector('.state.live');
  say('loaded', { loaded: Math.round(loaded), live: Math.round(performance.now() - begin) });
  const asked = new Promise<void>((resolve) => {
    process.once('SIGUSR2', () => resolve());
  });
  let done = false;
  void asked.then(() => {
    done = true;
  });
  while (!done) {
    say('reading', await page.locator('#ports tbody tr').allTextContents());
    await Promise.race([asked, page.waitForTimeout(500)]);
  }
  await page.click('nav a[href="#connections"]');
  await page.fill('#search', 'tcp dport=5201');
  const rows = page.locator('#table tbody tr', { hasText: ':5201' });
  await rows.first().locator('button').first().click();
  await page.waitForSelector('#explained .stages li');
  say('explained', {
    text: await page.locator('#explained').textContent(),
    complaints,
  });
} finally {
  await browser.close();
}
