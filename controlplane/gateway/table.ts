/**
 * The gateway's table: what happens in which state, for each family of the WAN. All of the provisioning is here; gateway.ts
 * turns what protocols tell into these inputs, and these deeds into actions.
 *
 * IPv6 is the eRouter's procedure: link-local address and its detection, router advertisement, DHCPv6, then the LAN. DHCPv6
 * is asked whatever the M and O flags say (RFC 7084 WPD-4); an answer without an address gives the router ::1 of its
 * prefix instead. The LAN has its unique local prefix from the start, so only the delegated one comes and goes here.
 */
export type State =
  /** The link is down. */
  | 'down'
  /** IPv6: the link-local address is being tested. */
  | 'detecting'
  /** IPv6: no router has advertised itself. */
  | 'soliciting'
  /** IPv6: a router is there, DHCPv6 asks. IPv4: DHCP asks. */
  | 'requesting'
  /** IPv6: a prefix is there, the LAN's addresses of it are being tested. */
  | 'numbering'
  | 'online'
  /** IPv6: the MAC is on the link twice; only another link helps. */
  | 'disabled';

export type Input =
  | 'link up'
  | 'link down'
  | 'link-local ready'
  | 'duplicate'
  | 'router'
  | 'router lost'
  | 'leased'
  | 'lease lost'
  | 'lan ready';

export type Deed =
  /** Let the DHCPv6 client begin. */
  | 'start dhcp6'
  /** Give the LAN ports subnets of the prefixes in the lease, take back those of prefixes that are not in it. */
  | 'number lan'
  /** Take back every subnet of a delegated prefix: hosts hear of it at once (RFC 9096 §3.5). */
  | 'withdraw lan';

export interface Row {
  next: State;
  deeds: readonly Deed[];
}

const to = (next: State, ...deeds: Deed[]): Row => ({ next, deeds });

/** Inputs that a row does not name change nothing. */
export const IPV6: Readonly<Record<State, Partial<Record<Input, Row>>>> = {
  down: {
    'link up': to('detecting'),
    // A lease ends while the link is away, too.
    'lease lost': to('down', 'withdraw lan'),
  },
  detecting: {
    'link-local ready': to('soliciting'),
    duplicate: to('disabled'),
    'lease lost': to('detecting', 'withdraw lan'),
    'link down': to('down'),
  },
  soliciting: {
    router: to('requesting', 'start dhcp6'),
    // A lease that was kept over a short absence of the router.
    leased: to('numbering', 'number lan'),
    'lease lost': to('soliciting', 'withdraw lan'),
    'link down': to('down'),
  },
  requesting: {
    leased: to('numbering', 'number lan'),
    'lease lost': to('requesting', 'withdraw lan'),
    'router lost': to('soliciting'),
    'link down': to('down'),
  },
  numbering: {
    'lan ready': to('online'),
    leased: to('numbering', 'number lan'),
    'lease lost': to('requesting', 'withdraw lan'),
    'router lost': to('soliciting'),
    'link down': to('down'),
  },
  online: {
    // Renewed, or another prefix: then hosts hear of both, and the new addresses are tested.
    leased: to('online', 'number lan'),
    'lease lost': to('requesting', 'withdraw lan'),
    'router lost': to('soliciting'),
    // The lease outlives the link: it is confirmed when the link comes back (RFC 8415 §18.2.12).
    'link down': to('down'),
  },
  disabled: {
    'lease lost': to('disabled', 'withdraw lan'),
    'link down': to('down'),
  },
};

export const IPV4: Readonly<Record<State, Partial<Record<Input, Row>>>> = {
  down: {
    'link up': to('requesting'),
  },
  requesting: {
    leased: to('online'),
    'link down': to('down'),
  },
  online: {
    leased: to('online'),
    'lease lost': to('requesting'),
    'link down': to('down'),
  },
  detecting: {},
  soliciting: {},
  numbering: {},
  disabled: {},
};
