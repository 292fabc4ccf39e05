/**
 * Keep: the demo's lab stays up for somebody who wants to look around, until Enter or a signal. Says how to get in and what
 * to try, breaking things on purpose included, and passes on what the router says meanwhile.
 */
import { CLIENT6, ROUTER_WAN4, SERVER4, SERVER6, type World } from './world.ts';

/** How often the router's log is looked at, milliseconds. */
const LOOK = 200;

function advice({ client, server, process: child, socket }: World): string {
  const inside = (ns: string, command: string) => `  ip netns exec ${ns} ${command}`;
  const show = (what: string) => `  npx sluice show ${what} --socket ${socket}`;
  return [
    'The lab stays up. From another terminal, as root, in this folder:',
    '',
    'Get in:',
    inside(client, 'bash'),
    inside(server, 'bash'),
    '',
    'Try:',
    inside(client, `ping ${SERVER4}`),
    inside(client, `curl http://${SERVER4}/who`),
    inside(client, `curl -g -o /dev/null http://[${SERVER6}]/1000000000`),
    inside(server, `curl http://${ROUTER_WAN4}:8080/who`),
    show('conntrack'),
    show('drops'),
    show('link'),
    '',
    'Break it on purpose, and look at drops, neigh, route and link:',
    `  ip -n ${server} link set sl-wan down    # show link and route say so; the server loses its routes with it`,
    inside(server, `curl --max-time 3 -g http://[${CLIENT6}]/who  # unsolicited: FILTER_DROP`),
    `  ip -n ${server} link delete sl-wan      # the port is down until the router has made it anew, in its own namespace`,
    `  kill -TERM ${child.pid}    # the router ends and takes its devices with it`,
    '',
    'Enter or Ctrl-C takes everything down.',
  ].join('\n');
}

/** Resolves at Enter (where there is a terminal or a pipe to read one from), or once `isEnded` says so. */
export async function keep(world: World, say: (text: string) => void, isEnded: () => boolean): Promise<void> {
  say(advice(world));
  let told = world.process.stderr().length;
  let entered = false;
  // Without standard input (its end comes at once) only a signal ends the stay.
  const onData = (): void => {
    entered = true;
  };
  process.stdin.on('data', onData);
  process.stdin.on('error', () => {});
  let running = true;
  while (!entered && !isEnded()) {
    await new Promise((resolve) => setTimeout(resolve, LOOK));
    const log = world.process.stderr();
    if (log.length > told) say(`router: ${log.slice(told).trimEnd().replaceAll('\n', '\nrouter: ')}`);
    told = log.length;
    if (running && !world.process.running() && !isEnded()) say('router: (its process has ended)');
    running = world.process.running();
  }
  process.stdin.off('data', onData);
  process.stdin.pause();
  process.stdin.unref?.();
}
