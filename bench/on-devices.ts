import type { Workload } from './workload.ts';
export function liveWorkloads(): Workload[] {
  return [];
}
