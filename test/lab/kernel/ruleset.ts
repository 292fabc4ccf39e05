/**
 * The kernel as a home gateway: an nftables ruleset that says what a Sluice configuration says, so that both routers
 * do the same job and their frames can be compared. Order and meaning follow docs of the configuration: established
 * and related pass, invalid is dropped, what NAT admitted passes, then rules, then the zone's own verdict.
 *
 * What it does not do: the built-in rules for IPv6, NAT profiles other than `linux` (netfilter has no cone NAT), helpers that the kernel lacks
 * (rtsp), VLANs, bridges. `ruleset` throws for those, so that no comparison passes for the wrong reason.
 */

export type Verdict = 'accept' | 'drop' | 'reject';

/** The part of a Sluice configuration that the kernel can mirror; same keys and meaning as the YAML file. */
export interface RouterConfig {
  ports: Record<string, { kind?: string; zone: string; mac: string; addresses: string[]; mtu?: number }>;
  routes?: { to: string; via: string }[];
  neighbors?: { port: string; ip: string; mac: string }[];
  zones: Record<string, { forward: Verdict; input: Verdict }>;
  offload?: { mode: 'on' | 'off' | 'verify' };
  rules?: {
    from?: string;
    to?: string;
    family?: 'ipv4' | 'ipv6';
    proto?: string;
    src?: string;
    dst?: string;
    port?: number | string;
    state?: string;
    verdict: Verdict;
  }[];
  firewall?: { ipv6: 'simple-security' | 'zones' | 'transparent'; icmpv6: boolean };
  nat?: {
    profile?: string;
    masquerade?: { out: string; from?: string; to?: string; ports?: string }[];
    forward?: { in: string; proto: string; port: number | string; to: string }[];
    dmz?: { in: string; to: string };
  };
  alg?: Record<string, { ports?: number[] }>;
  conntrack?: { max?: number; 'tcp-liberal'?: boolean; timeouts?: Record<string, number> };
}

/** What the kernel calls the helpers: name, protocols and usual ports. */
const HELPERS: Record<string, { type: string; protos: string[]; ports: number[] }> = {
  ftp: { type: 'ftp', protos: ['tcp'], ports: [21] },
  pptp: { type: 'pptp', protos: ['tcp'], ports: [1723] },
  tftp: { type: 'tftp', protos: ['udp'], ports: [69] },
  sip: { type: 'sip', protos: ['udp', 'tcp'], ports: [5060] },
  irc: { type: 'irc', protos: ['tcp'], ports: [6667] },
  h323: { type: 'Q.931', protos: ['tcp'], ports: [1720] },
  amanda: { type: 'amanda', protos: ['udp'], ports: [10080] },
};

/** Source of the fence frames (differential/kernel.ts); untracked, so that they leave no trace in conntrack. */
export const FENCE_SOURCE = '198.18.255.254';
/** Protocol 253 is for experiments (RFC 3692). */
export const FENCE_PROTO = 253;

const six = (address: string) => address.includes(':');
const family = (address: string) => (six(address) ? 'ip6' : 'ip');
const bare = (address: string) => address.replace(/\/\d+$/, '');

function refuse(what: string, got: string): never {
  throw new Error(`kernel ruleset: expected ${what}, got ${got}; compare it in another way`);
}

/** The ports' names of a zone, as an nft set. */
function portsOf(config: RouterConfig, zone: string): string {
  const names = Object.keys(config.ports).filter((name) => config.ports[name].zone === zone);
  if (names.length === 0) refuse('a zone with ports', `"${zone}"`);
  return `{ ${names.map((n) => `"${n}"`).join(', ')} }`;
}

function verdict(match: string, what: Verdict): string[] {
  if (what !== 'reject') return [`${match} ${what}`.trim()];
  return [
    `${match} meta l4proto tcp reject with tcp reset`.trim(),
    `${match} reject with icmpx port-unreachable`.trim(),
  ];
}

function helperLines(config: RouterConfig): { objects: string[]; rules: string[] } {
  const objects: string[] = [];
  const rules: string[] = [];
  for (const [name, options] of Object.entries(config.alg ?? {})) {
    const helper = HELPERS[name];
    if (!helper) refuse(`a helper of the kernel (${Object.keys(HELPERS).join(', ')})`, `"${name}"`);
    for (const proto of helper.protos) {
      objects.push(`ct helper ${name}-${proto} { type "${helper.type}" protocol ${proto}; }`);
      rules.push(`${proto} dport { ${(options.ports ?? helper.ports).join(', ')} } ct helper set "${name}-${proto}"`);
    }
  }
  return { objects, rules };
}

function natLines(config: RouterConfig): { before: string[]; after: string[] } {
  const nat = config.nat ?? {};
  if (nat.profile !== undefined && nat.profile !== 'linux') refuse('the NAT profile linux', `"${nat.profile}"`);
  const before: string[] = [];
  const after: string[] = [];
  const own = (port: string) =>
    `{ ${config.ports[port].addresses
      .filter((a) => !six(a))
      .map(bare)
      .join(', ')} }`;
  for (const f of nat.forward ?? [])
    before.push(`iifname "${f.in}" ip daddr ${own(f.in)} ${f.proto} dport ${f.port} dnat ip to ${f.to}`);
  if (nat.dmz) before.push(`iifname "${nat.dmz.in}" ip daddr ${own(nat.dmz.in)} dnat ip to ${nat.dmz.to}`);
  for (const m of nat.masquerade ?? []) {
    const match = `oifname "${m.out}" ${m.from ? `ip saddr ${m.from}` : 'meta nfproto ipv4'}`;
    const range = m.ports ? `:${m.ports}` : '';
    if (!m.to && m.ports) {
      // The grammar wants a transport protocol before a port range; the rest is translated without ports.
      for (const proto of ['tcp', 'udp']) after.push(`${match} meta l4proto ${proto} masquerade to ${range}`);
    }
    after.push(m.to ? `${match} snat ip to ${m.to}${range}` : `${match} masquerade`);
  }
  return { before, after };
}

function ruleMatch(config: RouterConfig, r: NonNullable<RouterConfig['rules']>[number]): string {
  const parts: string[] = [];
  if (r.from) parts.push(`iifname ${portsOf(config, r.from)}`);
  if (r.to) parts.push(`oifname ${portsOf(config, r.to)}`);
  if (r.family) parts.push(`meta nfproto ${r.family}`);
  if (r.src) parts.push(`${family(r.src)} saddr ${r.src}`);
  if (r.dst) parts.push(`${family(r.dst)} daddr ${r.dst}`);
  if (r.port !== undefined) parts.push(`${r.proto ?? refuse('a protocol beside a port', 'none')} dport ${r.port}`);
  else if (r.proto) parts.push(`meta l4proto ${r.proto}`);
  if (r.state) parts.push(`ct state ${r.state}`);
  return parts.join(' ');
}

/** The whole ruleset as text for `nft -f`; it replaces an earlier one in one transaction. */
export function ruleset(config: RouterConfig): string {
  if (config.firewall !== undefined && (config.firewall.ipv6 !== 'zones' || config.firewall.icmpv6))
    refuse('firewall { ipv6: zones, icmpv6: false }', JSON.stringify(config.firewall));
  const helpers = helperLines(config);
  const nat = natLines(config);
  const forward = [
    `ip saddr ${FENCE_SOURCE} ip protocol ${FENCE_PROTO} accept`,
    'ct state established,related accept',
    'ct state invalid drop',
    'ct status dnat accept',
  ];
  const input = [
    'icmpv6 type { nd-router-solicit, nd-router-advert, nd-neighbor-solicit, nd-neighbor-advert } accept',
    'ct state established,related accept',
    'ct state invalid drop',
  ];
  for (const r of config.rules ?? []) forward.push(...verdict(ruleMatch(config, r), r.verdict));
  for (const [zone, policy] of Object.entries(config.zones)) {
    forward.push(...verdict(`iifname ${portsOf(config, zone)}`, policy.forward));
    input.push(...verdict(`iifname ${portsOf(config, zone)}`, policy.input));
  }
  const chain = (name: string, hook: string, lines: readonly string[]) =>
    `  chain ${name} {\n    type ${hook};\n${lines.map((l) => `    ${l}\n`).join('')}  }\n`;
  return `table inet sluice
delete table inet sluice
table inet sluice {
${helpers.objects.map((o) => `  ${o}\n`).join('')}${[
  chain('fence', 'filter hook prerouting priority raw', [
    `ip saddr ${FENCE_SOURCE} ip protocol ${FENCE_PROTO} notrack`,
  ]),
  chain('helpers', 'filter hook prerouting priority filter', helpers.rules),
  chain('before', 'nat hook prerouting priority dstnat', nat.before),
  chain('after', 'nat hook postrouting priority srcnat', nat.after),
  chain('input', 'filter hook input priority filter; policy drop', ['iifname "lo" accept', ...input]),
  chain('forward', 'filter hook forward priority filter; policy drop', forward),
  // Nothing unasked: listener reports and redirects would be noise in every comparison.
  chain('output', 'filter hook output priority filter', [
    'icmpv6 type { mld-listener-query, mld-listener-report, mld-listener-done, mld2-listener-report, nd-redirect } drop',
  ]),
].join('')}}
`;
}
