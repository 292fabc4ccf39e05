/**
 * The dashboard in a real browser: it loads, moves, can be used with the keyboard, on a phone and in the dark; axe finds
 * nothing serious, the console stays empty, and strings from packets stay strings.
 *
 * Chromium is Debian's. The router behind the page is an inline one whose clock and traffic the test drives, so no root is
 * needed. SLUICE_SCREENSHOT=FILE writes the picture that the README shows.
 */
import { accessSync, constants, mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { createRequire } from 'node:module';
import { tmpdir } from 'node:os';
import { delimiter, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { type Browser, type BrowserContextOptions, chromium, type Page } from 'playwright-core';
import { afterAll, afterEach, beforeAll, describe, expect, it } from 'vitest';
import { Configuration } from '../../../controlplane/api/configuration.ts';
import { ApiServer } from '../../../controlplane/api/server.ts';
import { applyConfig, compareConfig } from '../../../controlplane/apply/index.ts';
import { createRouter, type Router } from '../../../controlplane/router.ts';
import { ethernet, ipv4, tcp, udp } from '../../lib/build.ts';

const TOKEN = 'token-of-the-page-test';
const AXE = readFileSync(createRequire(import.meta.url).resolve('axe-core/axe.min.js'), 'utf8');
const MAC = (n: number): string => `02:00:00:00:00:${n.toString(16).padStart(2, '0')}`;

const TEXT = JSON.stringify({
  ports: {
    lan: { kind: 'memory', zone: 'inside', mac: MAC(1), addresses: ['192.168.1.1/24', '2001:db8:1::1/64'] },
    lab: { kind: 'memory', zone: 'inside', mac: MAC(2), addresses: '192.168.2.1/24' },
    guest: { kind: 'memory', zone: 'guests', mac: MAC(3), addresses: '10.20.0.1/24' },
    wan: { kind: 'memory', zone: 'internet', mac: MAC(4), addresses: ['203.0.113.1/24', '2001:db8:ffff::1/64'] },
  },
  routes: [{ to: '0.0.0.0/0', via: '203.0.113.254' }],
  neighbors: [
    { port: 'wan', ip: '203.0.113.254', mac: MAC(254) },
    { port: 'lan', ip: '192.168.1.10', mac: MAC(10) },
    { port: 'lab', ip: '192.168.2.20', mac: MAC(20) },
    { port: 'guest', ip: '10.20.0.30', mac: MAC(30) },
  ],
  zones: {
    inside: { forward: 'accept', input: 'accept' },
    guests: { forward: 'accept', input: 'drop' },
    internet: { forward: 'drop', input: 'drop' },
  },
  nat: { masquerade: [{ out: 'wan' }] },
  conntrack: { max: 65536 },
});

/** Where Debian's chromium is; '' when it is not there, said loudly. */
function findChromium(): string {
  for (const folder of (process.env.PATH ?? '').split(delimiter)) {
    try {
      accessSync(join(folder, 'chromium'), constants.X_OK);
      return join(folder, 'chromium');
    } catch {}
  }
  console.warn('PAGE TESTS SKIPPED: expected the program chromium, got none; apt-get install chromium');
  return '';
}

/** Frames through the router at every beat of its clock: a download, a busy lab, guests that are refused. */
class Traffic {
  readonly router: Router = createRouter(JSON.parse(TEXT) as object, { seed: 3 });
  private n = 0;
  private readonly timer: NodeJS.Timeout;

  constructor() {
    this.router.advance(60_000);
    this.timer = setInterval(() => this.beat(), 50);
  }

  stop(): void {
    clearInterval(this.timer);
  }

  private beat(): void {
    const { router } = this;
    router.advance(50);
    this.n++;
    const wave = 12 + Math.round(8 * Math.sin(this.n / 80));
    for (let k = 0; k < wave; k++) {
      const sport = 40_000 + (k % 8);
      router.inject(
        'lan',
        ethernet(
          { src: MAC(10), dst: MAC(1) },
          ipv4({ src: '192.168.1.10', dst: '198.51.100.7' }, udp({ sport, dport: 443 }, 'x'.repeat(300))),
        ),
      );
      for (const [frame] of [router.take('wan')]) if (frame !== undefined) this.answer(frame);
    }
    const dport = 1000 + (this.n % 40);
    router.inject(
      'lab',
      ethernet(
        { src: MAC(20), dst: MAC(2) },
        ipv4({ src: '192.168.2.20', dst: '198.51.100.9' }, tcp({ sport: 5000, dport, seq: 1, flags: 'S' })),
      ),
    );
    for (let k = 0; k < this.n % 5; k++)
      router.inject(
        'wan',
        ethernet(
          { src: MAC(254), dst: MAC(4) },
          ipv4({ src: '198.51.100.66', dst: '203.0.113.1' }, tcp({ sport: 6, dport: 23, seq: 1, flags: 'S' })),
        ),
      );
    if (this.n % 3 === 0)
      router.inject(
        'guest',
        ethernet(
          { src: MAC(30), dst: MAC(3) },
          ipv4({ src: '10.20.0.30', dst: '198.51.100.9', ttl: 1 }, udp({ sport: 7, dport: 7 }, 'late')),
        ),
      );
    for (const port of ['lan', 'lab', 'guest', 'wan']) router.take(port);
  }

  /** The far end's answer to a datagram that left: as many bytes again, and more. */
  private answer(frame: Uint8Array): void {
    const sport = (frame[34] << 8) | frame[35];
    const back = udp({ sport: 443, dport: sport }, 'y'.repeat(1200));
    this.router.inject(
      'wan',
      ethernet({ src: MAC(254), dst: MAC(4) }, ipv4({ src: '198.51.100.7', dst: '203.0.113.1' }, back)),
    );
  }
}

const program = findChromium();

describe.runIf(program !== '')(
  'the dashboard',
  { timeout: process.env.SLUICE_SCREENSHOT === undefined ? 120_000 : 200_000, retry: 1 },
  () => {
    let browser: Browser;
    let folder = '';
    let server: ApiServer;
    let base = '';
    let traffic: Traffic;
    let complaints: string[] = [];
    const open: Page[] = [];

    beforeAll(async () => {
      folder = mkdtempSync(join(tmpdir(), 'sluice-page-'));
      server = await ApiServer.listen(join(folder, 'control.sock'));
      const where = { line: 0, column: 0, path: 'api' };
      const listen = { family: 4 as const, address: '127.0.0.1', port: 0, loopback: true };
      base = await server.listenTcp({ listen, token: TOKEN, hosts: [], where });
      traffic = new Traffic();
      const { control, config } = traffic.router;
      const target = {
        compare: (next: typeof config) => compareConfig(control, next),
        apply: (next: typeof config) => applyConfig(control, next),
      };
      server.serve(traffic.router, new Configuration(TEXT, config, target));
      browser = await chromium.launch({
        executablePath: program,
        args: ['--no-sandbox', '--disable-gpu', '--disable-dev-shm-usage'],
      });
    });

    afterEach(async () => {
      await Promise.all(open.splice(0).map((page) => page.context().close()));
      expect(complaints).toEqual([]);
    });

    afterAll(async () => {
      await browser?.close();
      traffic?.stop();
      await server?.close();
      rmSync(folder, { recursive: true, force: true });
    });

    /** A page with nothing to complain about, up to the first live numbers. */
    async function visit(view = '', options: BrowserContextOptions = {}): Promise<Page> {
      complaints = [];
      const context = await browser.newContext({ viewport: { width: 1280, height: 860 }, ...options });
      const page = await context.newPage();
      open.push(page);
      page.on('console', (message) => {
        if (message.type() === 'error' || message.type() === 'warning') complaints.push(message.text());
      });
      page.on('pageerror', (error) => complaints.push(String(error)));
      page.on('request', (request) => {
        if (!request.url().startsWith(base) && !request.url().startsWith('data:'))
          complaints.push(`foreign: ${request.url()}`);
      });
      await page.goto(`${base}#token=${TOKEN}`);
      await page.waitForSelector('.state.live');
      if (view !== '') await page.click(`nav a[href="#${view}"]`);
      return page;
    }

    /** Faults of accessibility that axe calls serious or critical. */
    async function faults(page: Page): Promise<string[]> {
      // The page's policy forbids inline scripts, so axe comes in by the debugger, which it does not bind.
      await page.evaluate(AXE);
      const found = (await page.evaluate('axe.run()')) as {
        violations: { id: string; impact: string; nodes: { html: string }[] }[];
      };
      return found.violations
        .filter(({ impact }) => impact === 'serious' || impact === 'critical')
        .map(({ id, nodes }) => `${id}: ${nodes.map(({ html }) => html.slice(0, 100)).join(' ')}`);
    }

    /** Waits until an expression is true in the page. */
    async function until(page: Page, expression: string): Promise<void> {
      // A policy without unsafe-eval forbids waitForFunction's own way.
      await expect.poll(() => page.evaluate(expression), { timeout: 30_000 }).toBe(true);
    }

    it('shows ports, zones and live numbers that move', async () => {
      const page = await visit();
      const loaded = (await page.evaluate(
        'performance.getEntriesByType("navigation")[0].domContentLoadedEventEnd',
      )) as number;
      expect(loaded).toBeGreaterThan(0);
      for (const text of ['inside', 'guests', 'internet', 'lan', 'wan', '203.0.113.1/24'])
        expect(await page.locator('#topology').textContent()).toContain(text);
      const value = (): Promise<string | null> =>
        page.locator('#ports tbody tr').first().locator('td').nth(4).textContent();
      const first = await value();
      await until(
        page,
        `document.querySelector('#ports tbody tr td:nth-child(5)').textContent !== ${JSON.stringify(first)}`,
      );
      await page.waitForSelector('#plot-traffic canvas');
      await page.waitForSelector('#plot-drops canvas');
      expect(await page.locator('#drops').textContent()).toContain('A rule or the zone’s input verdict dropped it.');
      expect(await page.locator('#nat').textContent()).toMatch(/203\.0\.113\.1 udp ?\d+ of 64,512/);
      expect(await faults(page)).toEqual([]);
      if (process.env.SLUICE_SCREENSHOT === undefined) return;
      await page.setViewportSize({ width: 1240, height: 900 });
      await page.waitForTimeout(70_000);
      await page.screenshot({ path: process.env.SLUICE_SCREENSHOT });
    });

    it('shows the rates as they were when the overview comes into view again', async () => {
      const page = await visit();
      const traffic = "document.querySelector('#tiles .value').textContent";
      await until(page, `${traffic} !== '0'`);
      const again = await page.evaluate(`(async () => {
        for (const view of ['#connections', '#overview']) {
          const changed = new Promise((resolve) => addEventListener('hashchange', resolve, { once: true }));
          location.hash = view;
          await changed;
        }
        return ${traffic};
      })()`);
      expect(again).not.toBe('0');
    });

    it('finds connections, with the keyboard alone', async () => {
      const page = await visit();
      await page.keyboard.press('/');
      await page.keyboard.type('udp dport=443 sport=40003');
      await until(page, "document.querySelectorAll('#table tbody tr').length === 1");
      const row = await page.locator('#table tbody tr').textContent();
      expect(row).toContain('192.168.1.10:40003');
      expect(row).toContain('203.0.113.1');
      expect(await page.locator('#found').textContent()).toMatch(/^1 of \d+$/);
      expect(await faults(page)).toEqual([]);
      await page.fill('#search', 'nobody has this');
      await page.waitForSelector('#none:not([hidden])');
    });

    it('explains a connection at a click, and a packet that is dropped', async () => {
      const page = await visit('connections');
      await page.fill('#search', 'udp sport=40003');
      await until(page, "document.querySelectorAll('#table tbody tr').length === 1");
      await page.click('#table tbody button');
      await page.waitForSelector('#explained .stages li');
      expect(await page.locator('#explained .verdict').textContent()).toBe('forwarded');
      expect(await page.locator('#explained').textContent()).toContain('Leaves by wan');
      await page.selectOption('#explain-port', 'wan');
      await page.fill('#explain-input', 'tcp 198.51.100.66:6 > 203.0.113.1:23');
      await page.keyboard.press('Enter');
      await page.waitForSelector('.drop-verdict');
      expect(await page.locator('#explained .verdict').textContent()).toBe('dropped: INPUT_DROP at input');
      expect(await page.locator('#explained .stages li.end h3').textContent()).toBe('input');
      expect(await faults(page)).toEqual([]);
      // What is no question is answered with what was expected.
      const before = complaints.length;
      await page.fill('#explain-input', 'hello');
      await page.keyboard.press('Enter');
      await page.waitForSelector('#explained [role=alert]');
      expect(await page.locator('#explained').textContent()).toContain('flow: expected PROTO SOURCE');
      // Chromium itself writes each answer of 4xx to the console.
      expect(complaints.splice(before)).toEqual([expect.stringContaining('400 (Bad Request)')]);
    });

    it('replays a capture that is dropped onto it', async () => {
      const page = await visit('replay');
      await page.setInputFiles('#capture', fileURLToPath(new URL('../../../examples/demo.pcap', import.meta.url)));
      await page.fill('#inside', '192.168.1.0/24');
      await page.click('#replay-form button');
      await page.waitForSelector('#replayed .tile', { timeout: 60_000 });
      const report = await page.locator('#replayed').textContent();
      expect(report).toMatch(/received[1-9]\d*57 frames of the capture were not played/);
      expect(report).toMatch(/held0/);
      expect(await faults(page)).toEqual([]);
    });

    it('fits a phone, in the dark', async () => {
      const page = await visit('', {
        viewport: { width: 375, height: 740 },
        colorScheme: 'dark',
        isMobile: true,
        hasTouch: true,
      });
      for (const view of ['overview', 'connections', 'explain', 'replay']) {
        await page.click(`nav a[href="#${view}"]`);
        const wider = await page.evaluate(
          'document.documentElement.scrollWidth - document.documentElement.clientWidth',
        );
        expect([view, wider]).toEqual([view, 0]);
        expect([view, await faults(page)]).toEqual([view, []]);
      }
      expect(await page.evaluate('getComputedStyle(document.body).backgroundColor')).toBe('rgb(15, 21, 24)');
      await page.click('#theme');
      expect(await page.evaluate('getComputedStyle(document.body).backgroundColor')).toBe('rgb(245, 247, 247)');
    });

    it('keeps strings strings, whoever chose them', async () => {
      const hostile = '<img src=x onerror=alert(1)>';
      const connection = {
        id: 1,
        protocol: hostile,
        orig: { src: hostile, dst: '"><script>alert(1)</script>', sport: 1, dport: 2 },
        reply: { src: 'a', dst: hostile },
        status: [],
        state: hostile,
        not_offloaded: '" onmouseover="alert(1)',
        in: hostile,
      };
      const page = await visit();
      await page.route('**/v1/connections*', (route) =>
        route.fulfill({ json: { total: 1, matched: 1, connections: [connection] } }),
      );
      await page.click('nav a[href="#connections"]');
      await until(page, "document.querySelectorAll('#table tbody tr').length === 1");
      expect(await page.locator('#table tbody').textContent()).toContain(hostile);
      expect(await page.locator('#table img, #table script').count()).toBe(0);
      const titles = await page.locator('#table [onmouseover]').count();
      expect(titles).toBe(0);
    });

    it('asks for the token, and again when it is wrong', async () => {
      complaints = [];
      const context = await browser.newContext();
      const page = await context.newPage();
      open.push(page);
      await page.goto(base);
      await page.waitForSelector('dialog[open]');
      expect(await faults(page)).toEqual([]);
      for (let n = 0; n < 2; n++) await page.keyboard.press('Escape');
      await page.waitForSelector('dialog[open]');
      await page.fill('#token', 'not-the-right-token');
      await page.keyboard.press('Enter');
      await until(page, "document.querySelector('#login-error').textContent !== ''");
      expect(await page.locator('#login-error').textContent()).toContain(
        'authorization: expected the token of api.token',
      );
      await page.fill('#token', TOKEN);
      await page.keyboard.press('Enter');
      await page.waitForSelector('.state.live');
      expect(await page.locator('dialog[open]').count()).toBe(0);
      // The token is not in the address, and so not in the history.
      const other = await visit();
      expect(other.url()).not.toContain(TOKEN);
    });
  },
);
