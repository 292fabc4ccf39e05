/**
 * A telephone that registers every few minutes over UDP must be reachable all the while: its connection lives an hour after
 * each message, not UDP's thirty seconds (netfilter's sip_timeout).
 */
import { expect, it } from 'vitest';
import { ipv4, udp } from '../lib/build.ts';
import * as H from '../lib/home.ts';
import { at, sipReply, sipRequest } from './messages.ts';

it('a connection of SIP ended after thirty seconds of silence; calls in between were refused', () => {
  const home = new H.Home({ alg: { sip: {} } });
  const own = at(H.HOST, 5060);
  const register = sipRequest('REGISTER', { via: own, contact: own, headers: ['Expires: 60'] });
  home.lan(ipv4({ src: H.HOST, dst: H.SERVER }, udp({ sport: 5060, dport: 5060 }, register)));
  expect(home.left('wan').length).toBe(1);
  const outside = at(H.ROUTER_WAN, 5060);
  const fine = sipReply(200, 'REGISTER', { via: outside, contact: outside, headers: ['Expires: 60'] });
  home.wan(ipv4({ src: H.SERVER, dst: H.ROUTER_WAN }, udp({ sport: 5060, dport: 5060 }, fine)));
  expect(home.left('lan').length).toBe(1);
  // The registration's own expectation ends after a minute; the server still speaks from where it was spoken to.
  home.router.advance(3_500_000);
  const call = sipRequest('OPTIONS', { via: at(H.SERVER, 5060), uri: `sip:alice@${outside}` });
  home.wan(ipv4({ src: H.SERVER, dst: H.ROUTER_WAN }, udp({ sport: 5060, dport: 5060 }, call)));
  expect(home.one('lan')).toMatchObject({ dst: H.HOST, dport: 5060 });
  home.router.advance(3_601_000);
  home.wan(ipv4({ src: H.SERVER, dst: H.ROUTER_WAN }, udp({ sport: 5060, dport: 5060 }, call)));
  expect(home.left('lan')).toEqual([]);
});
