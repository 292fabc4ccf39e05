/**
 * Network namespaces: run a function with the calling thread inside another namespace.
 *
 * setns(2) moves one thread only, so the rest of the process is not disturbed, and a descriptor opened inside keeps
 * its namespace wherever it is used later. The function must be synchronous: code after an await would run outside.
 */
import { close, errno, IoError, O_CLOEXEC, open, setns, systemError } from './ffi.ts';

const CLONE_NEWNET = 0x40000000;

/** Where `ip netns` keeps a namespace; a name with a slash is a path already (/proc/PID/ns/net). */
export function netnsPath(name: string): string {
  return name.includes('/') ? name : `/run/netns/${name}`;
}

/**
 * Calls `run` with the calling thread in namespace `name` (as `ip netns` names it, or a path), and returns to the
 * thread's own namespace whatever happens. An empty name means the current namespace. Errors: IoError.
 */
export function inNetns<T>(name: string, run: () => T): T {
  if (name === '') return run();
  const path = netnsPath(name);
  const home = open('/proc/thread-self/ns/net', O_CLOEXEC, 0);
  if (home < 0) throw systemError('/proc/thread-self/ns/net', 'to open the own network namespace', errno());
  try {
    const there = open(path, O_CLOEXEC, 0);
    if (there < 0)
      throw systemError(
        `namespace ${name}`,
        `${path} to exist`,
        errno(),
        `create it with "ip netns add ${name.replace(/^.*\//, '')}"`,
      );
    const entered = setns(there, CLONE_NEWNET);
    const reason = errno();
    close(there);
    if (entered < 0) throw systemError(`namespace ${name}`, 'to enter it', reason, 'run as root (CAP_SYS_ADMIN)');
    try {
      const result = run();
      if (result instanceof Promise)
        throw new IoError(`namespace ${name}`, 'a synchronous function', 'a promise', 'await outside of inNetns');
      return result;
    } finally {
      // Should this fail, every later open of this thread would land in the wrong namespace: it must not pass unseen.
      if (setns(home, CLONE_NEWNET) < 0)
        // biome-ignore lint/correctness/noUnsafeFinally: outweighs whatever `run` had to say
        throw systemError(`namespace ${name}`, 'to return to the own namespace', errno(), 'restart the router');
    }
  } finally {
    close(home);
  }
}
