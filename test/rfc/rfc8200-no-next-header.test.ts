/**
 * RFC 8200 §4.7: next header 59 says that nothing follows. What stands there all the same is left alone when the packet is
 * forwarded; a router that it is for has nothing to refuse.
 */
import { expect, it } from 'vitest';
import * as B from '../lib/build.ts';
import * as H from '../lib/home.ts';

const nothing = (bytes: Uint8Array): B.Segment => ({ proto: 59, bytes, sumAt: -1 });

it('a packet for the router that ended in No Next Header was answered as one of an unknown protocol', () => {
  const home = new H.Home();
  const toRouter = { src: H.HOST6, dst: H.ROUTER_LAN6 };
  home.lan(B.ipv6(toRouter, nothing(new Uint8Array(0))));
  home.lan(B.ipv6(toRouter, nothing(Uint8Array.of(1, 2, 3, 4, 5, 6, 7, 8))));
  home.lan(B.ipv6({ ...toRouter, ext: [B.destinationOptions()] }, nothing(new Uint8Array(0))));
  expect(home.left('lan')).toEqual([]);
  // A protocol that really is unknown is answered: Parameter Problem, code 1 (RFC 8200 §4, RFC 4443 §3.4).
  home.lan(B.ipv6(toRouter, { proto: 253, bytes: new Uint8Array(8), sumAt: -1 }));
  const { l4 } = home.one('lan');
  expect([l4[0], l4[1]]).toEqual([4, 1]);
});

it('bytes behind No Next Header go on unchanged', () => {
  const home = new H.Home();
  const data = Uint8Array.of(9, 8, 7, 6);
  home.lan(B.ipv6({ src: H.HOST6, dst: H.SERVER6 }, nothing(data)));
  expect(home.one('wan').l4).toEqual(data);
});
