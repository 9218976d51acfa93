/**
 * Puts items of the given lengths into bins of `capacity`, the longest first, each into the fullest bin that it still
 * fits (best-fit decreasing: at most 11/9 of the fewest bins possible). Gives the numbers of the items in each bin.
 * Lengths must be at most `capacity`. https://en.wikipedia.org/wiki/Best-fit_bin_packing
 */
export function bestFitDecreasing(lengths: readonly number[], capacity: number): number[][] {
  const order = lengths.map((_, item) => item).sort((a, b) => lengths[b]! - lengths[a]! || a - b);
  const bins: number[][] = [];
  const byRoom: number[][] = Array.from({ length: capacity + 1 }, () => []);
  const hasBin = new Uint32Array((capacity >> 5) + 1);
  for (const item of order) {
    const length = lengths[item]!;
    const room = firstSet(hasBin, length);
    const bin = room === undefined ? bins.push([]) - 1 : byRoom[room]!.pop()!;
    if (room !== undefined && byRoom[room]!.length === 0) hasBin[room >> 5]! &= ~(1 << (room & 31));
    bins[bin]!.push(item);
    const left = (room ?? capacity) - length;
    byRoom[left]!.push(bin);
    hasBin[left >> 5]! |= 1 << (left & 31);
  }
  return bins;
}

/** The lowest number from `start` on whose bit is set. */
function firstSet(bits: Uint32Array, start: number): number | undefined {
  let word = start >> 5;
  let rest = bits[word]! & (-1 << (start & 31));
  while (rest === 0) {
    if (++word >= bits.length) return undefined;
    rest = bits[word]!;
  }
  return word * 32 + 31 - Math.clz32(rest & -rest);
}
