/** Sizes that batches are padded to: tokens a row, and loss rows. */
export interface Bucket {
  readonly length: number;
  readonly rows: number;
}

/** Programs are compiled for each bucket and keep their memory, so there are few. */
const MOST = 4;

/**
 * At most four buckets that `needs` (length and loss rows of batches) fit into, with little padding: neighbours in
 * length are joined where that adds the fewest padded tokens. Lengths are multiples of `multiple`, at most `maxLength`.
 */
export function chooseBuckets(
  needs: readonly Bucket[],
  { multiple, maxLength }: { multiple: number; maxLength: number },
): Bucket[] {
  const groups = new Map<number, { length: number; rows: number; count: number }>();
  for (const need of needs) {
    const length = Math.min(maxLength, Math.ceil(need.length / multiple) * multiple);
    const group = groups.get(length) ?? { length, rows: 0, count: 0 };
    groups.set(length, { length, rows: Math.max(group.rows, need.rows), count: group.count + 1 });
  }
  const sorted = [...groups.values()].sort((a, b) => a.length - b.length);
  while (sorted.length > MOST) {
    const cost = (i: number): number =>
      sorted[i]!.count * (sorted[i + 1]!.length - sorted[i]!.length);
    let cheapest = 0;
    for (let i = 1; i + 1 < sorted.length; i++) if (cost(i) < cost(cheapest)) cheapest = i;
    const [a, b] = sorted.slice(cheapest, cheapest + 2);
    const rows = Math.max(a!.rows, b!.rows);
    sorted.splice(cheapest, 2, { length: b!.length, rows, count: a!.count + b!.count });
  }
  return sorted.map(({ length, rows }) => ({ length, rows }));
}

/** The smallest of `buckets` (ascending) that `need` fits into. */
export function bucketFor(buckets: readonly Bucket[], need: Bucket): Bucket | undefined {
  return buckets.find(({ length, rows }) => length >= need.length && rows >= need.rows);
}
