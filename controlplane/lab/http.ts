/**
 * A web server and downloads inside lab namespaces: known bytes of any length, over IPv4 and IPv6, whose SHA-256 both
 * sides can compute. What the demo and the lab tests move through the router.
 *
 * GET /N answers N bytes; GET /who answers the client's address and port as the server sees them (what NAT made of
 * it). The server function below is turned into text and run by `node -e`: it must not refer to anything outside of
 * itself, and so it works from the sources as well as from the built package.
 */
import { createHash } from 'node:crypto';
import { type Lab, LabError, type LabProcess, waitFor } from './namespace.ts';

/** The body: a fixed 64 KiB pattern of xorshift32 words, repeated. */
function pattern(seed: number): Uint8Array {
  const words = new Uint32Array(16384);
  let x = seed | 1;
  for (let n = 0; n < words.length; n++) {
    x ^= x << 13;
    x ^= x >>> 17;
    x ^= x << 5;
    words[n] = x;
  }
  return new Uint8Array(words.buffer);
}

/** Runs in the child process. `port` on all addresses of both families; prints `ready` when it listens. */
function serve(port: number, body: Uint8Array): void {
  const http = process.getBuiltinModule('node:http');
  const server = http.createServer((request, response) => {
    const path = (request.url ?? '/').slice(1);
    if (path === 'who') {
      const socket = request.socket;
      response.end(`${(socket.remoteAddress ?? '').replace('::ffff:', '')} ${socket.remotePort}\n`);
      return;
    }
    let left = Number(path);
    if (!Number.isSafeInteger(left) || left < 0) {
      response.writeHead(404).end();
      return;
    }
    response.writeHead(200, { 'content-type': 'application/octet-stream', 'content-length': left });
    const pump = () => {
      while (left > 0) {
        const part = left < body.length ? body.subarray(0, left) : body;
        left -= part.length;
        if (!response.write(part)) {
          response.once('drain', pump);
          return;
        }
      }
      response.end();
    };
    pump();
  });
  server.listen(port, '::', () => process.stdout.write('ready\n'));
}

/** SHA-256, as hex, of the `length` bytes that GET /length answers. */
export function expectedDigest(length: number, seed = 1): string {
  const body = pattern(seed);
  const hash = createHash('sha256');
  for (let left = length; left > 0; left -= body.length)
    hash.update(left < body.length ? body.subarray(0, left) : body);
  return hash.digest('hex');
}

/** Starts the server in a namespace and waits until it is ready. */
export async function startHttpServer(lab: Lab, ns: string, port: number, seed = 1): Promise<LabProcess> {
  const source = `(${serve.toString()})(${port}, (${pattern.toString()})(${seed}))`;
  const server = lab.spawn(ns, process.execPath, ['-e', source]);
  await waitFor(`the web server on port ${port}`, () => server.stdout().includes('ready') || !server.running(), {
    detail: () => server.stderr(),
  });
  if (!server.running()) throw new LabError('lab', `a web server on port ${port}`, 'its end', server.stderr());
  return server;
}

export interface Download {
  /** True when every byte is what it should be. */
  intact: boolean;
  bytes: number;
  seconds: number;
  digest: string;
}

/**
 * Downloads `length` bytes with curl in a namespace. `host`: an address, IPv6 without brackets. Rejects with LabError
 * when curl fails.
 */
export async function download(
  lab: Lab,
  ns: string,
  host: string,
  port: number,
  length: number,
  options: { seed?: number; timeout?: number } = {},
): Promise<Download> {
  const timeout = options.timeout ?? 60_000;
  const url = `http://${host.includes(':') ? `[${host}]` : host}:${port}/${length}`;
  // curl's own words go to the standard error, so that the body can go down the pipe.
  const script = `curl -sS -g --max-time ${Math.ceil(timeout / 1000)} -w '%{stderr}%{exitcode} %{size_download} %{time_total}\\n' "$0" | sha256sum`;
  const done = await lab.run(ns, 'sh', ['-c', script, url], { timeout: timeout + 1000 });
  const digest = done.stdout.slice(0, 64);
  const [failed, bytes, seconds] = (done.stderr.trim().split('\n').pop() ?? '').split(' ').map(Number);
  // The shell returns what sha256sum returned; curl's own exit code is its last word.
  if (failed !== 0) throw new LabError('lab', `${url} to answer`, done.stderr.trim().replaceAll('\n', ' / '), '');
  return { intact: bytes === length && digest === expectedDigest(length, options.seed), bytes, seconds, digest };
}

/** The client's address and port as the server in the lab sees them. */
export async function askWho(
  lab: Lab,
  ns: string,
  host: string,
  port: number,
): Promise<{ address: string; port: number }> {
  const url = `http://${host.includes(':') ? `[${host}]` : host}:${port}/who`;
  const done = await lab.run(ns, 'curl', ['-sS', '-g', '--max-time', '20', url]);
  const [address, source] = done.stdout.trim().split(' ');
  return { address, port: Number(source) };
}
